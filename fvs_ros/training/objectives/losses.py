"""The result of a batch: the loss to descend, and how much was right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class EpisodeLoss:
    """The loss of a batch, and which of its answers were right. C answers.

    Attributes:
        loss: mean over what is learnt.
        right: [C] bool, whether every token of an answer was the likeliest, given the previous ones.
        families: the group in which each answer's accuracy is reported, empty for none.
        tokens: number that the network read, without padding.
        shares: of other labels that were right, scalars by name.
    """

    loss: Tensor
    right: Tensor
    families: tuple[str, ...]
    tokens: int
    shares: Mapping[str, Tensor] = field(default_factory=dict)
