"""Standing questions: a condition that is looked at again and again."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.model_protocol import StreamConditionCheck
from fvs_ros.stream.types import AskError, ErrorCode, MemoryStatus, Moment
from fvs_ros.stream.watch_condition import Change, ConditionState

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WatchOptions:
    """How to watch.

    Attributes:
        period_s: seconds of stamps between two looks; 0 looks at each memory that is prefilled.
        hold_s: seconds of stamps for which the condition must be true before that is told.
        once: end when it becomes true.
        timeout_s: seconds after which the watch ends; 0 never.
        with_images: let the moments of a change bring their pictures.
        name: of a watch in a file; empty for others.
    """

    period_s: float = 0.0
    hold_s: float = 0.0
    once: bool = False
    timeout_s: float = 0.0
    with_images: bool = False
    name: str = ""


DEFAULT_OPTIONS = WatchOptions()


@dataclass(frozen=True)
class WatchEvent:
    """One look at a condition.

    Attributes:
        watch: `Watch.number`.
        change: what changed.
        is_true: whether the condition counts as true now.
        probability: that it is true, see `StreamModel.condition_check`.
        stamp_ns: of the newest frame of the memory that was looked at.
        since_ns: of the look that first found the condition to be as it is now.
        memory_version: `MemoryStatus.version` of that memory.
        moments: what a change rests on, the most relevant first.
    """

    watch: int
    change: Change
    is_true: bool
    probability: float
    stamp_ns: int
    since_ns: int
    memory_version: int
    moments: tuple[Moment, ...] = ()


@dataclass(frozen=True)
class WatchOutcome:
    """How a watch ended.

    Attributes:
        error: why it ended; None where it was to end once its condition is true, and that came true.
        became_true: when that last happened, None if never.
        looks: how often the model was asked.
    """

    error: AskError | None
    became_true: WatchEvent | None
    looks: int


class Watch:
    """An open watch. It ends once: by its condition, its timeout, a cancel, or with the engine.

    Args:
        number: its own among all watches of the engine.
        condition: as given.
        asked: how the model is asked about it.
        options: how to watch.
        config: the thresholds.
        on_event: called on the answer thread with each look.
        on_end: called once, when it has ended.
    """

    def __init__(
        self,
        number: int,
        condition: str,
        asked: StreamConditionCheck,
        options: WatchOptions,
        config: StreamConfig,
        on_event: Callable[[WatchEvent], None] | None,
        on_end: Callable[[Watch], None],
    ) -> None:
        self.number = number
        self.condition = condition
        self.asked = asked
        self.options = options
        self.deadline = time.perf_counter() + options.timeout_s if options.timeout_s else math.inf
        # Since when a look is due, as `time.monotonic()`; None while none is. Of the answer thread.
        self.due_since: float | None = None
        # Whether a change waits for its pictures; it is to be told before the next look. Of the answer thread.
        self.tells = False
        # For how long the last look had been due.
        self.lag_s = 0.0
        self._config = config
        self._on_event = on_event
        self._on_end = on_end
        self._claim = threading.Lock()
        self._outcome: Future[WatchOutcome] = Future()
        self._state = self._new_state()
        self._last: WatchEvent | None = None
        self._became_true: WatchEvent | None = None
        self._looked = MemoryStatus()
        self._looks = 0

    def ended(self) -> bool:
        """Whether it is decided how it ends."""
        return self._claim.locked()

    def end(self, error: AskError | None) -> bool:
        """Ends it, unless it has ended already, in which case this returns False."""
        if not self._claim.acquire(blocking=False):
            return False
        self._on_end(self)
        self._outcome.set_result(WatchOutcome(error, self._became_true, self._looks))
        return True

    def cancel(self) -> bool:
        """Ends it as cancelled; False if it has ended already."""
        return self.end(AskError(ErrorCode.CANCELLED, "the watch was cancelled by the client"))

    def expire(self) -> None:
        """Ends it with TIMEOUT."""
        if not self._looks:
            what = "it was never looked at, as no frame was in memory"
        elif self._became_true is None:
            what = f"its condition did not become true in {self._looks} looks"
        else:
            what = f"it was looked at {self._looks} times"
        self.end(AskError(ErrorCode.TIMEOUT, f"the watch ended after {self.options.timeout_s:g} s: {what}"))

    def result(self, timeout: float | None = None) -> WatchOutcome:
        """Waits for its end.

        Raises:
            TimeoutError: it did not end within `timeout` seconds, and goes on.
        """
        try:
            return self._outcome.result(timeout)
        except FutureTimeoutError as error:  # the builtin TimeoutError from Python 3.11 on
            raise TimeoutError(f"the watch did not end within the {timeout} s waited; it goes on") from error

    def add_done_callback(self, callback: Callable[[Watch], None]) -> None:
        """Calls `callback` on the thread that ends the watch, or at once on this one if it has ended."""
        self._outcome.add_done_callback(lambda _: callback(self))

    @property
    def looks(self) -> int:
        """How often the model was asked so far."""
        return self._looks

    def last(self, episode: int) -> WatchEvent | None:
        """The last look at a memory of that episode, None if there was none."""
        return self._last if self._looked.episode == episode else None

    # On the answer thread

    def is_due(self, memory: MemoryStatus) -> bool:
        """Whether a memory is to be looked at."""
        looked = self._looked
        if self.tells:
            return False
        if not self._looks or memory.episode != looked.episode:
            return True
        waited_ns = memory.end_ns - looked.end_ns
        return memory.version > looked.version and waited_ns >= self.options.period_s * SECOND_NS

    def look(self, probability: float, memory: MemoryStatus) -> WatchEvent:
        """Takes in what a look at a memory gave. In a new episode nothing counts as true before it is found so."""
        if memory.episode != self._looked.episode:
            self._state = self._new_state()
        change = self._state.look(probability, memory.end_ns)
        self.skip(memory)
        self._looks += 1
        event = WatchEvent(
            watch=self.number,
            change=change,
            is_true=self._state.is_true,
            probability=probability,
            stamp_ns=memory.end_ns,
            since_ns=self._state.since_ns,
            memory_version=memory.version,
        )
        self._last = event
        return event

    def skip(self, memory: MemoryStatus) -> None:
        """Has a memory count as looked at."""
        self._looked = memory
        if self.due_since is not None:
            self.lag_s = time.monotonic() - self.due_since
        self.due_since = None

    def tell(self, event: WatchEvent) -> None:
        """Gives an event to who watches, and ends a watch that waited for it."""
        if self.ended():
            return
        if event.change is Change.BECAME_TRUE:
            self._became_true = event
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:
                logger.exception("the callback on_event failed; it is not called again for this watch")
                self._on_event = None
        if event.change is Change.BECAME_TRUE and self.options.once:
            self.end(None)

    def _new_state(self) -> ConditionState:
        hold_ns = round(self.options.hold_s * SECOND_NS)
        return ConditionState(hold_ns, self._config.watch_true_from, self._config.watch_false_below)
