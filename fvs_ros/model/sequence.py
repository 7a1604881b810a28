"""The language model's input as embeddings and positions: the prompt's head, the memory, text.

Answering and training both build their input here, so that the model is asked as it was trained.

Shapes: L tokens, k layers that DeepStack adds to, H width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.memory.time_code import memory_clock_code, memory_time_code
from fvs_ros.memory.timestamps import StepWords
from fvs_ros.model.backbone import Backbone


@dataclass(frozen=True)
class Segment:
    """A run of tokens.

    Attributes:
        embeddings: [L, H].
        positions: [3, L] int64, on the axes time, row and column.
        next_position: where the text after it stands.
    """

    embeddings: Tensor
    positions: Tensor
    next_position: int


@dataclass(frozen=True)
class MemorySegment(Segment):
    """A prompt's head and the memory after it.

    Attributes:
        slots: [L] int64 on the host, to which of `MemorySnapshot.slot_tokens` each token belongs; -1 for text.
        deepstack: [k, L, H], see `Backbone.hidden_states`; None where the model has none.
    """

    slots: Tensor
    deepstack: Tensor | None = None


def memory_segment(
    backbone: Backbone,
    snapshot: MemorySnapshot,
    head: Sequence[int],
    config: FlashMemoryConfig,
    words: StepWords | None = None,
) -> MemorySegment:
    """The prompt's head, then the memory through the merger. Gradients flow where they are switched on.

    Args:
        backbone: of the model.
        snapshot: the memory.
        head: ids of the prompt's tokens before it.
        config: of the memory.
        words: around each step, where the prompt has them.
    """
    visual = backbone.merge(snapshot.features())
    merged, deepstack = visual.embeddings, visual.deepstack
    if config.time_code:
        merged = merged + memory_time_code(snapshot, config, merged.shape[-1]).to(merged.dtype)
    if config.clock_code:
        merged = merged + memory_clock_code(snapshot, config, merged.shape[-1]).to(merged.dtype)
    text = text_segment(backbone, head, 0)
    layout = backbone.memory_layout(snapshot, len(head), config, words)
    slots = torch.arange(len(snapshot.slot_tokens)).repeat_interleave(torch.tensor(snapshot.slot_tokens))
    if layout.order is not None:
        order = layout.order.to(backbone.device)
        # Where text stands, -1 takes any token.
        merged, slots = merged[order], slots[layout.order.cpu()]
        deepstack = None if deepstack is None else deepstack[:, order]
        if layout.text is not None:
            seen = (order >= 0)[:, None]
            merged = torch.where(seen, merged, backbone.embeddings(layout.text.to(backbone.device).clamp(min=0)))
            slots = slots.where(layout.order.cpu() >= 0, -1)
            deepstack = None if deepstack is None else deepstack * seen
    return MemorySegment(
        embeddings=torch.cat([text.embeddings, merged]),
        positions=torch.cat([text.positions, layout.positions.to(backbone.device)], dim=1),
        next_position=layout.next_position,
        slots=functional.pad(slots, (len(head), 0), value=-1),
        deepstack=None if deepstack is None else functional.pad(deepstack, (0, 0, len(head), 0)),
    )


def text_segment(backbone: Backbone, tokens: Sequence[int], position: int) -> Segment:
    """Text whose first token stands at `position`."""
    device = backbone.device
    return Segment(
        embeddings=backbone.embeddings(torch.tensor(tokens, device=device)),
        positions=text_positions(position, len(tokens), device),
        next_position=position + len(tokens),
    )


def text_positions(first: int, count: int, device: torch.device) -> Tensor:
    """Position ids [3, count] of text: the same on all three axes."""
    return torch.arange(first, first + count, device=device).expand(3, -1)
