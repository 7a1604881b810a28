"""From a waiting question to its answer, given from the newest published memory."""

from __future__ import annotations

import logging
import time

from fvs_ros.stream.model_protocol import StreamModel
from fvs_ros.stream.published import MemoryBoard, PublishedMemory
from fvs_ros.stream.questions import Question, QuestionQueue
from fvs_ros.stream.types import Answer, AskError, ErrorCode

logger = logging.getLogger(__name__)


class AnswerWorker:
    """Answers one question after the other.

    Args:
        model: gives the answers.
        questions: where the questions wait.
        board: where the newest memory is read, once per question; memories published later do not change it.
    """

    def __init__(self, model: StreamModel, questions: QuestionQueue, board: MemoryBoard) -> None:
        self._model = model
        self._questions = questions
        self._board = board

    def run(self) -> None:
        """Works until the queue is closed."""
        while (question := self._questions.take()) is not None:
            memory = self._board.current
            if memory is None:
                question.pending.settle(
                    AskError(
                        ErrorCode.NO_FRAMES,
                        "no frame is in memory yet; check that the camera publishes, or ask again in a moment",
                    )
                )
                continue
            try:
                question.pending.settle(self._answer(question, memory))
            except Exception as error:
                logger.exception("the model failed on a question")
                question.pending.settle(
                    AskError(
                        ErrorCode.MODEL_ERROR,
                        f"the model failed with {type(error).__name__}: {error}; the log has the details",
                    )
                )

    def _answer(self, question: Question, memory: PublishedMemory) -> Answer:
        """Runs the model. Of a question that is settled meanwhile, the answer is incomplete and not used."""
        first_token_s: float | None = None

        def pass_on(piece: str) -> None:
            nonlocal first_token_s
            if question.pending.settled():
                return
            if first_token_s is None:
                first_token_s = time.perf_counter() - question.asked
            question.pieces += 1
            if question.on_token is not None:
                try:
                    question.on_token(piece)
                except Exception:
                    logger.exception("the callback on_token failed; it is told no more of this answer")
                    question.on_token = None

        text = self._model.answer(
            memory.snapshot,
            question.text,
            max_new_tokens=question.limits.max_new_tokens,
            on_token=pass_on,
            should_stop=question.pending.settled,
        )
        moments = memory.moments()
        total_s = time.perf_counter() - question.asked
        return Answer(
            text=text,
            moments=moments,
            memory_version=memory.status.version,
            start_ns=memory.status.start_ns,
            end_ns=memory.status.end_ns,
            steps=memory.status.steps,
            first_token_s=total_s if first_token_s is None else first_token_s,
            total_s=total_s,
            model_name=self._model.name,
        )
