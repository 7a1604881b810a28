"""The memory probe: memory tokens learn facts about the stream that a question may later ask for.

An answer supervises one or two words about a memory. What came before an object, how many of its kind there were,
whether it stood here on the last visit: the simulator knows this for every token that shows an object, and most
questions ask for it. A linear layer reads it from the language model's hidden states at three fifths of its depth,
which leaves the layers above to questions that look it up. The probe is dropped after its stage; prefill has then
computed, once, what every question would have to work out again.

Shapes: T grid steps, N tokens of a low-resolution step, L tokens of all memories, H their width, G groups, S members of
all sets.
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
"""Share of the language model's layers below the hidden states that are read."""
LONGEST_SLOT_NS = 8_000_000_000
"""A slot that joins steps further apart has no single answer."""
MEMBERS_WEIGHT = 10.0
"""Weight of a set's loss, against 1 for a group's: on average 3 of its 80 possible members are in it."""
UNKNOWN = -1
"""Stands where there is no label."""


@dataclass(frozen=True)
class ProbeLabels:
    """What the low-resolution tokens of an episode should know.

    Attributes:
        labels: int64 [T, N, G], one of each group, `UNKNOWN` where there is none.
        members: int64 [T, S], 1 for a member of its set, 0 for none, `UNKNOWN` where nobody can tell.
    """

    labels: np.ndarray
    members: np.ndarray


def slot_labels(labels: ProbeLabels, snapshot: MemorySnapshot, before: int, after: int) -> Tensor:
    """Labels of each token of a sequence that holds a memory, int64 [L, G + S], `UNKNOWN` for all but CSM tokens.

    Args:
        labels: of the episode.
        snapshot: the memory.
        before: number of tokens ahead of it.
        after: number of tokens behind it.
    """
    steps = snapshot.csm_times.round().long().cpu()
    members = np.repeat(labels.members[:, None], labels.labels.shape[1], axis=1)
    columns = torch.from_numpy(np.concatenate([labels.labels, members], axis=2))[steps]
    long = (snapshot.csm_end_ns - snapshot.csm_start_ns).cpu() > LONGEST_SLOT_NS
    columns = columns.masked_fill(long[:, None, None], UNKNOWN).flatten(0, 1)
    dam_tokens = snapshot.grid.dam_tokens
    padding = (0, 0, before + snapshot.dam.shape[0] * dam_tokens, snapshot.window.shape[0] * dam_tokens + after)
    return functional.pad(columns, padding, value=UNKNOWN)


class MemoryProbe(nn.Module):
    """The linear layer that reads labels from hidden states.

    Args:
        width: H.
        groups: number of labels in each group; the labels of a group exclude each other.
        sets: number of possible members of each set, S in all.

    Attributes:
        columns: G + S, of a token's labels.
    """

    def __init__(self, width: int, groups: Mapping[str, int], sets: Mapping[str, int]) -> None:
        super().__init__()
        self._groups, self._sets = dict(groups), dict(sets)
        self.columns = len(groups) + sum(sets.values())
        self.reader = nn.Linear(width, sum(groups.values()) + sum(sets.values()))

    def forward(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over groups of their cross-entropy and over sets of their binary one, and the share read right.

        Changes are rare: nine objects in ten stand where they stood. All tokens of one label together weigh as much as
        the square root of their number, and every label counts the same in the share, so that guessing the frequent
        label gains little of the one and nothing of the other.

        Args:
            hidden: [L, H].
            labels: [L, G + S].
        """
        some = (labels != UNKNOWN).any(1)
        logits = self.reader(hidden[some]).float().split([*self._groups.values(), *self._sets.values()], dim=-1)
        columns = labels[some].split([1] * len(self._groups) + list(self._sets.values()), dim=-1)
        losses, right = [], {}
        for name, part, column in zip((*self._groups, *self._sets), logits, columns, strict=True):
            known = column != UNKNOWN
            if known.any():
                score = _group_loss if name in self._groups else _set_loss
                loss, right[f"probe_{name}"] = score(part, column, known)
                losses.append(loss)
        if not losses:
            return 0.0 * self.reader.weight.sum(), {}
        return torch.stack(losses).mean(), right


def _group_loss(logits: Tensor, labels: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Of labels [M, 1] that exclude each other."""
    logits, wanted = logits[known[:, 0]], labels[known]
    counts = torch.bincount(wanted, minlength=logits.shape[1]).float()[wanted]
    weights, shares = counts.rsqrt(), 1 / counts
    errors = functional.cross_entropy(logits, wanted, reduction="none")
    right = logits.argmax(-1) == wanted
    return (weights / weights.sum() * errors).sum(), (shares / shares.sum() * right).sum()


def _set_loss(logits: Tensor, members: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Of a set, whose members [M, S'] are right for a token only if all known ones are."""
    errors = functional.binary_cross_entropy_with_logits(
        logits, members.clamp(min=0).float(), weight=known.float(), reduction="sum"
    )
    agrees = ((logits > 0) == (members > 0)) | ~known
    return MEMBERS_WEIGHT * errors / known.sum(), agrees[known.any(1)].all(1).float().mean()
