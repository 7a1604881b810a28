"""One answer while it is generated: what is known of it, and nothing that computes."""

from __future__ import annotations

from dataclasses import dataclass

from fvs_ros.model.allowed_tokens import AnswerConstraint
from fvs_ros.model.text_stream import TextStream


@dataclass(eq=False)
class Generation:
    """A question and the answer that follows it, token by token.

    Attributes:
        stream: makes text of the answer's tokens.
        end_tokens: end the answer; no part of its text.
        remaining: tokens that the answer may still grow by.
        row: of the suffix cache, which holds the keys and values of the question's and the answer's tokens.
        length: of the row, in tokens that have keys and values.
        token: the newest, which has none yet.
        done: whether the answer is complete.
        closed: whether the row may be given to another generation.
        asked: tokens of the question, the first of `length`.
        relevance: of a complete answer, the probability that it rests on each slot of the memory, in the order of
            `MemorySnapshot.slot_tokens`.
        confidence: of a complete answer, from 0 to 1, see `confidence.py`.
        calibrated: whether that is the share of such answers that are right.
        not_seen: of a complete answer, whether it says that what was asked for was not seen.
        follows_up: whether earlier turns stand before the question, with which no confidence was calibrated.
        given: the tokens of an answer that is known beforehand and is only read, as many as `remaining` at first; empty
            where the model chooses them.
        constraint: what the answer is held to; None for one in the model's own words.
        truncated: of a complete answer, whether its longest length ended it.
        problem: of a complete answer, why it could not be held to its constraint to the end; empty if it was.
    """

    stream: TextStream
    end_tokens: frozenset[int]
    remaining: int
    row: int = -1
    length: int = 0
    token: int = -1
    done: bool = False
    closed: bool = False
    asked: int = 0
    relevance: tuple[float, ...] | None = None
    confidence: float = 0.0
    calibrated: bool = False
    not_seen: bool = False
    follows_up: bool = False
    given: tuple[int, ...] = ()
    constraint: AnswerConstraint | None = None
    truncated: bool = False
    problem: str = ""
    # Only a `ChoiceGeneration` has them.
    choice_probabilities: None = None

    @property
    def text(self) -> str:
        """The answer so far; it only grows."""
        return self.stream.text

    def add(self, token: int) -> None:
        """Appends the next token; of a given answer its own, whichever the model would choose."""
        token = self.given[-self.remaining] if self.given else token
        self.token = token
        ended = token in self.end_tokens
        if not ended:
            self.stream.add(token)
        self.remaining = 0 if ended else self.remaining - 1
        complete = ended
        if self.constraint is not None:
            if not ended:
                self.constraint.take(token)
            self.problem = self.constraint.problem
            complete = ended or self.constraint.complete
        if self.remaining == 0 or self.problem:
            self.truncated = not complete
            self.stream.finish()
            self.done = True

    def close(self) -> None:
        """Marks the row as free for the next question; allowed at any time, and more than once."""
        self.closed = True
