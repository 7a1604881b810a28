"""Questions on their way to an answer: what is refused, where they wait, and who is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field, replace

from fvs_ros.stream.config import LONGEST_TIMEOUT_S, StreamConfig
from fvs_ros.stream.types import Answer, AskError, AskOptions, ErrorCode


class PendingAnswer:
    """An answer to come. It is settled once, by the first of: the answer, an error, its timeout, a cancel.

    Args:
        on_settle: called with the outcome just before anybody else learns of it.
    """

    def __init__(self, on_settle: Callable[[PendingAnswer, Answer | AskError], None]) -> None:
        self._on_settle = on_settle
        self._future: Future[Answer | AskError] = Future()
        self._claim = threading.Lock()

    def settle(self, outcome: Answer | AskError) -> bool:
        """Sets the outcome, if there is none yet; False otherwise. For the engine."""
        if not self._claim.acquire(blocking=False):
            return False
        self._on_settle(self, outcome)
        self._future.set_result(outcome)
        return True

    def settled(self) -> bool:
        """Whether the outcome is decided; the model stops at the next token."""
        return self._claim.locked()

    def done(self) -> bool:
        """Whether `result` returns at once."""
        return self._future.done()

    def cancel(self) -> bool:
        """Ends the question as cancelled, at once, unless it has ended already. At most one more token follows."""
        return self.settle(AskError(ErrorCode.CANCELLED, "the question was cancelled by the one who asked"))

    def result(self, timeout: float | None = None) -> Answer:
        """Waits for the answer.

        Args:
            timeout: seconds to wait here; the question goes on after them. None waits for its end, which the
                question's own timeout bounds.

        Raises:
            AskError: the question got no answer.
            TimeoutError: `timeout` is over.
        """
        try:
            outcome = self._future.result(timeout)
        except FutureTimeoutError as error:  # the builtin TimeoutError from Python 3.11 on
            raise TimeoutError(f"no answer within the {timeout} s waited; the question goes on") from error
        if isinstance(outcome, AskError):
            raise outcome
        return outcome

    def add_done_callback(self, callback: Callable[[PendingAnswer], None]) -> None:
        """Calls `callback` once the outcome is there, on the thread that settles it, or now on this one."""
        self._future.add_done_callback(lambda _: callback(self))


@dataclass(frozen=True)
class Limits:
    """What a question may cost, its options and the engine's defaults joined."""

    max_new_tokens: int
    timeout_s: float


def check_question(
    question: str, options: AskOptions, config: StreamConfig, control_tokens_in: Callable[[str], list[str]]
) -> Limits:
    """Checks what a user asks.

    Raises:
        AskError: INVALID_QUESTION, with what is wrong and what to do.
    """

    def invalid(message: str) -> AskError:
        return AskError(ErrorCode.INVALID_QUESTION, message)

    if not question.strip():
        raise invalid("the question is empty; write what you want to know")
    if len(question) > config.question_characters:
        raise invalid(
            f"the question has {len(question)} characters; shorten it to {config.question_characters}, or raise the "
            "parameter question_characters"
        )
    if control_tokens := control_tokens_in(question):
        raise invalid(
            f"the question holds {', '.join(control_tokens)}, which would control the model; write it without"
        )
    max_new_tokens = config.max_new_tokens if options.max_new_tokens is None else options.max_new_tokens
    if not 1 <= max_new_tokens <= config.max_new_tokens_limit:
        raise invalid(
            f"max_new_tokens is {max_new_tokens}; ask for 1 to {config.max_new_tokens_limit}, or raise the parameter "
            "max_new_tokens_limit"
        )
    timeout_s = config.timeout_s if options.timeout_s is None else options.timeout_s
    if not 0 < timeout_s <= LONGEST_TIMEOUT_S:
        raise invalid(f"timeout_s is {timeout_s}; ask for more than 0 and at most {LONGEST_TIMEOUT_S:g} seconds")
    return Limits(max_new_tokens, timeout_s)


@dataclass(eq=False)
class Question:
    """A question that passed the checks.

    Attributes:
        asked: `time.perf_counter()` when it arrived.
        fresh: to be answered from the newest memory there is once its frames are settled.
        after_frame: number of the frame that must be settled first, 0 for none.
        begun: whether the model has it.
        pieces: pieces of text that came so far.
        deadline: settles it with TIMEOUT.
    """

    text: str
    limits: Limits
    on_token: Callable[[str], None] | None
    pending: PendingAnswer
    asked: float
    fresh: bool = False
    after_frame: int = 0
    begun: bool = False
    pieces: int = 0
    deadline: threading.Timer = field(init=False)

    def __post_init__(self) -> None:
        remaining = self.asked + self.limits.timeout_s - time.perf_counter()
        self.deadline = threading.Timer(max(0.0, remaining), self._expire)
        self.deadline.daemon = True

    def _expire(self) -> None:
        if self.begun:
            state = f"the model had begun and given {self.pieces} pieces of text; ask for fewer max_new_tokens"
        elif self.fresh:
            state = "it waited for its turn or, being fresh, for the memory of what came before; ask without fresh"
        else:
            state = "it waited for its turn; ask less often"
        self.pending.settle(
            AskError(ErrorCode.TIMEOUT, f"no answer within {self.limits.timeout_s:g} s: {state}, or raise timeout_s")
        )


@dataclass
class QuestionCounters:
    """The question counters of `StreamStatistics`, by the same names."""

    questions: int = 0
    answers: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    last_first_token_s: float = 0.0
    last_answer_s: float = 0.0


class QuestionQueue:
    """Questions waiting for the answer worker, bounded; and the count of all that were asked.

    A question that must wait for frames does not hold up those behind it. One that is settled while it waits
    (cancelled, timed out) leaves at once.

    Args:
        config: `question_queue`.
        changed: the engine's one lock; also notified when frames settle.
        frame_settled: whether the frames up to a number are settled; called with the lock held.
    """

    def __init__(
        self, config: StreamConfig, changed: threading.Condition, frame_settled: Callable[[int], bool]
    ) -> None:
        self._capacity = config.question_queue
        self._changed = changed
        self._frame_settled = frame_settled
        self._waiting: list[Question] = []
        # Waiting or with the model, not settled yet.
        self._open: dict[PendingAnswer, Question] = {}
        self._active = False
        self._counters = QuestionCounters()

    @property
    def counters(self) -> QuestionCounters:
        """A copy of the counters."""
        with self._changed:
            return replace(self._counters, failed=dict(self._counters.failed))

    def activate(self) -> None:
        """Lets questions in."""
        with self._changed:
            self._active = True

    def new_pending(self) -> PendingAnswer:
        """Counts a question, and returns what it will be told by."""
        with self._changed:
            self._counters.questions += 1
        return PendingAnswer(self._settle)

    def _settle(self, pending: PendingAnswer, outcome: Answer | AskError) -> None:
        with self._changed:
            question = self._open.pop(pending, None)
            if question is not None:
                question.deadline.cancel()
                if question in self._waiting:
                    self._waiting.remove(question)
            if isinstance(outcome, AskError):
                name = outcome.code.name
                self._counters.failed[name] = self._counters.failed.get(name, 0) + 1
            else:
                self._counters.answers += 1
                self._counters.last_first_token_s = outcome.first_token_s
                self._counters.last_answer_s = outcome.total_s

    def require_active(self) -> None:
        """Raises AskError (NOT_ACTIVE) before `activate` and after `close`."""
        if not self._active:
            raise AskError(ErrorCode.NOT_ACTIVE, "the engine is not running; activate the node, or start the engine")

    def put(self, question: Question) -> None:
        """Lets a question wait for the worker, its time running.

        Raises:
            AskError: BUSY or NOT_ACTIVE.
        """
        with self._changed:
            self.require_active()
            if len(self._waiting) >= self._capacity:
                raise AskError(
                    ErrorCode.BUSY,
                    f"{len(self._waiting)} questions wait already; ask again later, or raise the parameter "
                    "question_queue",
                )
            self._waiting.append(question)
            self._open[question.pending] = question
            self._changed.notify_all()
        # If the question is settled already, the timer was cancelled and ends at once.
        question.deadline.start()

    def take(
        self, limit: int, otherwise: Callable[[], bool] = lambda: False, timeout_s: float | None = None
    ) -> list[Question] | None:
        """Takes the oldest questions whose frames are settled, up to `limit`; waits for one if there is none.

        Args:
            limit: how many at most.
            otherwise: ends the wait too, with no question; called with the lock held.
            timeout_s: longest wait; None waits on.

        Returns:
            None once closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._active or (limit > 0 and self._ready()) or otherwise(), timeout_s)
            if not self._active:
                return None
            taken = self._ready()[: max(0, limit)]
            for question in taken:
                self._waiting.remove(question)
            return taken

    def _ready(self) -> list[Question]:
        return [question for question in self._waiting if self._frame_settled(question.after_frame)]

    def close(self) -> None:
        """Cancels all questions and ends `take`."""
        with self._changed:
            self._active = False
            unsettled = list(self._open)
            self._changed.notify_all()
        for pending in unsettled:
            pending.settle(AskError(ErrorCode.CANCELLED, "the engine was closed before the answer was complete"))
