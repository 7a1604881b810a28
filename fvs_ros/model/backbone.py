"""What the memory's world needs of a vision-language model: the one seam where another model family is added.

A family is one module with a subclass of each class here, such as `qwen2_vl.py`, and a row in `families.py` that
chooses it. Whatever else reaches into a network does so through transformers' common interface or by weights' names.

Shapes: n grid steps, P patches of a frame, D width of a patch feature, N tokens of features, S sequences of L tokens,
H width of the language model, k of its layers that DeepStack adds to, V vocabulary.
"""

from __future__ import annotations

import abc
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.positions import MemoryLayout, published_layout
from fvs_ros.memory.snapshot import MemorySnapshot, StepFeatures
from fvs_ros.memory.timestamps import StepWords
from fvs_ros.model.prompt import PUBLISHED_STYLE, PromptStyle


class VisionTower(abc.ABC):
    """The vision encoder before its merger, for frames of `memory.geometry`.

    Args:
        module: transformers' tower.
        block_width: of what its blocks compute.
        kept: of how many blocks a patch's features hold the output.

    Attributes:
        module, block_width: as given.
        width: D.
    """

    def __init__(self, module: Any, block_width: int, kept: int = 1) -> None:
        self.module = module
        self.block_width = block_width
        self.width = kept * block_width

    @property
    def patch(self) -> int:
        """Pixels along each side of a patch."""
        patch: int = self.module.config.patch_size
        return patch

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.module.device

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Its weights by name, without those of the merger."""
        return ((name, one) for name, one in self.module.named_parameters() if not name.startswith("merger."))

    @property
    @abc.abstractmethod
    def unhooked_weights(self) -> tuple[nn.Parameter, ...]:
        """Weights that `encode` reads without calling their modules, which DeepSpeed's ZeRO-3 must be told of."""

    @abc.abstractmethod
    def encode(self, frames: Tensor) -> StepFeatures:
        """Features of n grid steps on both resolutions, from normalised frames [2n, 3, H, W] on its device.

        Gradients flow where they are switched on.
        """


@dataclass(frozen=True)
class VisualTokens:
    """What the language model gets of features.

    Attributes:
        embeddings: [N, H].
        deepstack: [k, N, H], what is added to the hidden states after each of the first k layers; None for nothing.
    """

    embeddings: Tensor
    deepstack: Tensor | None = None


class Backbone(abc.ABC):
    """A vision-language model in parts. Parts are looked up at each access, as LoRA replaces modules in place.

    Attributes:
        prompt_style: in which it was trained to be asked.
    """

    prompt_style: PromptStyle = PUBLISHED_STYLE

    def __init__(self, network: PreTrainedModel) -> None:
        self._network: Any = network

    @property
    @abc.abstractmethod
    def tower(self) -> VisionTower:
        """Frames to features."""

    @property
    def merger(self) -> nn.Module:
        """Features [..., D], four of a block after each other, to tokens; its last linear layer gives their width H.

        Here as in all families so far; so is `language_model`.
        """
        return self._network.model.visual.merger

    @property
    def language_model(self) -> Any:
        """Transformers' language model without its head; the names of its parts are the same in all families."""
        return self._network.model.language_model

    def merging_weights(self) -> Iterator[nn.Parameter]:
        """Of all that `merge` computes with."""
        return self.merger.parameters()

    def merge(self, features: Tensor) -> VisualTokens:
        """Tokens of features [4 N, D], four of a block after each other."""
        return VisualTokens(self.merger(features))

    def drop_deepstack(self) -> None:
        """Has the model do without DeepStack from now on, for good.

        Raises:
            ValueError: it has none.
        """
        raise ValueError(f"{self._network.config.model_type} has no DeepStack that could be dropped")

    def memory_layout(
        self, snapshot: MemorySnapshot, first: int, config: FlashMemoryConfig, words: StepWords | None = None
    ) -> MemoryLayout:
        """Order and positions of a memory's tokens: the published ones, where a family has none of its own.

        Args:
            snapshot: the memory.
            first: position of the first memory token.
            config: of the memory.
            words: around each step, for families that tell times in words.
        """
        return published_layout(snapshot, first, config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._network.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self._network.dtype

    @property
    def text_config(self) -> Any:
        """The language model's settings, as transformers has them."""
        return self._network.config.text_config

    @property
    def embeddings(self) -> nn.Embedding:
        """Text tokens to embeddings."""
        return self.language_model.embed_tokens

    @property
    def layers(self) -> nn.ModuleList:
        """The language model's layers. `Decoder` says which ones it can compute."""
        return self.language_model.layers

    @property
    def norm(self) -> nn.Module:
        """The RMS norm after the last layer."""
        return self.language_model.norm

    @property
    def rotary(self) -> nn.Module:
        """Cosines and sines [S, L, d] of hidden states [S, L, H] at positions [3, S, L]."""
        return self.language_model.rotary_emb

    @property
    def head(self) -> nn.Linear:
        """Hidden states after the norm to logits."""
        return self._network.lm_head

    def hidden_states(
        self,
        embeddings: Tensor,
        positions: Tensor,
        *,
        mask: Any = None,
        cache: Any = None,
        deepstack: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [S, L, H] after the norm, computed by transformers.

        Args:
            embeddings: [S, L, H].
            positions: [3, S, L] int64.
            mask: what the attention implementation of `text_config` takes; None for causal attention.
            cache: transformers' cache, which is read and appended to.
            deepstack: [k, S, L, H], added to the hidden states after each of the first k layers; None for nothing.
        """
        more: dict[str, Any] = {}
        if deepstack is not None:
            everywhere = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
            more = {"visual_pos_masks": everywhere, "deepstack_visual_embeds": list(deepstack.flatten(1, 2))}
        return self.language_model(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask=mask,
            use_cache=cache is not None,
            **{cache_argument(type(self.language_model).forward): cache},
            **more,
        ).last_hidden_state

    def through_layers(
        self, layers: Sequence[nn.Module], embeddings: Tensor, positions: Tensor, mask: Any, deepstack: Tensor | None
    ) -> Tensor:
        """Hidden states [S, L, H] after the first ones of its layers, each called as transformers has it.

        Args:
            layers: those.
            embeddings: [S, L, H].
            positions: [3, S, L] int64.
            mask: what the attention implementation of `text_config` takes.
            deepstack: see `hidden_states`.
        """
        rotary = self.rotary(embeddings, positions)
        hidden = embeddings
        for index, layer in enumerate(layers):
            output = layer(hidden, attention_mask=mask, position_embeddings=rotary)
            # Some versions of transformers return the hidden states with others.
            hidden = output if isinstance(output, Tensor) else output[0]
            if deepstack is not None and index < len(deepstack):
                hidden = hidden + deepstack[index]
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] float32 of hidden states [..., H] after the norm."""
        return self.head(hidden).float()


@functools.cache
def cache_argument(forward: Callable[..., Any]) -> str:
    """The argument of a forward of transformers that takes its cache: `cache` from 5.24 on, which warns about the
    older `past_key_values`.
    """
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"
