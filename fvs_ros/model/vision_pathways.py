"""Both pathways of the Flash Memory through a vision tower in one pass.

Shapes: n grid steps, P patches of a frame, D width of a patch feature, h heads of d values; see `backbone.py`.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from fvs_ros.memory.geometry import FRAMES_PER_STEP, MERGE, POOL
from fvs_ros.memory.snapshot import PatchGrid, StepFeatures
from fvs_ros.model.backbone import VisionTower
from fvs_ros.model.preprocess import patchify
from fvs_ros.model.rotary import rotate, signed

ROPE_BASE = 10_000.0


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


@dataclass(frozen=True)
class Windows:
    """As many runs of patches, each after the other, within which patches attend to each other."""

    count: int
    patches: int


@dataclass(frozen=True)
class Interpolation:
    """How each of P patches mixes rows of a table.

    Attributes:
        rows: [P, 4] int64.
        weights: [P, 4] float32.
    """

    rows: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Pathway:
    """One resolution of a step.

    Attributes:
        rotation: of its patches, in `order`.
        windows: that attention is bound to, in blocks that are; together they are all P patches.
        order: [P] int64, in which the blocks see the patches; None for merge-block order.
        places: where the patches stand in a table of learned position embeddings; None without one.
    """

    rotation: Rotation
    windows: tuple[Windows, ...]
    order: Tensor | None = None
    places: Interpolation | None = None

    @property
    def patches(self) -> int:
        """P."""
        return self.rotation.cosines.shape[0]

    @property
    def unbound(self) -> Pathway:
        """With attention to all patches of the step."""
        return replace(self, windows=(Windows(1, self.patches),))


class PathwayTower(VisionTower):
    """Transformers' tower, whose blocks' attention is replaced; its gradient checkpointing is honoured.

    Its blocks are norm1, attn (qkv and proj), norm2 and mlp.
    """

    @property
    def unhooked_weights(self) -> tuple[nn.Parameter, ...]:
        """See `VisionTower.unhooked_weights`."""
        return (self.module.patch_embed.proj.weight,)

    @property
    def kept_blocks(self) -> tuple[int, ...]:
        """Blocks whose output stands beside that of the last one in each patch's features, in this order."""
        return ()

    @abc.abstractmethod
    def pathways(self, grid: PatchGrid, device: torch.device) -> tuple[Pathway, Pathway]:
        """High and low resolution of frames on a grid."""

    def is_bound(self, block: int) -> bool:
        """Whether attention of the block of that number is bound to the pathway's windows."""
        return False

    def embed(self, patches: Tensor, steps: int, pathways: Sequence[Pathway]) -> Tensor:
        """What the first block takes, [n P + n P / 4, D], of the patches of both pathways [n P + n P / 4, C]."""
        projection = self.module.patch_embed.proj
        # A Conv3d over non-overlapping patches is one matrix product; as such it is several times faster on a CPU.
        return functional.linear(patches.to(projection.weight.dtype), projection.weight.flatten(1), projection.bias)

    def encode(self, frames: Tensor) -> StepFeatures:
        """See `VisionTower.encode`.

        The low-resolution pathway pools the *normalised pixels* 2 x 2 and runs the whole ViT again on them, as the
        published code does; the paper's figure pools after the encoder. Attention stays within a step and a pathway, so
        both go through the linear layers as one batch.
        """
        tower = self.module
        grid = PatchGrid.of_frames(frames.shape[2], frames.shape[3], self.patch)
        steps = frames.shape[0] // FRAMES_PER_STEP
        bound = high, low = self.pathways(grid, frames.device)
        unbound = (high.unbound, low.unbound)
        pooled = functional.avg_pool2d(frames, POOL)
        pixels = _ordered(patchify(frames, self.patch), high), _ordered(patchify(pooled, self.patch), low)
        patches = torch.cat([pathway.reshape(-1, pathway.shape[-1]) for pathway in pixels])
        hidden = self.embed(patches, steps, bound)
        kept: dict[int, Tensor] = {}
        for index, block in enumerate(tower.blocks):
            pathways = bound if self.is_bound(index) else unbound
            if block.gradient_checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(_block, block, hidden, steps, pathways, use_reentrant=False)
            else:
                hidden = _block(block, hidden, steps, pathways)
            if index in self.kept_blocks:
                kept[index] = hidden
        if kept:
            hidden = torch.cat([hidden, *(kept[index] for index in self.kept_blocks)], dim=1)
        split = steps * grid.patches
        return StepFeatures(
            high=_restored(hidden[:split].reshape(steps, grid.patches, -1), high),
            low=_restored(hidden[split:].reshape(steps, grid.low_patches, -1), low),
        )


def _ordered(patches: Tensor, pathway: Pathway) -> Tensor:
    return patches if pathway.order is None else patches[:, pathway.order]


def _restored(features: Tensor, pathway: Pathway) -> Tensor:
    """Features [n, P, D] in merge-block order again."""
    if pathway.order is None:
        return features
    return torch.empty_like(features).index_copy(1, pathway.order, features)


def _block(block: Any, hidden: Tensor, steps: int, pathways: Sequence[Pathway]) -> Tensor:
    hidden = hidden + _attention(block.attn, block.norm1(hidden), steps, pathways)
    return hidden + block.mlp(block.norm2(hidden))


def _attention(attention: Any, hidden: Tensor, steps: int, pathways: Sequence[Pathway]) -> Tensor:
    """Attention within each step, pathway and window; `hidden` is [n P + n P / 4, D]."""
    states = attention.qkv(hidden)
    outputs, start = [], 0
    for pathway in pathways:
        patches = pathway.patches
        part = states[start : start + steps * patches].reshape(steps, patches, 3, attention.num_heads, -1)
        query, key = pathway.rotation(part[:, :, :2]).unbind(2)
        outputs.append(_within(pathway.windows, query, key, part[:, :, 2]).reshape(steps * patches, -1))
        start += steps * patches
    return attention.proj(torch.cat(outputs))


def _within(windows: Sequence[Windows], query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Mixed values [n, P, h, d] of queries, keys and values [n, P, h, d], within each window."""
    outputs, start = [], 0
    for one in windows:
        end = start + one.count * one.patches
        queries, keys, values = (
            states[:, start:end].reshape(-1, one.patches, *states.shape[2:]).transpose(1, 2)
            for states in (query, key, value)
        )
        output = functional.scaled_dot_product_attention(queries, keys, values)
        outputs.append(output.transpose(1, 2).reshape(query.shape[0], end - start, *query.shape[2:]))
        start = end
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def patch_places(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column [P] int64 of a grid's patches, in merge-block order."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    blocks = (height // MERGE, MERGE, width // MERGE, MERGE)
    rows, columns = (axis.reshape(blocks).transpose(1, 2).flatten() for axis in (rows, columns))
    return rows, columns


@functools.lru_cache(maxsize=16)
def patch_rotation(height: int, width: int, head_dim: int, device: torch.device) -> Rotation:
    """The two-dimensional rotary embedding of a grid's patches, in merge-block order."""
    angles = _patch_angles(height, width, head_dim, device)[:, None, None]
    return Rotation(angles.cos(), signed(angles.sin()))


def _patch_angles(height: int, width: int, head_dim: int, device: torch.device) -> Tensor:
    """Angles [P, d]: a quarter of them turn with the patch's row, a quarter with its column, then both again."""
    half = head_dim // 2
    frequencies = 1.0 / ROPE_BASE ** (torch.arange(0, half, 2, dtype=torch.float32, device=device) / half)
    rows, columns = patch_places(height, width, device)
    angles = torch.cat([rows[:, None] * frequencies, columns[:, None] * frequencies], dim=1)
    return torch.cat([angles, angles], dim=1)
