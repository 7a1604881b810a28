"""Digesting: the memory's tokens learn what a watcher would have worked out by then, before anything is asked.

An answer teaches a word or two of one memory. What came before an object, how many of its kind there were, whether it
stood here on the last visit: all this is known at every token that shows one, and is what most questions ask for.
A linear layer reads it from the language model's hidden states at three fifths of its depth, so that the layers above
are left to a question that looks it up; it is dropped once the stage is trained. In reading the memory ahead, the model
then does in advance what each question would have to do for itself.

Shapes: T grid steps, N tokens of a low-resolution step, G groups, L tokens, H width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fvs_ros.memory.snapshot import MemorySnapshot

DEPTH = 0.6
"""Of the language model's layers, after which hidden states are read."""
LONGEST_SLOT_NS = 8_000_000_000
"""A slot of steps that lie further apart has no single answer."""
MEMBERS_WEIGHT = 10.0
"""Of a set's mean error over its possible members, of which 3 in 80 are there, beside a group's."""
UNKNOWN = -1
"""Where there is no label."""


@dataclass(frozen=True)
class Digest:
    """What the low-resolution tokens of an episode could know.

    Attributes:
        groups: how many labels each group has; they exclude each other.
        labels: int64 [T, N, G], -1 where there is none.
        sets: how many things each set can hold, S together.
        members: int64 [T, S], 1 for what is in its set, 0 for what is not, -1 where that is unknown.
    """

    groups: Mapping[str, int]
    labels: np.ndarray
    sets: Mapping[str, int]
    members: np.ndarray

    def columns(self) -> Tensor:
        """All that a token could know, int64 [T, N, G + S]."""
        tokens = self.labels.shape[1]
        members = np.repeat(self.members[:, None], tokens, axis=1)
        return torch.from_numpy(np.concatenate([self.labels, members], axis=2))


def slot_labels(digest: Digest, snapshot: MemorySnapshot, before: int, after: int) -> Tensor:
    """What each token of a sequence that holds a memory could know, int64 [L, G + S], -1 for all but CSM tokens.

    Args:
        digest: of the episode.
        snapshot: the memory.
        before: tokens ahead of it.
        after: tokens behind it.
    """
    steps = snapshot.csm_times.round().long().cpu()
    labels = digest.columns()[steps]
    long = (snapshot.csm_end_ns - snapshot.csm_start_ns).cpu() > LONGEST_SLOT_NS
    labels = labels.masked_fill(long[:, None, None], UNKNOWN).flatten(0, 1)
    grid = snapshot.grid
    ahead = before + snapshot.dam.shape[0] * grid.dam_tokens
    behind = snapshot.window.shape[0] * grid.dam_tokens + after
    return functional.pad(labels, (0, 0, ahead, behind), value=UNKNOWN)


def digest_loss(
    hidden: Tensor, labels: Tensor, reader: nn.Linear, groups: Mapping[str, int], sets: Mapping[str, int]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over groups of the cross-entropy and over sets of the binary one, and how much of each was right.

    What changed is rare: in nine of ten cases an object stands where it stood. A label's tokens together count as the
    root of their number, and in what was right all labels count the same, so that a guess gets nowhere.

    Args:
        hidden: [L, H] of all memories.
        labels: [L, G + S].
        reader: from H to the labels of all groups, then the members of all sets.
        groups: how many labels each has.
        sets: how many members each can have.
    """
    some = (labels != UNKNOWN).any(1)
    logits = reader(hidden[some]).float().split([*groups.values(), *sets.values()], dim=-1)
    columns = labels[some].split([1] * len(groups) + list(sets.values()), dim=-1)
    losses, right = [], {}
    for group, part, column in zip(groups, logits, columns, strict=False):
        wanted = column[:, 0]
        there = wanted != UNKNOWN
        if there.any():
            weights, shares = _label_weights(wanted[there], part.shape[1])
            errors = functional.cross_entropy(part[there], wanted[there], reduction="none")
            losses.append((weights * errors).sum())
            right[f"digest_{group}"] = (shares * (part[there].argmax(-1) == wanted[there])).sum()
    for name, part, wanted in zip(sets, logits[len(groups) :], columns[len(groups) :], strict=True):
        there = wanted != UNKNOWN
        if there.any():
            errors = functional.binary_cross_entropy_with_logits(
                part, wanted.clamp(min=0).float(), weight=there.float(), reduction="sum"
            )
            losses.append(MEMBERS_WEIGHT * errors / there.sum())
            whole = there.any(1)
            agrees = ((part > 0) == (wanted > 0)) | ~there
            right[f"digest_{name}"] = agrees[whole].all(1).float().mean()
    if not losses:
        return 0.0 * reader.weight.sum(), {}
    return torch.stack(losses).mean(), right


def _label_weights(wanted: Tensor, labels: int) -> tuple[Tensor, Tensor]:
    """For each token, its part of a loss and of the share of right labels, [M] each, of sum 1."""
    counts = torch.bincount(wanted, minlength=labels).float()[wanted]
    weights, shares = counts.rsqrt(), 1 / counts
    return weights / weights.sum(), shares / shares.sum()
