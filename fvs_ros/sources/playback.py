"""The timing of a replay: publishes recorded items at their times, at any rate, by a steady clock."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fvs_ros.sources.frame import SECOND_NS


@dataclass(frozen=True)
class PlaybackItem:
    """Something to publish.

    Attributes:
        time_ns: recorded time, nanoseconds.
        publish: publishes it.
    """

    time_ns: int
    publish: Callable[[], None]


@dataclass
class PlaybackProgress:
    """Progress of a playback; written by its thread, read by others.

    Attributes:
        items: published so far, over all passes.
        passes: begun so far.
        start_ns, now_ns: recorded times of the first and the newest item of this pass.
        lag_s: wall-clock seconds by which the newest item was late.
        worst_lag_s: the largest lag so far.
    """

    items: int = 0
    passes: int = 0
    start_ns: int = 0
    now_ns: int = 0
    lag_s: float = 0.0
    worst_lag_s: float = 0.0


class Playback:
    """Publishes items when they are due, and the recorded time as a clock in between.

    Due times are computed from the start of the pass, so that errors of waiting do not add up. Late items go out at
    once until the schedule is met again. Within a pass the clock never runs ahead of the schedule, and never back.

    Args:
        read: begins a pass over the recording; yields its items in time order.
        publish_clock: publishes the recorded time in nanoseconds.
        rate: recorded seconds per wall-clock second.
        clock_hz: clock messages per wall-clock second between items; one more precedes each item with a new time. 0
            publishes no clock.
        loop: start again at the end, with the recorded times.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[PlaybackItem]],
        publish_clock: Callable[[int], None],
        rate: float = 1.0,
        clock_hz: float = 40.0,
        loop: bool = False,
    ) -> None:
        self._read = read
        self._publish_clock = publish_clock
        self._rate = rate
        self._clock_hz = clock_hz
        self._loop = loop
        self._stopped = threading.Event()
        self.progress = PlaybackProgress()

    def run(self) -> None:
        """Play until the end, or, when looping, until `stop`."""
        while not self._stopped.is_set():
            before = self.progress.items
            self._play_once()
            if not self._loop or self.progress.items == before:
                return

    def stop(self) -> None:
        """Make `run` return soon; from any thread."""
        self._stopped.set()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether `condition` came true within `timeout_s` and before `stop`."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self._stopped.wait(0.02) or time.monotonic() > deadline:
                return False
        return True

    def _play_once(self) -> None:
        progress = self.progress
        began = time.monotonic()
        first = True
        for item in self._read():
            if first:
                began, first = time.monotonic(), False
                progress.passes += 1
                progress.start_ns = progress.now_ns = item.time_ns
                self._send_clock(item.time_ns)
            due = began + (item.time_ns - progress.start_ns) / SECOND_NS / self._rate
            if not self._wait_until(due, began):
                return
            if item.time_ns > progress.now_ns:
                progress.now_ns = item.time_ns
                self._send_clock(item.time_ns)
            progress.lag_s = max(0.0, time.monotonic() - due)
            progress.worst_lag_s = max(progress.worst_lag_s, progress.lag_s)
            item.publish()
            progress.items += 1

    def _wait_until(self, due: float, began: float) -> bool:
        """Sleep until `due`, sending the clock at its rate on the way; False if stopped meanwhile."""
        while (now := time.monotonic()) < due:
            tick = self._next_tick(now - began) + began
            if self._stopped.wait(min(due, tick) - now):
                return False
            if tick < due:
                self._send_clock(self.progress.start_ns + int((tick - began) * self._rate * SECOND_NS))
        return not self._stopped.is_set()

    def _next_tick(self, elapsed: float) -> float:
        if not self._clock_hz:
            return math.inf
        return (math.floor(elapsed * self._clock_hz + 1e-6) + 1) / self._clock_hz

    def _send_clock(self, time_ns: int) -> None:
        if self._clock_hz:
            self._publish_clock(time_ns)
