"""The timing of a replay, without ROS; in virtual time where time is measured."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace

import pytest
from fakes import PATIENCE_S

from fvs_ros.sources import playback as playback_module
from fvs_ros.sources.playback import Playback, PlaybackItem

MILLISECOND = 1_000_000


class VirtualTime:
    """Stands in for `time`, and its `Event` for `threading.Event`: waiting takes no time but passes it.

    Attributes:
        overshoot_s: by which each wait is too long, as those of a real machine are.
    """

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.overshoot_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def event(self) -> VirtualEvent:
        return VirtualEvent(self)


class VirtualEvent(threading.Event):
    def __init__(self, time: VirtualTime) -> None:
        super().__init__()
        self._time = time

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        if not self.is_set():
            self._time.now_s += timeout + self._time.overshoot_s
        return self.is_set()


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    time = VirtualTime()
    monkeypatch.setattr(playback_module, "time", time)
    monkeypatch.setattr(playback_module, "threading", SimpleNamespace(Event=time.event))
    return time


class Recorder:
    """Items every `period_ms`, and what a playback did with them and when.

    Args:
        virtual: of the playback; None where it runs in real time.
        publish_s: seconds of virtual time that publishing takes.
    """

    def __init__(self, count: int, period_ms: int, virtual: VirtualTime | None = None, publish_s: float = 0.0) -> None:
        self.items: list[int] = []
        self.times_s: list[float] = []
        self.clock: list[int] = []
        self._count, self._period_ms, self._virtual, self._publish_s = count, period_ms, virtual, publish_s

    def read(self) -> Iterator[PlaybackItem]:
        for index in range(self._count):
            yield PlaybackItem(1_000 * MILLISECOND + index * self._period_ms * MILLISECOND, self._take(index))

    def _take(self, index: int) -> Callable[[], None]:
        def publish() -> None:
            self.items.append(index)
            if self._virtual is not None:
                self.times_s.append(self._virtual.now_s)
                self._virtual.now_s += self._publish_s

        return publish

    def play(self, rate: float = 1.0, clock_hz: float = 40.0, loop: bool = False) -> Playback:
        playback = Playback(self.read, self.clock.append, rate, clock_hz, loop)
        playback.run()
        return playback

    @property
    def elapsed_s(self) -> list[float]:
        return [time_s - self.times_s[0] for time_s in self.times_s]


@pytest.mark.parametrize("rate", [0.5, 1.0, 4.0])
def test_rate_sets_the_pace(virtual: VirtualTime, rate: float) -> None:
    recorder = Recorder(11, 20, virtual)
    recorder.play(rate=rate)
    assert recorder.items == list(range(11))
    assert recorder.elapsed_s == pytest.approx([0.02 * index / rate for index in range(11)])


def test_errors_of_waiting_and_publishing_do_not_add_up(virtual: VirtualTime) -> None:
    """Publishing takes 4 ms of the 10 ms in between, and each wait is 1 ms too long."""
    virtual.overshoot_s = 0.001
    recorder = Recorder(51, 10, virtual, publish_s=0.004)
    playback = recorder.play(clock_hz=0.0)
    assert recorder.elapsed_s == pytest.approx([0.0, *(0.01 * index + 0.001 for index in range(1, 51))])
    assert playback.progress.worst_lag_s == pytest.approx(0.001)


def test_late_items_catch_up_without_sleeping(virtual: VirtualTime) -> None:
    recorder = Recorder(20, 5, virtual, publish_s=0.02)
    playback = recorder.play()
    assert recorder.items == list(range(20))
    assert recorder.elapsed_s == pytest.approx([0.02 * index for index in range(20)])
    assert playback.progress.worst_lag_s == pytest.approx(19 * 0.015)


def test_clock_runs_between_items_and_never_back(virtual: VirtualTime) -> None:
    recorder = Recorder(3, 100, virtual)
    recorder.play(clock_hz=100.0)
    # 100 Hz over two gaps of 100 ms, an item's own time among them.
    assert recorder.clock == pytest.approx([(1_000 + 10 * tick) * MILLISECOND for tick in range(21)], abs=1_000)
    assert recorder.clock == sorted(recorder.clock)
    assert recorder.clock[-1] == 1_200 * MILLISECOND


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
    assert playback.wait_for(lambda: playback.progress.passes >= 3, timeout_s=PATIENCE_S)
    playback.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert recorder.items[:6] == [0, 1, 2, 0, 1, 2]
    assert any(later < earlier for earlier, later in pairwise(recorder.clock))


def test_stop_ends_a_long_wait() -> None:
    recorder = Recorder(2, 60_000)
    playback = Playback(recorder.read, recorder.clock.append)
    thread = threading.Thread(target=playback.run)
    thread.start()
    assert playback.wait_for(lambda: playback.progress.items == 1, timeout_s=PATIENCE_S)
    playback.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert recorder.items == [0]


def test_looping_over_nothing_ends() -> None:
    assert Recorder(0, 10).play(loop=True).progress.items == 0


def test_items_out_of_order_do_not_turn_the_clock_back() -> None:
    clock: list[int] = []
    items = [PlaybackItem(time_ns * MILLISECOND, lambda: None) for time_ns in (10, 30, 20, 40)]
    Playback(lambda: items, clock.append).run()
    assert clock == sorted(clock)


def test_wait_for_gives_up(virtual: VirtualTime) -> None:
    playback = Playback(list, lambda _: None)
    began_s = virtual.now_s
    assert not playback.wait_for(lambda: False, timeout_s=0.1)
    assert 0.1 < virtual.now_s - began_s <= 0.12 + 1e-9
