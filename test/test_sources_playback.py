"""The timing of a replay, without ROS."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from fvs_ros.sources.playback import Playback, PlaybackItem

MILLISECOND = 1_000_000


class Recorder:
    """Items every `period_ms`, and what a playback did with them and when."""

    def __init__(self, count: int, period_ms: int, publish_s: float = 0.0) -> None:
        self.items: list[int] = []
        self.times: list[float] = []
        self.clock: list[int] = []
        self._count, self._period_ms, self._publish_s = count, period_ms, publish_s

    def read(self) -> Iterator[PlaybackItem]:
        for index in range(self._count):
            yield PlaybackItem(
                1_000 * MILLISECOND + index * self._period_ms * MILLISECOND, lambda i=index: self._take(i)
            )

    def _take(self, index: int) -> None:
        self.items.append(index)
        self.times.append(time.monotonic())
        time.sleep(self._publish_s)

    def play(self, **options: float) -> Playback:
        playback = Playback(self.read, self.clock.append, **options)  # type: ignore[arg-type]
        playback.run()
        return playback


@pytest.mark.parametrize("rate", [0.5, 1.0, 4.0])
def test_rate_sets_the_pace(rate: float) -> None:
    recorder = Recorder(11, 20)
    recorder.play(rate=rate)
    assert recorder.items == list(range(11))
    # Never early; late by this machine's jitter at most.
    assert 0.2 / rate - 0.002 < recorder.times[-1] - recorder.times[0] < 0.2 / rate + 0.15


def test_waiting_errors_do_not_add_up() -> None:
    """Each publishing costs 4 ms of the 10 ms in between: a replay that slept the whole gap would take 0.7 s."""
    recorder = Recorder(51, 10, publish_s=0.004)
    recorder.play()
    assert recorder.times[-1] - recorder.times[0] < 0.62


def test_late_items_catch_up_without_sleeping() -> None:
    recorder = Recorder(20, 5, publish_s=0.02)
    playback = recorder.play()
    assert recorder.items == list(range(20))
    assert playback.progress.worst_lag_s > 0.2
    assert recorder.times[-1] - recorder.times[0] < 19 * 0.02 + 0.15


def test_clock_runs_between_items_and_never_back() -> None:
    recorder = Recorder(3, 100)
    recorder.play(clock_hz=100.0)
    assert recorder.clock == sorted(recorder.clock)
    assert recorder.clock[0] == 1_000 * MILLISECOND
    assert recorder.clock[-1] == 1_200 * MILLISECOND
    # Two gaps of 100 ms at 100 Hz; a loaded machine may skip some, but never sends more.
    assert 10 <= len(recorder.clock) <= 22


def test_clock_can_be_left_alone() -> None:
    recorder = Recorder(3, 10)
    recorder.play(clock_hz=0.0)
    assert recorder.clock == []
    assert recorder.items == [0, 1, 2]


def test_loop_begins_again_until_stopped() -> None:
    recorder = Recorder(3, 10)
    playback = Playback(recorder.read, recorder.clock.append, loop=True)
    thread = threading.Thread(target=playback.run)
    thread.start()
    assert playback.wait_for(lambda: playback.progress.passes >= 3, timeout_s=5.0)
    playback.stop()
    thread.join(timeout=5.0)
    assert not thread.is_alive()
    assert recorder.items[:6] == [0, 1, 2, 0, 1, 2]
    assert any(later < earlier for earlier, later in zip(recorder.clock, recorder.clock[1:], strict=False))


def test_stop_ends_a_long_wait() -> None:
    recorder = Recorder(2, 60_000)
    playback = Playback(recorder.read, recorder.clock.append)
    thread = threading.Thread(target=playback.run)
    thread.start()
    assert playback.wait_for(lambda: playback.progress.items == 1, timeout_s=5.0)
    playback.stop()
    thread.join(timeout=1.0)
    assert not thread.is_alive()
    assert recorder.items == [0]


def test_looping_over_nothing_ends() -> None:
    assert Recorder(0, 10).play(loop=True).progress.items == 0


def test_items_out_of_order_do_not_turn_the_clock_back() -> None:
    clock: list[int] = []
    items = [PlaybackItem(time_ns * MILLISECOND, lambda: None) for time_ns in (10, 30, 20, 40)]
    Playback(lambda: items, clock.append).run()
    assert clock == sorted(clock)


def test_wait_for_gives_up() -> None:
    playback = Playback(list, lambda _: None)
    began = time.monotonic()
    assert not playback.wait_for(lambda: False, timeout_s=0.1)
    assert 0.1 <= time.monotonic() - began < 1.0
