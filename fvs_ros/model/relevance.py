"""What an answer rests on: the model's own attention to each slot of the memory, made a probability over slots.

Attention says which tokens an answer is made of. It is taken where that is decided: from the question's last token,
which gives the answer's first, and from the answer's own tokens. Two rules make one probability of the heads:

- *Trained weights*, where a checkpoint has them (`relevance_weights` in its `config.json`): log-linear, a softmax over
  slots of the weighted sum of the logarithms of each head's attention. `evaluation/timed/relevance_fit.py` finds them.
- *Without training*, for all other checkpoints: the mean over all heads of the upper half of the layers. In-context
  re-ranking (Chen, Gutierrez and Su, arXiv:2410.02642) adds up attention over all layers and heads and needs no
  training. Which heads retrieve differs from model to model (Wu et al., arXiv:2404.15574; Zhang et al.,
  arXiv:2506.09944); lower layers, whose attention follows position more than content, are left out.

Shapes: R rows of the suffix cache, Q questions, A layers that are observed, q query heads, N tokens of a prefix,
C slots that a memory can have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fvs_ros.memory.config import FlashMemoryConfig

# Of a head's attention to all slots: what it pays to a slot at the least, so that a single head cannot rule a slot out.
LEAST_SHARE = 1e-5


@dataclass(frozen=True)
class RelevanceWeights:
    """How much the logarithm of each head's attention counts; see the module.

    Attributes:
        question: of attention from the question's last token, a row a layer, a number a query head.
        answer: of the mean attention from the answer's tokens, likewise.
    """

    question: tuple[tuple[float, ...], ...]
    answer: tuple[tuple[float, ...], ...]

    @classmethod
    def from_json(cls, values: object, layers: int, heads: int) -> RelevanceWeights:
        """Reads `relevance_weights` of a `config.json` for a model of that many layers and query heads.

        Raises:
            ValueError: anything but two tables of finite numbers of that size.
        """
        if not isinstance(values, Mapping) or set(values) != {"question", "answer"}:
            raise ValueError("relevance_weights must be an object with the tables question and answer, and no others")
        return cls(*(_table(name, values[name], layers, heads) for name in ("question", "answer")))

    def to_json(self) -> dict[str, list[list[float]]]:
        """What `from_json` reads."""
        return {"question": list(map(list, self.question)), "answer": list(map(list, self.answer))}

    @property
    def layers(self) -> tuple[int, ...]:
        """Those in which any head counts."""
        pairs = zip(self.question, self.answer, strict=True)
        return tuple(layer for layer, pair in enumerate(pairs) if any(map(any, pair)))


def _table(name: str, values: object, layers: int, heads: int) -> tuple[tuple[float, ...], ...]:
    rows = values if isinstance(values, list) else []
    if len(rows) != layers or any(not isinstance(row, list) or len(row) != heads for row in rows):
        raise ValueError(
            f"relevance_weights.{name} must have {layers} rows of {heads} numbers, one a layer and query head"
        )
    numbers = [number for row in rows for number in row]
    if any(isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one) for one in numbers):
        raise ValueError(f"relevance_weights.{name} holds something other than finite numbers")
    return tuple(tuple(map(float, row)) for row in rows)


class RelevanceRule:
    """Makes a probability over slots of attention, by the weights of a checkpoint or, without any, by the mean.

    Args:
        weights: of the heads; None takes the mean over the upper half of the layers.
        layers: of the model.

    Attributes:
        layers: indices of those that are observed, in order.
    """

    def __init__(self, weights: RelevanceWeights | None, layers: int, device: torch.device) -> None:
        self.layers = tuple(range(layers // 2, layers)) if weights is None else weights.layers
        self._weights: Tensor | None = None
        if weights is not None:
            tables = (weights.question, weights.answer)
            self._weights = torch.tensor([[table[layer] for layer in self.layers] for table in tables], device=device)

    def of(self, question: Tensor, answer: Tensor | None, slots: int) -> Tensor:
        """The probability [slots] float32 of each slot.

        Args:
            question: [A, q, C] float32, attention from the question's last token.
            answer: [A, q, C] float32, mean attention from the answer's tokens; None where only its first is computed.
            slots: of the memory; the first of C.
        """
        attention = torch.stack([question, question if answer is None else answer])[..., :slots]
        # In half precision a head may pay all of its attention to the text.
        least = torch.finfo(torch.float32).tiny
        if self._weights is None:
            mean = attention.mean((0, 1, 2))
            return mean / mean.sum().clamp_min(least)
        shares = attention / attention.sum(-1, keepdim=True).clamp_min(least)
        return ((shares + LEAST_SHARE).log() * self._weights[..., None]).sum((0, 1, 2)).softmax(-1)


class ObservedAttention:
    """Collects, in one run of the decoder, the attention of each question's last token to the prefix.

    Args:
        layers: which are observed.
        slot_of_token: [N or more, C] in the model's dtype, 1 where a token belongs to a slot.
    """

    def __init__(self, layers: Sequence[int], slot_of_token: Tensor) -> None:
        self._layers = frozenset(layers)
        self._slot_of_token = slot_of_token
        self._weights: list[Tensor] = []

    def add(self, layer: int, weights: Tensor) -> None:
        """Takes in a layer's softmax weights [Q, h, L, g, at least N] of L tokens and h times g query heads."""
        if layer in self._layers:
            last = weights[:, :, -1, :, : self._slot_of_token.shape[0]].flatten(1, 2)
            # A part of a long question's weights would keep all of them alive.
            self._weights.append(last.clone() if weights.shape[2] > 1 else last)

    def per_slot(self) -> Tensor:
        """[Q, A, q, C] float32."""
        return (torch.stack(self._weights, dim=1) @ self._slot_of_token).float()


@dataclass(frozen=True)
class RowAttention:
    """Attention to slots of the questions in the rows of a suffix cache.

    Attributes:
        layers: A indices.
        question: [R, A, q, C] float32, from the question's last token.
        answer: [R, A, q, C] float32, the sum over the answer's tokens.
    """

    layers: tuple[int, ...]
    question: Tensor
    answer: Tensor

    @classmethod
    def zeros(cls, rows: int, layers: tuple[int, ...], heads: int, slots: int, device: torch.device) -> RowAttention:
        """Storage for `rows` questions."""
        question, answer = torch.zeros(2, rows, len(layers), heads, slots, device=device)
        return cls(layers, question, answer)

    def grown(self, rows: int) -> RowAttention:
        """A copy with more rows."""
        heads, slots = self.question.shape[2:]
        more = RowAttention.zeros(rows, self.layers, heads, slots, self.question.device)
        more.question[: len(self.question)] = self.question
        more.answer[: len(self.answer)] = self.answer
        return more

    def keep(self, rows: Tensor, attention: Tensor, taking: Tensor, *, answering: bool) -> None:
        """Takes in what the newest tokens of questions, or of their answers, attend to.

        Args:
            rows: [Q] int64, no two alike.
            attention: [Q, A, q, C] float32.
            taking: [Q] bool, the rows that have a question; nothing changes in others.
            answering: whether the tokens are of answers, which are added up; a question's newest replace all before.
        """
        taking = taking[:, None, None, None]
        if answering:
            self.answer.index_add_(0, rows, torch.where(taking, attention, 0.0))
            return
        self.question.index_copy_(0, rows, torch.where(taking, attention, self.question[rows]))
        self.answer.index_copy_(0, rows, torch.where(taking, 0.0, self.answer[rows]))


def slot_capacity(config: FlashMemoryConfig) -> int:
    """C, the slots that a memory can have."""
    return config.dam_slots + config.csm_slots + config.window_slots


def slots_of_tokens(owners: Tensor, tokens: int, slots: int) -> Tensor:
    """Whether each token of a prefix belongs to each slot, bool [tokens, slots] on the host.

    Args:
        owners: [N] int64 on the host, the slot of each token, -1 for none, see `MemorySegment.slots`.
        tokens: rows, at least N; those behind belong to no slot.
        slots: columns, at least as many as there are slots.
    """
    padded = functional.pad(owners, (0, tokens - owners.shape[0]), value=-1)
    return padded[:, None] == torch.arange(slots)
