"""An answer that is one of given texts, whichever the model finds likeliest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fvs_ros.model.generation import Generation
from fvs_ros.model.scoring import TextScoring


class ChoiceGeneration:
    """Scores the texts, then has the model read the likeliest as its answer, which shows what that rests on.

    Args:
        choices: the texts.
        scoring: of the choices as answers to one question.
        begin: starts the answer that is a choice, by its place.

    Attributes:
        text: the likeliest text, empty until it is known.
        calibrated: false, as no questions with known answers were given choices.
        truncated: false, as the text is given whole.
        problem: empty, as nothing is held to a schema.
        choice_probabilities: of each text, given that the answer is one of them; None until all are known.
    """

    def __init__(self, choices: Sequence[str], scoring: TextScoring, begin: Callable[[int], Generation]) -> None:
        self._choices = choices
        self._scoring = scoring
        self._begin = begin
        self._generation: Generation | None = None
        self.text = ""
        self.calibrated = False
        self.truncated = False
        self.problem = ""
        self.choice_probabilities: tuple[float, ...] | None = None
        self.closed = False

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""
        return self._generation is not None and self._generation.done

    @property
    def relevance(self) -> tuple[float, ...] | None:
        """See `Generation`."""
        return None if self._generation is None else self._generation.relevance

    @property
    def confidence(self) -> float:
        """The probability of the likeliest text among the given ones, once it is known."""
        return max(self.choice_probabilities or (0.0,))

    @property
    def not_seen(self) -> bool:
        """See `Generation`."""
        return self._generation is not None and self._generation.not_seen

    @property
    def scored(self) -> bool:
        """Whether the likeliest text is known; what remains is decoded like any answer."""
        return self._generation is not None

    def advance(self) -> None:
        """Scores a batch more; after the last, starts the answer."""
        if not self._scoring.step():
            return
        (scores,) = self._scoring.log_probabilities
        self.choice_probabilities = tuple(torch.tensor(scores, dtype=torch.float64).softmax(0).tolist())
        likeliest = max(range(len(scores)), key=scores.__getitem__)
        self._generation = self._begin(likeliest)
        self.text = self._choices[likeliest]

    def close(self) -> None:
        """Gives the answer up, or frees its row; allowed at any time, and more than once."""
        self.closed = True
        if self._generation is not None:
            self._generation.close()
