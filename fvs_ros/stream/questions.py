"""Questions on their way to an answer: their checks, the queue they wait in, and the answer to come."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace

from fvs_ros.sources.frame import Area
from fvs_ros.stream.choices import NO_TEXT, check_choices
from fvs_ros.stream.config import LONGEST_TIMEOUT_S, StreamConfig
from fvs_ros.stream.latest_memory import PublishedMemory
from fvs_ros.stream.model_protocol import StreamConstraint, StreamGeneration, StreamPrefilledMemory
from fvs_ros.stream.types import Answer, AskError, AskOptions, ErrorCode, QuestionCounters


class PendingAnswer:
    """An answer to come. It is settled once, by whichever comes first: the answer, an error, the timeout, a cancel.

    Args:
        on_settle: called with the outcome just before it becomes visible.
    """

    def __init__(self, on_settle: Callable[[PendingAnswer, Answer | AskError], None]) -> None:
        self._on_settle = on_settle
        self._future: Future[Answer | AskError] = Future()
        self._claim = threading.Lock()

    def settle(self, outcome: Answer | AskError) -> bool:
        """Sets the outcome unless there is one already, in which case it returns False. For the engine."""
        if not self._claim.acquire(blocking=False):
            return False
        self._on_settle(self, outcome)
        self._future.set_result(outcome)
        return True

    def settled(self) -> bool:
        """Whether the outcome is decided; the model then stops at the next token."""
        return self._claim.locked()

    def done(self) -> bool:
        """Whether `result` returns at once."""
        return self._future.done()

    def cancel(self) -> bool:
        """Ends the question as cancelled, at once; False if it has ended already. At most one more token follows."""
        return self.settle(AskError(ErrorCode.CANCELLED, "the question was cancelled by the client"))

    def result(self, timeout: float | None = None) -> Answer:
        """Waits for the answer.

        Args:
            timeout: most seconds to wait; the question itself goes on afterwards. None waits until the question ends,
                which its own timeout bounds.

        Raises:
            AskError: the question got no answer.
            TimeoutError: there was no answer within `timeout`.
        """
        try:
            outcome = self._future.result(timeout)
        except FutureTimeoutError as error:  # the builtin TimeoutError from Python 3.11 on
            raise TimeoutError(f"no answer within the {timeout} s waited; the question goes on") from error
        if isinstance(outcome, AskError):
            raise outcome
        return outcome

    def add_done_callback(self, callback: Callable[[PendingAnswer], None]) -> None:
        """Calls `callback` on the thread that settles the outcome, or at once on this one if it is settled already."""
        self._future.add_done_callback(lambda _: callback(self))


@dataclass(frozen=True)
class Limits:
    """What a question may cost: its options, completed by the engine's defaults."""

    max_new_tokens: int
    timeout_s: float


def check_text(name: str, text: str, config: StreamConfig, control_tokens_in: Callable[[str], list[str]]) -> None:
    """Checks a text that the model is to be asked; `name` says what it is.

    Raises:
        AskError: INVALID_QUESTION; the message says what is wrong and what to do.
    """
    problem = ""
    # First, since what follows reads all of it.
    if len(text) > config.question_characters:
        problem = (
            f"has {len(text)} characters; shorten it to {config.question_characters}, or raise the parameter "
            "question_characters"
        )
    elif broken := NO_TEXT.search(text):
        problem = (
            f"is no UTF-8 text: its character {broken.start() + 1} is {broken[0]!a}, which stands for other bytes or "
            "for half a character; send it in UTF-8"
        )
    elif not text.strip():
        problem = "is empty; write what you want to know"
    elif control_tokens := control_tokens_in(text):
        problem = f"holds {', '.join(control_tokens)}, which would control the model; write it without"
    if problem:
        raise AskError(ErrorCode.INVALID_QUESTION, f"the {name} {problem}")


def check_question(
    question: str, options: AskOptions, config: StreamConfig, control_tokens_in: Callable[[str], list[str]]
) -> Limits:
    """Checks a question and its options.

    Raises:
        AskError: INVALID_QUESTION; the message says what is wrong and what to do.
    """

    def invalid(message: str) -> AskError:
        return AskError(ErrorCode.INVALID_QUESTION, message)

    check_text("question", question, config, control_tokens_in)
    check_choices(options.choices)
    max_new_tokens = config.max_new_tokens if options.max_new_tokens is None else options.max_new_tokens
    if not 1 <= max_new_tokens <= config.max_new_tokens_limit:
        raise invalid(
            f"max_new_tokens is {max_new_tokens}; ask for 1 to {config.max_new_tokens_limit}, or raise the parameter "
            "max_new_tokens_limit"
        )
    timeout_s = config.timeout_s if options.timeout_s is None else options.timeout_s
    if not 0 < timeout_s <= LONGEST_TIMEOUT_S:
        raise invalid(f"timeout_s is {timeout_s}; ask for more than 0 and at most {LONGEST_TIMEOUT_S:g} seconds")
    if options.since_ns is not None and options.until_ns is not None and options.since_ns > options.until_ns:
        raise invalid(f"since is {options.since_ns} ns, after until, which is {options.until_ns} ns; exchange the two")
    if options.near is not None and (problem := _area_problem(options.near)):
        raise invalid(problem)
    return Limits(max_new_tokens, timeout_s)


def _area_problem(near: Area) -> str:
    """What is wrong with an area, and what to do; empty if nothing."""
    if not 0 < near.radius_m < math.inf:
        return f"radius_m is {near.radius_m} beside near; give the radius around that point in metres, above 0"
    if not (math.isfinite(near.x) and math.isfinite(near.y)):
        return f"near is ({near.x}, {near.y}); both must be finite"
    if not near.frame_id:
        return "near has no frame_id; give that of the poses, such as map or odom"
    return ""


@dataclass(eq=False)
class AcceptedQuestion:
    """A question that passed the checks.

    Attributes:
        asked: `time.perf_counter()` at its arrival.
        fresh: answer from the newest memory once the frames up to `after_frame` are accounted for.
        after_frame: number of the frame that must be accounted for first, 0 for none.
        memory: what it is answered from, where that is about a range of stamps or recalled; None for the newest memory.
        recalls: whether it may recall segments.
        recalled: a memory of those, on its way; None inside where nothing is recalled.
        with_images: whether its moments are to bring their pictures.
        answer: complete but for its pictures.
        needed_version: lowest version of the memory that it may be answered from.
        started: whether the model has begun to answer.
        chunks: chunks of text emitted so far.
        choices: the texts of which one is the answer; none for one in the model's own words.
        constraint: what the answer is held to; None for one in the model's own words.
        turns: earlier questions of the conversation, each with its answer.
    """

    text: str
    limits: Limits
    on_token: Callable[[str], None] | None
    pending: PendingAnswer
    asked: float
    fresh: bool = False
    after_frame: int = 0
    memory: Future[PublishedMemory] | None = None
    recalls: bool = False
    recalled: Future[PublishedMemory | None] | None = None
    with_images: bool = False
    answer: Answer | None = None
    needed_version: int = 0
    started: bool = False
    chunks: int = 0
    choices: tuple[str, ...] = ()
    constraint: StreamConstraint | None = None
    turns: tuple[tuple[str, str], ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """All that the asker wrote, or was told before."""
        return (self.text, *(text for turn in self.turns for text in turn))

    @property
    def deadline(self) -> float:
        """When it expires, as `time.perf_counter()`."""
        return self.asked + self.limits.timeout_s

    @property
    def recall_deadline(self) -> float:
        """Until when it waits for what it recalls: what a disk or a model hangs on can still be answered without."""
        return self.asked + self.limits.timeout_s / 2

    def start(self, prefilled: StreamPrefilledMemory) -> StreamGeneration:
        """Begins its answer from a memory."""
        if self.choices:
            return prefilled.start_choice(self.text, self.choices, turns=self.turns)
        limit = self.limits.max_new_tokens
        return prefilled.start(self.text, limit, constraint=self.constraint, turns=self.turns)

    def expire(self) -> None:
        """Settles the question with TIMEOUT, or with its answer where only pictures are missing: a disk hangs."""
        if self.answer is not None:
            self.pending.settle(self.answer)
            return
        if self.started:
            state = f"the model had begun and given {self.chunks} chunks of text; ask for fewer max_new_tokens"
        elif self.fresh:
            state = "it waited for its turn or, being fresh, for the frames before it; ask without fresh"
        else:
            state = "it waited for its turn; ask less often"
        self.pending.settle(
            AskError(ErrorCode.TIMEOUT, f"no answer within {self.limits.timeout_s:g} s: {state}, or raise timeout_s")
        )


class QuestionQueue:
    """The bounded queue of questions for the answer worker, and the counters of all questions.

    A question that must wait for frames does not hold up those behind it. One that is settled while it waits
    (cancelled, timed out) leaves the queue at once.

    Args:
        config: `question_queue`.
        changed: the engine's one lock; also notified when frames become accounted for.
        frames_accounted: whether the frames up to a number are accounted for; called with the lock held.
    """

    def __init__(
        self, config: StreamConfig, changed: threading.Condition, frames_accounted: Callable[[int], bool]
    ) -> None:
        self._capacity = config.question_queue
        self._changed = changed
        self._frames_accounted = frames_accounted
        self._waiting: list[AcceptedQuestion] = []
        # Waiting or being answered, not settled yet.
        self._open: dict[PendingAnswer, AcceptedQuestion] = {}
        self._active = False
        self._counters = QuestionCounters()

    @property
    def counters(self) -> QuestionCounters:
        """A copy of the counters."""
        with self._changed:
            return replace(self._counters, failed=dict(self._counters.failed))

    def activate(self) -> None:
        """Begins to accept questions."""
        with self._changed:
            self._active = True

    def new_pending(self) -> PendingAnswer:
        """Counts a question and returns its answer to come."""
        with self._changed:
            self._counters.questions += 1
        return PendingAnswer(self._settle)

    def _settle(self, pending: PendingAnswer, outcome: Answer | AskError) -> None:
        with self._changed:
            question = self._open.pop(pending, None)
            if question is not None and question in self._waiting:
                self._waiting.remove(question)
            if isinstance(outcome, AskError):
                name = outcome.code.name
                self._counters.failed[name] = self._counters.failed.get(name, 0) + 1
            else:
                self._counters.answers += 1
                self._counters.recalls += outcome.recalled > 0
                self._counters.last_first_token_s = outcome.first_token_s
                self._counters.last_answer_s = outcome.total_s

    def require_active(self) -> None:
        """Raises AskError (NOT_ACTIVE) before `activate` and after `close`."""
        if not self._active:
            raise AskError(ErrorCode.NOT_ACTIVE, "the engine is not running; activate the node, or start the engine")

    def put(self, question: AcceptedQuestion) -> None:
        """Queues a question; `expire` ends it at its deadline.

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

    def expire(self, longest_wait_s: float) -> bool:
        """Waits until a question is overdue, something changes, or for `longest_wait_s`; settles what is overdue.

        One thread calls this in a loop for all questions: a timer each would be a thread each.

        Returns:
            False once closed.
        """
        with self._changed:
            nearest = min((question.deadline for question in self._open.values()), default=math.inf)
            remaining = nearest - time.perf_counter()
            if self._active and remaining > 0:
                self._changed.wait(min(remaining, longest_wait_s))
            now = time.perf_counter()
            overdue = [question for question in self._open.values() if question.deadline <= now]
            active = self._active
        for question in overdue:
            question.expire()
        return active

    def take(
        self, limit: int, otherwise: Callable[[], bool] = lambda: False, timeout_s: float | None = None
    ) -> list[AcceptedQuestion] | None:
        """Takes the oldest questions whose frames and memories are there, up to `limit`; waits if there is none.

        Args:
            limit: most questions to take.
            otherwise: also ends the wait, without a question; called with the lock held.
            timeout_s: most seconds to wait; None waits without limit.

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

    def look_again(self) -> None:
        """Wakes `take`: the memory of a question is there."""
        with self._changed:
            self._changed.notify_all()

    def _ready(self) -> list[AcceptedQuestion]:
        return [
            question
            for question in self._waiting
            if self._frames_accounted(question.after_frame) and (question.memory is None or question.memory.done())
        ]

    def close(self) -> None:
        """Cancels all questions and ends `take`."""
        with self._changed:
            self._active = False
            unsettled = list(self._open)
            self._changed.notify_all()
        for pending in unsettled:
            pending.settle(AskError(ErrorCode.CANCELLED, "the engine was closed before the answer was complete"))
