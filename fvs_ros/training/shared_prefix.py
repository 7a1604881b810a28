"""Attention for many conversations about one memory: each sees the memory and itself, none sees another.

A mask over the whole sequence would compute, and throw away, every pair of tokens of different conversations. Here the
memory attends to itself once, and the conversations attend to it side by side. At 620 tokens of memory and 24
conversations of 18 tokens (4 heads of 64, bfloat16, one core of an AMD EPYC) a layer takes 18 ms forward and backward;
with a mask it takes 42 ms.

Shapes: L tokens, p of a prefix, n conversations of t tokens, h heads of d values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION = "fvs_shared_prefix"
"""Name among transformers' attention implementations."""


@dataclass(frozen=True)
class Block:
    """A prefix of `prefix` tokens, then `conversations` times `length` tokens, the shorter ones padded at their end."""

    prefix: int
    conversations: int
    length: int

    @property
    def tokens(self) -> int:
        """Of the whole block."""
        return self.prefix + self.conversations * self.length


@dataclass(frozen=True)
class SharedPrefix:
    """Stands for an attention mask: the blocks that make up a sequence, which do not see each other."""

    blocks: tuple[Block, ...]


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | SharedPrefix | None,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention function: [1, h, L, d] to [1, L, h, d]; with any other mask it is SDPA."""
    if not isinstance(attention_mask, SharedPrefix):
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **rest
        )
        return output
    groups = query.shape[1] // key.shape[1]
    states = (query[0], key[0].repeat_interleave(groups, 0), value[0].repeat_interleave(groups, 0))
    sizes = [block.tokens for block in attention_mask.blocks]
    parts = zip(attention_mask.blocks, *(state.split(sizes, dim=1) for state in states), strict=True)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    outputs = [_attend(block, *part, scale) for block, *part in parts]
    return torch.cat(outputs, dim=1).transpose(0, 1)[None], None


def _attend(block: Block, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Of one block, [h, L, d]."""
    memory = [state[:, : block.prefix] for state in (query, key, value)]
    before = functional.scaled_dot_product_attention(*(part[None] for part in memory), is_causal=True, scale=scale)[0]
    heads, _, width = query.shape
    shape = (heads, block.conversations, block.length, width)
    asked, own_key, own_value = (state[:, block.prefix :].reshape(shape) for state in (query, key, value))
    flat = asked.reshape(heads, -1, width)
    to_memory = flat @ memory[1].transpose(1, 2)
    to_own = (asked @ own_key.transpose(2, 3)).masked_fill(_future(block.length, query.device), float("-inf"))
    scores = torch.cat([to_memory, to_own.reshape(heads, -1, block.length)], dim=-1)
    weights = (scores * scale).softmax(-1)
    from_memory = weights[..., : block.prefix] @ memory[2]
    own_weights = weights[..., block.prefix :].reshape(heads, block.conversations, block.length, block.length)
    from_own = (own_weights @ own_value).reshape(heads, -1, width)
    return torch.cat([before, from_memory + from_own], dim=1)


def _future(length: int, device: torch.device) -> Tensor:
    """Which tokens of a conversation come after each, bool [t, t]."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)


def sequence_mask(blocks: Sequence[Block]) -> dict[str, SharedPrefix]:
    """What transformers takes in place of its own masks."""
    return {"full_attention": SharedPrefix(tuple(blocks))}


AttentionInterface.register(IMPLEMENTATION, shared_prefix_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
