"""Qwen2-VL as a backbone; see `backbone.py` for shapes."""

from __future__ import annotations

import torch
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from fvs_ros.memory.geometry import POOL
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.model.backbone import Backbone
from fvs_ros.model.vision_pathways import Pathway, PathwayTower, Windows, patch_rotation


class Qwen2VLBackbone(Backbone):
    """A Qwen2-VL network of transformers."""

    @property
    def tower(self) -> Qwen2VLTower:
        """See `Backbone.tower`."""
        return Qwen2VLTower(self._network.model.visual)


class Qwen2VLTower(PathwayTower):
    """Each patch attends to all patches of its step."""

    def __init__(self, module: Qwen2VisionTransformerPretrainedModel) -> None:
        super().__init__(module, module.config.embed_dim)

    def pathways(self, grid: PatchGrid, device: torch.device) -> tuple[Pathway, Pathway]:
        """See `PathwayTower.pathways`."""
        head_dim = self.block_width // self.module.config.num_heads
        return (
            Pathway(patch_rotation(grid.height, grid.width, head_dim, device), (Windows(1, grid.patches),)),
            Pathway(
                patch_rotation(grid.height // POOL, grid.width // POOL, head_dim, device),
                (Windows(1, grid.low_patches),),
            ),
        )
