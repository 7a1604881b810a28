"""Least costs of a model's work in operations and bytes, from which the floors follow.

A multiply-add counts as two operations. Normalisation, rotation and softmax are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from fvs_ros.bench.measure import Machine
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.model.families import backbone_of
from fvs_ros.model.quantized_weights import weight_bytes


@dataclass(frozen=True)
class Cost:
    """Cost of one piece of work.

    Attributes:
        flop: operations.
        bytes: read at least once.
    """

    flop: float
    bytes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flop + other.flop, self.bytes + other.bytes)

    def floor_ms(self, machine: Machine) -> float:
        """Least time on a machine: of its arithmetic or its memory, whichever takes longer."""
        return 1e3 * max(self.flop / machine.flops_per_s, self.bytes / machine.read_bytes_per_s)


class ModelCosts:
    """Costs of a network."""

    def __init__(self, network: PreTrainedModel) -> None:
        self._backbone = backbone_of(network)
        self._text = network.config.text_config
        self._vision = network.config.vision_config
        self._size = network.dtype.itemsize

    def encode(self, grid: PatchGrid, steps: int = 1) -> Cost:
        """The ViT on both pathways of `steps` grid steps."""
        weights = _count(weight for _, weight in self._backbone.tower.named_weights())
        tokens = grid.patches + grid.low_patches
        pairs = grid.patches**2 + grid.low_patches**2
        attention = 4 * pairs * self._backbone.tower.block_width * self._vision.depth
        return Cost(steps * (2 * weights * tokens + attention), weights * self._size)

    def prefill(self, tokens: int) -> Cost:
        """A memory of `tokens` tokens through the merger and the language model."""
        layers, merger = self._layers(), _count(self._backbone.merging_weights())
        attention = 2 * tokens**2 * self._query_width() * self._text.num_hidden_layers
        return Cost(2 * (layers + merger) * tokens + attention, self._layer_bytes() + merger * self._size)

    def extend(self, prefix: int, tokens: int, questions: int = 1) -> Cost:
        """`tokens` more tokens of each of `questions` after a prefix of `prefix`, with the logits of the last."""
        text, head = self._text, _count(self._backbone.head.parameters())
        pairs = questions * tokens * prefix
        attention = 4 * pairs * self._query_width() * text.num_hidden_layers
        flop = 2 * questions * (self._layers() * tokens + head) + attention
        width = self._query_width() // text.num_attention_heads * text.num_key_value_heads
        cache = 2 * prefix * width * text.num_hidden_layers
        return Cost(flop, self._layer_bytes() + (head + cache) * self._size)

    def _query_width(self) -> int:
        """Values of all query heads: of Qwen2 the model's width."""
        heads = self._text.num_attention_heads
        return heads * (getattr(self._text, "head_dim", None) or self._text.hidden_size // heads)

    def _layer_bytes(self) -> int:
        """As they are stored, quantised or not."""
        return weight_bytes(self._backbone.layers)

    def _layers(self) -> int:
        return _count(self._backbone.layers.parameters())


def _count(weights: Iterable[nn.Parameter]) -> int:
    return sum(weight.numel() for weight in weights)
