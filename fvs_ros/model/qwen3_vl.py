"""Qwen3-VL as a backbone; see `backbone.py` for shapes.

It differs from Qwen2-VL in its vision tower (patches of 16 pixels, learned position embeddings beside rotary ones), in
DeepStack (Meng et al., arXiv:2406.04334), which adds features of earlier blocks of the tower to the hidden states after
the language model's first layers, in norms of queries and keys, and in how it is told when a frame was: by words.

*DeepStack features are part of a patch's features*: behind the W values of the tower's last block stand those of each
block that DeepStack takes, so D = (1 + k) W for k of them. The memory needs to know nothing of them: what averages,
chooses or stores features does the same with all of their parts, which is what the mergers after it need. The distances
between features that it goes by count all parts, as the language model reads them all.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.geometry import POOL
from fvs_ros.memory.positions import MemoryLayout
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid
from fvs_ros.memory.timestamps import StepWords, timestamped_layout
from fvs_ros.model.backbone import Backbone, VisualTokens
from fvs_ros.model.prompt import TIMESTAMPED_STYLE
from fvs_ros.model.vision_pathways import Interpolation, Pathway, PathwayTower, Windows, patch_places, patch_rotation


class Qwen3VLBackbone(Backbone):
    """A Qwen3-VL network of transformers."""

    prompt_style = TIMESTAMPED_STYLE

    @property
    def tower(self) -> Qwen3VLTower:
        """See `Backbone.tower`."""
        return Qwen3VLTower(self._network.model.visual)

    def merging_weights(self) -> Iterator[nn.Parameter]:
        """See `Backbone.merging_weights`."""
        return itertools.chain(super().merging_weights(), self._network.model.visual.deepstack_merger_list.parameters())

    def merge(self, features: Tensor) -> VisualTokens:
        """See `Backbone.merge`; features of each block have a merger of their own."""
        visual, blocks = self._network.model.visual, self.tower.kept_blocks
        last, *earlier = (part.contiguous() for part in features.chunk(1 + len(blocks), dim=-1))
        mergers = [visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(block)] for block in blocks]
        added = [merger(part) for merger, part in zip(mergers, earlier, strict=True)]
        return VisualTokens(self.merger(last), torch.stack(added) if added else None)

    def drop_deepstack(self) -> None:
        """See `Backbone.drop_deepstack`; features get narrower by it, so memories and stores are made anew."""
        visual = self._network.model.visual
        visual.deepstack_merger_list = nn.ModuleList()
        for one in (visual, visual.config, self._network.config.vision_config):
            one.deepstack_visual_indexes = []

    def memory_layout(
        self, snapshot: MemorySnapshot, first: int, config: FlashMemoryConfig, words: StepWords | None = None
    ) -> MemoryLayout:
        """The memory as steps with their times in words, see `timestamped_layout`; `config` makes no difference.

        Raises:
            ValueError: there are no words.
        """
        if words is None:
            raise ValueError("Qwen3-VL tells times in words; give those of a PromptBuilder with its prompt_style")
        return timestamped_layout(snapshot, first, words)

    def hidden_states(
        self,
        embeddings: Tensor,
        positions: Tensor,
        *,
        mask: Any = None,
        cache: Any = None,
        deepstack: Tensor | None = None,
    ) -> Tensor:
        """See `Backbone.hidden_states`."""
        if mask is None:
            return super().hidden_states(embeddings, positions, cache=cache, deepstack=deepstack)
        # Transformers' model takes no mask but tensors here.
        shared = mask["full_attention"]
        hidden: Tensor = self.norm(self.through_layers(list(self.layers), embeddings, positions, shared, deepstack))
        return hidden


class Qwen3VLTower(PathwayTower):
    """Each patch attends to all patches of its step; features of the blocks that DeepStack takes are kept beside."""

    def __init__(self, module: Qwen3VLVisionModel) -> None:
        super().__init__(module, module.config.hidden_size, kept=1 + len(module.deepstack_visual_indexes))

    @property
    def kept_blocks(self) -> tuple[int, ...]:
        """See `PathwayTower.kept_blocks`."""
        return tuple(sorted(self.module.deepstack_visual_indexes))

    @property
    def unhooked_weights(self) -> tuple[nn.Parameter, ...]:
        """See `VisionTower.unhooked_weights`."""
        projection = self.module.patch_embed.proj
        return (projection.weight, projection.bias)

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """See `VisionTower.named_weights`; the mergers of DeepStack are left out too."""
        return (named for named in super().named_weights() if not named[0].startswith("deepstack_merger_list."))

    def embed(self, patches: Tensor, steps: int, pathways: Sequence[Pathway]) -> Tensor:
        """See `PathwayTower.embed`: with learned position embeddings, interpolated to each pathway's grid."""
        places = [one.places for one in pathways]
        embeddings = [
            (self.module.pos_embed(one.rows) * one.weights[..., None]).sum(1).repeat(steps, 1)
            for one in places
            if one is not None
        ]
        hidden = super().embed(patches, steps, pathways)
        return hidden + torch.cat(embeddings).to(hidden.dtype)

    def pathways(self, grid: PatchGrid, device: torch.device) -> tuple[Pathway, Pathway]:
        """See `PathwayTower.pathways`."""
        head_dim, side = self.block_width // self.module.config.num_heads, self.module.num_grid_per_side
        return (
            _pathway(grid.height, grid.width, side, head_dim, device),
            _pathway(grid.height // POOL, grid.width // POOL, side, head_dim, device),
        )


@functools.lru_cache(maxsize=16)
def _pathway(height: int, width: int, side: int, head_dim: int, device: torch.device) -> Pathway:
    """A pathway of `height` x `width` patches, whose places are in a table of `side` x `side` positions."""
    return Pathway(
        patch_rotation(height, width, head_dim, device),
        (Windows(1, height * width),),
        places=interpolation(height, width, side, device),
    )


def interpolation(height: int, width: int, side: int, device: torch.device) -> Interpolation:
    """Bilinear, a table of `side` x `side` positions stretched over a grid, whose patches are in merge-block order."""
    rows, columns = patch_places(height, width, device)
    (row, row_weights), (column, column_weights) = (
        _neighbours(places, count, side) for places, count in ((rows, height), (columns, width))
    )
    return Interpolation(
        rows=(row[:, :, None] * side + column[:, None]).flatten(1),
        weights=(row_weights[:, :, None] * column_weights[:, None]).flatten(1),
    )


def _neighbours(places: Tensor, count: int, side: int) -> tuple[Tensor, Tensor]:
    """Of places [P] on an axis of `count`: the two nearest of `side` positions, [P, 2], and their weights."""
    stretched = places.float() * (side - 1) / (count - 1)
    below = stretched.floor()
    above = stretched - below
    first = below.long()
    return torch.stack([first, (first + 1).clamp(max=side - 1)], 1), torch.stack([1 - above, above], 1)
