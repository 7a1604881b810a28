"""Model calls that hang or end a worker: noticed, reported, and the worker replaced by a new one.

A thread cannot be killed from outside. So a worker whose model call does not return is *replaced*: a new worker on a
new thread takes over its queue, its memory and its counters as the next generation, and the old thread ends as soon as
its call returns. Nothing that this call brings is used.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

logger = logging.getLogger(__name__)

# Hung threads of one worker that are left behind. Where that many calls hang, one more would hang too.
MOST_REPLACEMENTS = 3


class Replaced(BaseException):
    """Ends a worker that another has taken over. No Exception: what handles a model's failures must not catch it."""


@dataclass(frozen=True)
class ModelCall:
    """A call of the model that is under way.

    Attributes:
        name: what the model does.
        began_s: `time.monotonic()`.
    """

    name: str
    began_s: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        waited = datetime.timedelta(seconds=time.monotonic() - self.began_s)
        began_at = datetime.datetime.now() - waited
        return f"the model's {self.name} has not returned since {began_at:%H:%M:%S} ({waited.total_seconds():.0f} s)"


class ModelCalls:
    """The model calls of one generation of a worker, one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._replaced = False
        self.current: ModelCall | None = None

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Within the block the model is called.

        Raises:
            Replaced: at its end, if another worker has taken over meanwhile.
        """
        self.current = ModelCall(name)
        try:
            yield
        finally:
            with self._lock:
                self.current = None
                if self._replaced:
                    raise Replaced

    def replace_if_hung(self, limit_s: float) -> ModelCall | None:
        """Ends this generation if its call takes longer than `limit_s`, and returns that call."""
        with self._lock:
            call = self.current
            if call is None or time.monotonic() - call.began_s < limit_s:
                return None
            self._replaced = True
            return call


AnyWorker = TypeVar("AnyWorker", bound="Worker")


class Worker(Protocol):
    """What a `Watchdog` watches."""

    @property
    def calls(self) -> ModelCalls:
        """Its model calls."""

    def run(self) -> None:
        """Works until its queue is closed."""

    def successor(self: AnyWorker, reason: str) -> AnyWorker:
        """The next generation, which accounts for what this one had in hand; `reason` is why it is replaced."""


class Watchdog(Generic[AnyWorker]):
    """One worker on its thread, and its replacement where a call hangs, or an error ends it.

    Args:
        worker: the first generation.
        thread: name of the thread.
        limit_s: seconds after which a model call counts as hung; 0 never.

    Attributes:
        worker: the present generation.
        hung: calls that have not returned, of generations that were replaced.
        last_fault: why the last generation was replaced; empty before that.
    """

    def __init__(self, worker: AnyWorker, thread: str, limit_s: float) -> None:
        self.worker = worker
        self.last_fault = ""
        self._name = thread
        self._limit_s = limit_s
        self._generation = 1
        self._left: list[tuple[threading.Thread, ModelCall]] = []
        self._thread = self._new_thread()

    @property
    def hung(self) -> list[ModelCall]:
        """Calls that were given up and have not returned."""
        return [call for thread, call in self._left if thread.is_alive()]

    @property
    def fault(self) -> str:
        """What is wrong now; empty if nothing is."""
        if not self.hung:
            return ""
        calls = "; ".join(str(hung) for hung in self.hung)
        if len(self.hung) < MOST_REPLACEMENTS:
            return f"{calls}; a new worker has taken over"
        return f"{calls}; {MOST_REPLACEMENTS} workers were left behind, and no more will be: restart the node"

    def start(self) -> None:
        """Starts the first generation."""
        self._thread.start()

    def look(self) -> None:
        """Replaces the worker if its call hangs, or if it ended with an error. Called by one thread, often."""
        if self._error is not None:
            self._replace(f"the worker ended with {type(self._error).__name__}: {self._error}")
        elif self._limit_s and len(self.hung) < MOST_REPLACEMENTS:
            call = self.worker.calls.replace_if_hung(self._limit_s)
            if call is not None:
                self._left = [one for one in self._left if one[0].is_alive()]
                self._left.append((self._thread, call))
                self._replace(str(call))

    def join(self, give_up: Callable[[], bool]) -> bool:
        """Waits for the end of the present generation, but no longer than a call may take.

        Args:
            give_up: ends the wait where it becomes true.

        Returns:
            Whether all generations have ended, or end with the callback that calls this.
        """
        if self._thread is not threading.current_thread() and self._thread.ident:
            while self._thread.is_alive():
                call = self.worker.calls.current
                hangs = call is not None and self._limit_s and time.monotonic() - call.began_s > self._limit_s
                if hangs or give_up():
                    level = logging.ERROR if hangs else logging.WARNING
                    logger.log(level, "%s; its thread is left behind", call or f"{self._name} goes on")
                    return False
                self._thread.join(0.1)
        return not self.hung

    def _replace(self, reason: str) -> None:
        self._generation += 1
        self.last_fault = reason
        logger.error("%s; worker %d of %s takes over", reason, self._generation, self._name)
        self.worker = self.worker.successor(reason)
        self._thread = self._new_thread()
        self._thread.start()

    def _new_thread(self) -> threading.Thread:
        self._error: Exception | None = None
        return threading.Thread(target=self._run, args=(self.worker,), name=self._name, daemon=True)

    def _run(self, worker: AnyWorker) -> None:
        try:
            worker.run()
        except Replaced:
            logger.warning("a model call of %s that had hung has returned; its result is discarded", self._name)
        except Exception as error:
            logger.exception("a worker of %s ended", self._name)
            if worker is self.worker:
                self._error = error
