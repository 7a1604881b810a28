"""How sure the model is of an answer, and whether the answer says that it has not seen what was asked for.

*Raw* confidence is the probability that the model gives to exactly this answer: the product of those of its tokens and
of its end, as they were when each was chosen. Other words for the same would take their share, so it is low in models
that can word an answer in many ways, and high in those that err with conviction.

*Calibrated* confidence is what that is worth: the share of right answers among those with as high a raw confidence, on
questions with known answers (`confidence_calibration` in a checkpoint's `config.json`, by isotonic regression: Zadrozny
and Elkan, KDD 2002; `scripts/fit_confidence.py` finds it).

Shapes: R rows of the suffix cache, Q questions, V vocabulary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

# A first sentence such as "I have not seen it", "there is no ladder in view" or "it never appears"; English alone.
_SAYS_NOT_SEEN = re.compile(
    r"^[^.!?;]*?(\b(not|never|cannot|nowhere)|n['’]t|\bno\b[^.,;!?]{1,40})\s+(\w+\s+){0,2}"
    r"(see|seen|saw|visible|shown|appear|appears|appeared|observed|in view|in sight)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Calibration:
    """Raw confidence to the share of right answers: linear between points, never falling.

    Attributes:
        raw: from 0 to 1, each above the last; two or more.
        right: from 0 to 1, none below the last.
    """

    raw: tuple[float, ...]
    right: tuple[float, ...]

    @classmethod
    def from_json(cls, values: object) -> Calibration:
        """Reads `confidence_calibration` of a `config.json`.

        Raises:
            ValueError: anything but two lists as the attributes say.
        """
        if not isinstance(values, Mapping) or set(values) != {"raw", "right"}:
            raise ValueError("confidence_calibration must be an object with the lists raw and right, and no others")
        raw, right = (_shares(name, values[name]) for name in ("raw", "right"))
        if len(raw) < 2 or len(raw) != len(right):
            raise ValueError(
                f"confidence_calibration has {len(raw)} numbers in raw and {len(right)} in right; it must have equally "
                "many, two or more"
            )
        if any(later <= one for one, later in pairwise(raw)):
            raise ValueError("confidence_calibration.raw must rise from each number to the next")
        if any(later < one for one, later in pairwise(right)):
            raise ValueError("confidence_calibration.right must not fall from one number to the next")
        return cls(raw, right)

    def to_json(self) -> dict[str, list[float]]:
        """What `from_json` reads."""
        return {"raw": list(self.raw), "right": list(self.right)}

    def of(self, raw: float) -> float:
        """The share of right answers at a raw confidence; beyond the points, that of the nearest."""
        return float(np.interp(raw, self.raw, self.right))


def _shares(name: str, values: object) -> tuple[float, ...]:
    numbers = values if isinstance(values, list) else []
    if any(isinstance(one, bool) or not isinstance(one, int | float) or not 0 <= one <= 1 for one in numbers):
        raise ValueError(f"confidence_calibration.{name} holds something other than numbers from 0 to 1")
    return tuple(map(float, numbers))


@dataclass(frozen=True)
class AnswerRules:
    """What a checkpoint says of its answers.

    Attributes:
        calibration: of confidence; None leaves it raw.
        not_seen: answers, in full, that say that what was asked for was not seen; None where the model's words are not
            known, which takes the first sentence for it (see `says_not_seen`).
    """

    calibration: Calibration | None = None
    not_seen: tuple[str, ...] | None = None

    def confidence(self, log_probability: float, calibrated: bool = True) -> float:
        """The confidence, from 0 to 1, in an answer of that log-probability; raw where it is not to be calibrated."""
        # Sums of rounded logarithms can end above 0.
        raw = min(1.0, math.exp(log_probability))
        return raw if self.calibration is None or not calibrated else self.calibration.of(raw)

    def says_not_seen(self, text: str) -> bool:
        """Whether an answer says that what was asked for was not seen.

        Where the model's own answers for that are known, it is one of them. Else its first sentence must say so in
        English, such as "I have not seen a ladder": a rule of thumb.
        """
        if self.not_seen is not None:
            return text.strip() in self.not_seen
        return _SAYS_NOT_SEEN.search(text.strip()) is not None


PLAIN_ANSWERS = AnswerRules()
"""Of a checkpoint that says nothing of its answers."""


def not_seen_from_json(values: object) -> tuple[str, ...]:
    """Reads `not_seen_answers` of a `config.json`.

    Raises:
        ValueError: anything but a list of texts.
    """
    if not isinstance(values, list) or any(not isinstance(one, str) or not one.strip() for one in values):
        raise ValueError('not_seen_answers must be a list of texts, such as ["not seen"]')
    return tuple(values)


@dataclass(frozen=True)
class RowLikelihood:
    """Log-probabilities of the answers in the rows of a suffix cache, added up beside decoding.

    Attributes:
        log_probability: [R] float32, of an answer's tokens so far.
    """

    log_probability: Tensor

    @classmethod
    def zeros(cls, rows: int, device: torch.device) -> RowLikelihood:
        """Storage for `rows` answers."""
        return cls(torch.zeros(rows, device=device))

    def grown(self, rows: int) -> RowLikelihood:
        """A copy with more rows."""
        return RowLikelihood(torch.nn.functional.pad(self.log_probability, (0, rows - len(self.log_probability))))

    def choose(self, rows: Tensor, logits: Tensor, taking: Tensor, *, answering: bool) -> Tensor:
        """Greedy next tokens [Q] int64 of answers, whose probabilities are taken in.

        Args:
            rows: [Q] int64, no two alike.
            logits: [Q, V] float32.
            taking: [Q] bool, the rows that have a question; nothing changes in others.
            answering: whether an answer's token came before; the first token after a question begins anew.
        """
        tokens = logits.argmax(-1)
        chosen = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        before = self.log_probability[rows]
        after = before + chosen if answering else chosen
        self.log_probability.index_copy_(0, rows, torch.where(taking, after, before))
        return tokens
