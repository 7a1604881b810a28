"""A question whose answer is being decoded, and the answer that it becomes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fvs_ros.stream.evidence import most_relevant
from fvs_ros.stream.model_protocol import StreamGeneration
from fvs_ros.stream.prefill import ReadyMemory
from fvs_ros.stream.questions import AcceptedQuestion
from fvs_ros.stream.types import Answer


@dataclass(eq=False)
class RunningAnswer:
    """A question whose answer is being decoded.

    Attributes:
        emitted: characters of the answer emitted so far.
        first_token_s: from the question's arrival to its first text, None before it.
    """

    question: AcceptedQuestion
    memory: ReadyMemory
    answer: StreamGeneration
    emitted: int = 0
    first_token_s: float | None = None

    def complete(self, model_name: str, moments_limit: int) -> Answer:
        """The answer, once it is decoded to its end."""
        total_s = time.perf_counter() - self.question.asked
        status = self.memory.status
        moments = self.memory.shown.weighed(self.answer.relevance)
        return Answer(
            text=self.answer.text,
            moments=most_relevant(moments, moments_limit),
            all_moments=moments,
            memory_version=status.version,
            start_ns=status.start_ns,
            end_ns=status.end_ns,
            steps=status.steps,
            first_token_s=total_s if self.first_token_s is None else self.first_token_s,
            total_s=total_s,
            model_name=model_name,
            recalled=self.memory.recalled,
            confidence=self.answer.confidence,
            calibrated=self.answer.calibrated,
            not_seen=self.answer.not_seen,
            choice_probabilities=tuple(self.answer.choice_probabilities or ()),
            truncated=self.answer.truncated,
        )
