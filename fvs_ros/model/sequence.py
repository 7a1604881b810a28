"""The language model's input as embeddings and positions: the prompt's head, the memory, text.

Answering and training both build their input here, so that the model is asked as it was trained.

Shapes: L tokens, H width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.memory.time_code import memory_clock_code, memory_time_code
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


def memory_segment(
    backbone: Backbone,
    snapshot: MemorySnapshot,
    head: Sequence[int],
    config: FlashMemoryConfig,
) -> Segment:
    """The prompt's head, then the memory through the merger. Gradients flow where they are switched on."""
    merged = backbone.merger(snapshot.features())
    if config.time_code:
        merged = merged + memory_time_code(snapshot, config, merged.shape[-1]).to(merged.dtype)
    if config.clock_code:
        merged = merged + memory_clock_code(snapshot, config, merged.shape[-1]).to(merged.dtype)
    text = text_segment(backbone, head, 0)
    layout = backbone.memory_layout(snapshot, len(head), config)
    if layout.order is not None:
        merged = merged[layout.order.to(backbone.device)]
    return Segment(
        embeddings=torch.cat([text.embeddings, merged]),
        positions=torch.cat([text.positions, layout.positions.to(backbone.device)], dim=1),
        next_position=layout.next_position,
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
