"""What the memory's world needs of a vision-language model: the one seam where another model family is added.

A family is one module with a class for each protocol here, such as `qwen2_vl.py`, and a line in `checkpoint.py` that
chooses it. Whatever else reaches into a network does so through transformers' common interface or by weights' names.

Shapes: n grid steps, P patches of a frame, D width of a patch feature, S sequences of L tokens, H width of the language
model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fvs_ros.memory.snapshot import StepFeatures


@dataclass(frozen=True)
class PatchGeometry:
    """How frames become patches, and patches tokens.

    Attributes:
        patch: pixels along each side of a patch.
        merge: patches along each side of the block that becomes one token.
        frames: consecutive frames of a grid step.
        width: D.
    """

    patch: int
    merge: int
    frames: int
    width: int


class VisionTower(Protocol):
    """The vision encoder before its merger."""

    @property
    def geometry(self) -> PatchGeometry:
        """Of the frames that it encodes."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    @property
    def unhooked_weights(self) -> tuple[nn.Parameter, ...]:
        """Weights that `encode` reads without calling their modules, which DeepSpeed's ZeRO-3 must be told of."""

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Its weights by name, without those of the merger."""

    def encode(self, frames: Tensor) -> StepFeatures:
        """Features of n grid steps on both resolutions, from normalised frames [2n, 3, H, W] on its device.

        Gradients flow where they are switched on.
        """


class Backbone(Protocol):
    """A vision-language model in parts. Parts are looked up at each access, as LoRA replaces modules in place."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""

    @property
    def text_config(self) -> Any:
        """The language model's settings, as transformers has them."""

    @property
    def tower(self) -> VisionTower:
        """Frames to features."""

    @property
    def merger(self) -> nn.Module:
        """Features [..., D], four of a block after each other, to tokens; its last linear layer gives their width H."""

    @property
    def embeddings(self) -> nn.Embedding:
        """Text tokens to embeddings."""

    @property
    def layers(self) -> nn.ModuleList:
        """The language model's layers. `Decoder` says which ones it can compute."""

    @property
    def norm(self) -> nn.Module:
        """The RMS norm after the last layer."""

    @property
    def rotary(self) -> nn.Module:
        """Cosines and sines [S, L, d] of hidden states [S, L, H] at positions [3, S, L]."""

    @property
    def head(self) -> nn.Linear:
        """Hidden states after the norm to logits."""

    def merge(self, features: Tensor) -> Tensor:
        """Tokens [N, H] of patch features [4 N, D] in merge-block order."""

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings [..., H] of text tokens [...] int64."""

    def hidden_states(self, embeddings: Tensor, positions: Tensor, *, mask: Any = None, cache: Any = None) -> Tensor:
        """Hidden states [S, L, H] after the norm, computed by transformers.

        Args:
            embeddings: [S, L, H].
            positions: [3, S, L] int64.
            mask: what the attention implementation of `text_config` takes; None for causal attention.
            cache: transformers' cache, which is read and appended to.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] float32 of hidden states [..., H] after the norm."""
