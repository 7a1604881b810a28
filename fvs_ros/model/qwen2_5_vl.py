"""Qwen2.5-VL as a backbone; see `backbone.py` for shapes.

It differs from Qwen2-VL in its vision tower, most of whose blocks attend within windows, and in positions, whose time
axis counts seconds. Its language model is the same.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.geometry import MERGE, PATCH, POOL
from fvs_ros.memory.positions import MemoryLayout
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid
from fvs_ros.memory.timeline import timeline_layout
from fvs_ros.memory.timestamps import StepWords
from fvs_ros.model.backbone import Backbone
from fvs_ros.model.vision_pathways import Pathway, PathwayTower, Rotation, Windows, patch_rotation

# The technical report (Bai et al. 2025) has it trained on videos of hours, whose times it knows by these positions.
LONGEST_S = 3_600.0


class Qwen25VLBackbone(Backbone):
    """A Qwen2.5-VL network of transformers."""

    @property
    def tower(self) -> Qwen25VLTower:
        """See `Backbone.tower`."""
        return Qwen25VLTower(self._network.model.visual)

    def memory_layout(
        self, snapshot: MemorySnapshot, first: int, config: FlashMemoryConfig, words: StepWords | None = None
    ) -> MemoryLayout:
        """The memory as a video, see `timeline_layout`; `config` and `words` make no difference."""
        return timeline_layout(snapshot, first, self._network.config.vision_config.tokens_per_second, LONGEST_S)


class Qwen25VLTower(PathwayTower):
    """A patch attends to its window of `window_size` pixels, in the blocks `fullatt_block_indexes` to its whole step.

    Transformers' tower brings patches into the order of windows and its merged tokens back; features here are of before
    the merger, and are brought back themselves.
    """

    def __init__(self, module: Qwen2_5_VisionTransformerPretrainedModel) -> None:
        super().__init__(module, module.config.hidden_size)

    def is_bound(self, block: int) -> bool:
        """See `PathwayTower.is_bound`."""
        return block not in self.module.fullatt_block_indexes

    def pathways(self, grid: PatchGrid, device: torch.device) -> tuple[Pathway, Pathway]:
        """See `PathwayTower.pathways`."""
        head_dim, window = self.block_width // self.module.config.num_heads, self.module.window_size // (PATCH * MERGE)
        return (
            _pathway(grid.height, grid.width, window, head_dim, device),
            _pathway(grid.height // POOL, grid.width // POOL, window, head_dim, device),
        )


@functools.lru_cache(maxsize=16)
def _pathway(height: int, width: int, window: int, head_dim: int, device: torch.device) -> Pathway:
    """A pathway of `height` x `width` patches with windows of `window` x `window` merge blocks."""
    order, windows = window_order(height // MERGE, width // MERGE, window)
    order = (order[:, None] * MERGE**2 + torch.arange(MERGE**2)).flatten().to(device)
    raster = patch_rotation(height, width, head_dim, device)
    return Pathway(Rotation(raster.cosines[order], raster.signed_sines[order]), windows, order)


def window_order(rows: int, columns: int, window: int) -> tuple[Tensor, tuple[Windows, ...]]:
    """The order [rows * columns] of merge blocks in which windows are runs, those of equal size after each other.

    The windows at the right and lower edges hold what is left, so they have at most four sizes. Transformers goes
    through them row by row; the order among windows makes no difference to attention.

    Returns:
        The order, and the windows in it, counted in patches.
    """
    blocks = torch.arange(rows * columns).reshape(rows, columns)
    by_shape: dict[tuple[int, int], list[Tensor]] = {}
    for band in blocks.split(window):
        for one in band.split(window, dim=1):
            by_shape.setdefault(tuple(one.shape), []).append(one.flatten())
    windows = tuple(Windows(len(same), MERGE**2 * height * width) for (height, width), same in by_shape.items())
    return torch.cat([one for same in by_shape.values() for one in same]), windows
