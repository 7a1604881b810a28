"""From waiting questions to their answers, several at a time, given from the newest memory that the model has read."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.latest_memory import LatestMemory
from fvs_ros.stream.model_protocol import StreamGeneration, StreamModel
from fvs_ros.stream.prefill import PrefillScheduler, ReadyMemory
from fvs_ros.stream.questions import Question, QuestionQueue
from fvs_ros.stream.types import Answer, AskError, ErrorCode

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Waiting:
    """A question that the worker has taken and not begun: it needs a memory of at least `version`."""

    question: Question
    version: int


@dataclass(eq=False)
class _Running:
    """A question whose answer is being given.

    Attributes:
        told: characters of the answer that were passed on.
        first_token_s: from the question's arrival to its first text, None before it.
    """

    question: Question
    memory: ReadyMemory
    answer: StreamGeneration
    told: int = 0
    first_token_s: float | None = None


class AnswerWorker:
    """Answers up to `parallel_questions` at a time, and reads the memory ahead while nobody asks.

    A question is answered from the newest memory that is read whole, whatever is published meanwhile; a fresh one from
    the newest that was published when its frames were in memory. Questions go before reading ahead: one that comes
    waits for the piece of a memory, or the token of others, that is being computed.

    Args:
        model: gives the answers.
        config: `parallel_questions` and `prefill_share`.
        questions: where the questions wait.
        board: where the newest memory hangs.
    """

    def __init__(self, model: StreamModel, config: StreamConfig, questions: QuestionQueue, board: LatestMemory) -> None:
        self._model = model
        self._places = config.parallel_questions
        self._questions = questions
        self._board = board
        self._ahead = PrefillScheduler(model, board, config.prefill_share)
        self._waiting: list[_Waiting] = []
        self._running: list[_Running] = []

    @property
    def prefills(self) -> int:
        """Memories that the model has read."""
        return self._ahead.prefills

    @property
    def last_prefill_s(self) -> float:
        """Seconds of the model's time that reading the last memory took."""
        return self._ahead.last_prefill_s

    def run(self) -> None:
        """Works until the queue is closed."""
        while (questions := self._questions.take(self._room(), self._ahead.moved_on, self._pause_s())) is not None:
            for question in questions:
                self._admit(question)
            self._end_settled()
            self._ahead.tidy()
            self._begin_waiting()
            self._step()
            self._read()
        for running in list(self._running):
            self._end(running)
        self._ahead.close()

    def _room(self) -> int:
        return self._places - len(self._waiting) - len(self._running)

    def _pause_s(self) -> float | None:
        return 0.0 if self._running or self._waiting else self._ahead.pause_s()

    def _admit(self, question: Question) -> None:
        newest = self._board.current
        # Not the version alone: the read memory can be of an episode that has just ended.
        needs_newest = question.fresh or self._ahead.on_demand
        self._waiting.append(_Waiting(question, newest.status.version if newest and needs_newest else 0))

    def _end_settled(self) -> None:
        """Forgets the questions that were cancelled or timed out."""
        self._waiting = [waiting for waiting in self._waiting if not waiting.question.pending.settled()]
        for running in [running for running in self._running if running.question.pending.settled()]:
            self._end(running)

    def _begin_waiting(self) -> None:
        """Begins the questions that the current memory serves, and refuses all if there is no memory."""
        memory = self._ahead.current
        for waiting in list(self._waiting):
            if self._board.current is None:
                self._waiting.remove(waiting)
                waiting.question.pending.settle(
                    AskError(
                        ErrorCode.NO_FRAMES,
                        "no frame is in memory yet; check that the camera publishes, or ask again in a moment",
                    )
                )
            elif memory is not None and memory.status.version >= waiting.version:
                self._waiting.remove(waiting)
                self._begin(waiting.question, memory)

    def _begin(self, question: Question, memory: ReadyMemory) -> None:
        question.begun = True
        try:
            answer = memory.reading.start(question.text, question.limits.max_new_tokens)
        except Exception as error:
            self._fail([question], error)
            return
        memory.answers += 1
        running = _Running(question, memory, answer)
        self._running.append(running)
        self._pass_on(running)

    def _step(self) -> None:
        """One token more of each answer."""
        for memory in {id(running.memory): running.memory for running in self._running}.values():
            readers = [running for running in self._running if running.memory is memory]
            try:
                memory.reading.decode_step()
            except Exception as error:
                for running in readers:
                    self._end(running)
                self._fail([running.question for running in readers], error)
                continue
            for running in readers:
                self._pass_on(running)

    def _read(self) -> None:
        wanted = max((waiting.version for waiting in self._waiting), default=None)
        try:
            self._ahead.advance(wanted, bool(self._running))
        except Exception as error:
            questions = [waiting.question for waiting in self._waiting]
            self._waiting.clear()
            if questions:
                self._fail(questions, error)

    def _pass_on(self, running: _Running) -> None:
        """Tells what is new of an answer, and ends it once it is complete. Of a settled question nothing is told."""
        question, text = running.question, running.answer.text
        piece = text[running.told :]
        if piece and not question.pending.settled():
            running.told = len(text)
            if running.first_token_s is None:
                running.first_token_s = time.perf_counter() - question.asked
            question.pieces += 1
            if question.on_token is not None:
                try:
                    question.on_token(piece)
                except Exception:
                    logger.exception("the callback on_token failed; it is told no more of this answer")
                    question.on_token = None
        if running.answer.done:
            self._end(running)
            question.pending.settle(self._answer(running))

    def _answer(self, running: _Running) -> Answer:
        total_s = time.perf_counter() - running.question.asked
        status = running.memory.status
        return Answer(
            text=running.answer.text,
            moments=running.memory.moments,
            memory_version=status.version,
            start_ns=status.start_ns,
            end_ns=status.end_ns,
            steps=status.steps,
            first_token_s=total_s if running.first_token_s is None else running.first_token_s,
            total_s=total_s,
            model_name=self._model.name,
        )

    def _end(self, running: _Running) -> None:
        running.answer.close()
        running.memory.answers -= 1
        self._running.remove(running)

    def _fail(self, questions: list[Question], error: Exception) -> None:
        logger.error("the model failed on a question", exc_info=error)
        for question in questions:
            question.pending.settle(
                AskError(
                    ErrorCode.MODEL_ERROR,
                    f"the model failed with {type(error).__name__}: {error}; the log has the details",
                )
            )
