"""The register of all standing questions that are open."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fvs_ros.stream.config import LONGEST_TIMEOUT_S, StreamConfig
from fvs_ros.stream.model_protocol import StreamModel
from fvs_ros.stream.questions import check_text
from fvs_ros.stream.recording import NOTHING_KEPT
from fvs_ros.stream.types import AskError, ErrorCode
from fvs_ros.stream.watch import DEFAULT_OPTIONS, Watch, WatchEvent, WatchOptions

# A look at each is a few milliseconds of the model's time.
MOST_WATCHES = 256


@dataclass
class WatchCounters:
    """What became of the looks, counted since the engine was made.

    Attributes:
        looks: at conditions.
        failed: looks on which the model failed.
        changes: told.
        error: the model's last failure, empty if there was none.
    """

    looks: int = 0
    failed: int = 0
    changes: int = 0
    error: str = ""


@dataclass(frozen=True)
class WatchingStatus:
    """How the watches fare.

    Attributes:
        watches: open now.
        looks, failed, changes, error: see `WatchCounters`.
        lag_s: the longest that the latest look of an open watch was, or is, due.
    """

    watches: int = 0
    looks: int = 0
    failed: int = 0
    changes: int = 0
    error: str = ""
    lag_s: float = 0.0


class WatchRegister:
    """All open watches.

    Args:
        config: limits and thresholds.
        changed: the engine's one lock; notified when a watch comes, so that the answer worker looks at it.
        model: that is asked.
        has_pictures: whether pictures of moments are kept.

    Attributes:
        counters: written by the answer thread.
    """

    def __init__(
        self,
        config: StreamConfig,
        changed: threading.Condition,
        model: StreamModel,
        has_pictures: bool = False,
    ) -> None:
        self._config = config
        self._changed = changed
        self._model = model
        self._has_pictures = has_pictures
        self._numbers = itertools.count(1)
        self._open: dict[int, Watch] = {}
        self._active = False
        # Something came since the answer worker last looked.
        self.news = False
        self.counters = WatchCounters()

    def activate(self) -> None:
        """Begins to take watches."""
        with self._changed:
            self._active = True

    def add(
        self,
        condition: str,
        options: WatchOptions = DEFAULT_OPTIONS,
        on_event: Callable[[WatchEvent], None] | None = None,
    ) -> Watch:
        """Watches for a condition, from the next prefilled memory on.

        Args:
            condition: a statement about now, or a yes/no question with its question mark.
            options: how often, and until when.
            on_event: called on the answer thread with each look; must not wait.

        Raises:
            AskError: INVALID_QUESTION, BUSY, NOT_ACTIVE or MODEL_ERROR; the message says what is wrong and what to do.
        """
        try:
            check_watch(condition, options, self._config, self._model.control_tokens_in, self._has_pictures)
            asked = self._model.condition_check(condition)
        except AskError:
            raise
        except Exception as error:
            raise AskError(ErrorCode.MODEL_ERROR, f"the model failed to check the condition: {error}") from error
        with self._changed:
            if not self._active:
                raise AskError(
                    ErrorCode.NOT_ACTIVE, "the engine is not running; activate the node, or start the engine"
                )
            if len(self._open) >= MOST_WATCHES:
                raise AskError(ErrorCode.BUSY, f"{MOST_WATCHES} watches are open already; cancel one")
            watch = Watch(next(self._numbers), condition, asked, options, self._config, on_event, self._on_end)
            self._open[watch.number] = watch
        self.look_again()
        return watch

    def look_again(self) -> None:
        """Has the answer worker look at whether something is to be done."""
        with self._changed:
            self.news = True
            self._changed.notify_all()

    def open(self) -> list[Watch]:
        """The open watches, the oldest first."""
        with self._changed:
            return list(self._open.values())

    @property
    def status(self) -> WatchingStatus:
        """How the watches fare."""
        watches, now = self.open(), time.monotonic()
        waiting = [now - since for watch in watches if (since := watch.due_since) is not None]
        lag_s = max([*(watch.lag_s for watch in watches), *waiting], default=0.0)
        return WatchingStatus(len(watches), **vars(self.counters), lag_s=lag_s)

    def expire(self) -> float:
        """Ends what is overdue; returns the seconds until the next deadline."""
        watches, now = self.open(), time.perf_counter()
        for watch in watches:
            if watch.deadline <= now:
                watch.expire()
        return min((watch.deadline - now for watch in watches if watch.deadline > now), default=math.inf)

    def end_all(self, error: AskError) -> None:
        """Ends all watches."""
        for watch in self.open():
            watch.end(error)

    def close(self) -> None:
        """Ends all watches, and takes no more."""
        with self._changed:
            self._active = False
        self.end_all(AskError(ErrorCode.CANCELLED, "the engine was closed while the watch was open"))

    def _on_end(self, watch: Watch) -> None:
        with self._changed:
            self._open.pop(watch.number, None)


def check_watch(
    condition: str,
    options: WatchOptions,
    config: StreamConfig,
    control_tokens_in: Callable[[str], list[str]],
    has_pictures: bool,
) -> None:
    """Checks a condition and how it is to be watched.

    Raises:
        AskError: INVALID_QUESTION; the message says what is wrong and what to do.
    """
    check_text("condition", condition, config, control_tokens_in)
    problem = ""
    if not config.watch_share:
        problem = "nothing can be watched, as the parameter watch_share is 0; raise it"
    if options.with_images and not has_pictures:
        problem = f"with_images needs stored segments: {NOTHING_KEPT}"
    for name in ("period_s", "hold_s", "timeout_s"):
        value = getattr(options, name)
        if not 0 <= value <= LONGEST_TIMEOUT_S:
            problem = f"{name} is {value}; give 0 to {LONGEST_TIMEOUT_S:g} seconds"
    if problem:
        raise AskError(ErrorCode.INVALID_QUESTION, problem)
