"""Proof attention: a question's last token looks at the slots that prove its answer.

An answer says what was right, not where it was to be seen: a model that guesses a ladder's room learns as much from a
lucky guess as from having looked. The simulator knows which slots of a memory prove an answer. Here the upper layers'
attention from the question's last token, which gives the answer's first, is drawn towards these. The heads of a layer
share the task, so that some may look elsewhere.

Shapes: h heads, C conversations about a memory, N tokens of its prefix, S slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.training.shared_prefix import AskedAttention

LOWER = 0.6
"""Share of the language model's layers that attend as they like; what these make is what the memory probe reads."""
STEP_NS = 2_000_000_000
"""Of a grid step, two frames at one a second: a keyframe less than that beside a proof still shows it."""

Intervals = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Proofs:
    """What proves the answers about a memory.

    Attributes:
        tokens: [C, N] float32, 1 for the tokens of slots that prove an answer; none where that tells nothing.
        slots: [N] float32, 1 for the tokens of any slot.
    """

    tokens: Tensor
    slots: Tensor


def proofs_of(snapshot: MemorySnapshot, slot_of_token: Tensor, proofs_ns: Sequence[Intervals]) -> Proofs:
    """The tokens that prove each conversation's answer.

    Where more than half of the slots do, as of what was nowhere, any part of the memory is as good as another: then
    none counts.

    Args:
        snapshot: the memory.
        slot_of_token: [N] int64, see `MemorySegment.slots`.
        proofs_ns: of each conversation, intervals of stamps, both ends included.
    """
    device = snapshot.csm.device
    single = (snapshot.dam_stamps_ns, snapshot.window_stamps_ns)
    # Of recalled segments no keyframe is known: each is a stay, all of which shows the same.
    begins = snapshot.csm_start_ns if snapshot.ranked else snapshot.csm_stamps_ns
    ends = snapshot.csm_end_ns if snapshot.ranked else snapshot.csm_stamps_ns
    begin, end = (torch.cat([single[0], csm, single[1]]) for csm in (begins, ends))
    shown = torch.zeros(len(proofs_ns), len(begin), dtype=torch.bool, device=device)
    for row, intervals in enumerate(proofs_ns):
        for first_ns, last_ns in intervals:
            shown[row] |= (begin < last_ns + STEP_NS) & (end > first_ns - STEP_NS)
    shown &= 2 * shown.sum(1, keepdim=True) <= len(begin)
    owners = slot_of_token.to(device)
    there = owners >= 0
    return Proofs((shown[:, owners.clamp(min=0)] & there).float(), there.float())


def drawn_layers(layers: int) -> tuple[int, ...]:
    """Indices of the layers whose attention is drawn, of so many."""
    return tuple(range(min(round(LOWER * layers), layers - 1), layers))


def proof_attention_loss(attention: AskedAttention, proofs: Sequence[Proofs]) -> tuple[Tensor, dict[str, Tensor]]:
    """How little attention the proofs get, and how much.

    Args:
        attention: of all memories' questions.
        proofs: of each memory.

    Returns:
        The mean over layers and questions of the negative logarithm of the share of a layer's attention to slots that
        its heads pay, on average, to the proof's; and the mean of these shares.
    """
    losses, shares = [], []
    for weights, of_memory in zip(attention.by_block, proofs, strict=True):
        proved = of_memory.tokens.any(1)
        if not proved.any():
            continue
        paid = torch.stack(weights)[:, :, proved].float()
        on_proof = (paid * of_memory.tokens[proved]).sum(-1)
        share = (on_proof / (paid * of_memory.slots).sum(-1).clamp_min(torch.finfo(paid.dtype).tiny)).mean(1)
        losses.append(-share.clamp_min(torch.finfo(paid.dtype).tiny).log().flatten())
        shares.append(share.detach().flatten())
    if not losses:
        return 0.0 * torch.stack([weights[0].sum() for weights in attention.by_block]).sum(), {}
    return torch.cat(losses).mean(), {"proof_attention": torch.cat(shares).mean()}
