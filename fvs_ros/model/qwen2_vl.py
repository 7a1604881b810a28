"""Qwen2-VL as a backbone, and its vision tower on both pathways of the Flash Memory in one pass.

Shapes: n grid steps, P patches of a frame, D width of a patch feature, h heads of d values; see `backbone.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VisionTransformerPretrainedModel,
    Qwen2VLVisionBlock,
    VisionAttention,
)

from fvs_ros.memory.geometry import FRAMES_PER_STEP, MERGE, PATCH, POOL
from fvs_ros.memory.snapshot import PatchGrid, StepFeatures
from fvs_ros.model.backbone import Backbone, VisionTower
from fvs_ros.model.preprocess import patchify
from fvs_ros.model.rotary import rotate, signed

ROPE_BASE = 10_000.0


class Qwen2VLBackbone(Backbone):
    """A Qwen2-VL network of transformers."""

    @property
    def tower(self) -> Qwen2VLTower:
        """See `Backbone.tower`."""
        return Qwen2VLTower(self._network.model.visual)

    @property
    def merger(self) -> nn.Module:
        """See `Backbone.merger`."""
        return self._network.model.visual.merger

    @property
    def language_model(self) -> Any:
        """See `Backbone.language_model`."""
        return self._network.model.language_model


class Qwen2VLTower(VisionTower):
    """Transformers' tower, whose blocks' attention is replaced; its gradient checkpointing is honoured."""

    def __init__(self, module: Qwen2VisionTransformerPretrainedModel) -> None:
        super().__init__(module, module.config.embed_dim)

    @property
    def unhooked_weights(self) -> tuple[nn.Parameter, ...]:
        """See `VisionTower.unhooked_weights`."""
        return (self.module.patch_embed.proj.weight,)

    def encode(self, frames: Tensor) -> StepFeatures:
        """See `VisionTower.encode`.

        The low-resolution pathway pools the *normalised pixels* 2 x 2 and runs the whole ViT again on them, as the
        published code does; the paper's figure pools after the encoder. Attention stays within a step and a pathway, so
        both go through the linear layers as one batch.
        """
        tower = self.module
        grid = PatchGrid(frames.shape[2] // PATCH, frames.shape[3] // PATCH)
        steps = frames.shape[0] // FRAMES_PER_STEP
        weight = tower.patch_embed.proj.weight
        high = patchify(frames)
        low = patchify(functional.avg_pool2d(frames, POOL))
        patches = torch.cat([high.reshape(steps * grid.patches, -1), low.reshape(steps * grid.low_patches, -1)])
        # A Conv3d over non-overlapping patches is one matrix product; as such it is several times faster on a CPU.
        hidden = functional.linear(patches.to(weight.dtype), weight.flatten(1))
        head_dim = tower.config.embed_dim // tower.config.num_heads
        rotations = (
            _rotation(grid.height, grid.width, head_dim, frames.device),
            _rotation(grid.height // POOL, grid.width // POOL, head_dim, frames.device),
        )
        for block in tower.blocks:
            if block.gradient_checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(_block, block, hidden, steps, rotations, use_reentrant=False)
            else:
                hidden = _block(block, hidden, steps, rotations)
        split = steps * grid.patches
        return StepFeatures(
            high=hidden[:split].reshape(steps, grid.patches, -1),
            low=hidden[split:].reshape(steps, grid.low_patches, -1),
        )


@dataclass(frozen=True)
class Rotation:
    """Rotary embedding of one pathway's patches.

    Attributes:
        cosines: [P, 1, 1, d] float32.
        signed_sines: likewise, see `rotary.signed`.
    """

    cosines: Tensor
    signed_sines: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        """Turns queries and keys [n, P, 2, h, d] at once, computed in float32 as published.

        Four kernels that touch 26 bytes a value, instead of seven for each that touch 52: on an H200, 7.3 ms a step of
        a 7B model instead of 8.8.
        """
        return rotate(states, self.cosines, self.signed_sines).to(states.dtype)


def _block(block: Qwen2VLVisionBlock, hidden: Tensor, steps: int, rotations: Sequence[Rotation]) -> Tensor:
    hidden = hidden + _attention(block.attn, block.norm1(hidden), steps, rotations)
    return hidden + block.mlp(block.norm2(hidden))


def _attention(attention: VisionAttention, hidden: Tensor, steps: int, rotations: Sequence[Rotation]) -> Tensor:
    """Attention within each step and pathway; `hidden` is [n P + n P / 4, D]."""
    states = attention.qkv(hidden)
    outputs, start = [], 0
    for rotation in rotations:
        patches = rotation.cosines.shape[0]
        part = states[start : start + steps * patches].reshape(steps, patches, 3, attention.num_heads, -1)
        query, key = rotation(part[:, :, :2]).unbind(2)
        output = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), part[:, :, 2].transpose(1, 2)
        )
        outputs.append(output.transpose(1, 2).reshape(steps * patches, -1))
        start += steps * patches
    return attention.proj(torch.cat(outputs))


@functools.lru_cache(maxsize=16)
def _rotation(height: int, width: int, head_dim: int, device: torch.device) -> Rotation:
    angles = _patch_angles(height, width, head_dim, device)[:, None, None]
    return Rotation(angles.cos(), signed(angles.sin()))


def _patch_angles(height: int, width: int, head_dim: int, device: torch.device) -> Tensor:
    """Angles [P, d]: a quarter of them turn with the patch's row, a quarter with its column, then both again."""
    half = head_dim // 2
    frequencies = 1.0 / ROPE_BASE ** (torch.arange(0, half, 2, dtype=torch.float32, device=device) / half)
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    blocks = (height // MERGE, MERGE, width // MERGE, MERGE)
    rows, columns = (axis.reshape(blocks).transpose(1, 2).flatten() for axis in (rows, columns))
    angles = torch.cat([rows[:, None] * frequencies, columns[:, None] * frequencies], dim=1)
    return torch.cat([angles, angles], dim=1)
