"""Whole streams through the guard: what comes out, what is left out, and where the clock was set."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fvs_ros.sources.frame import SECOND_NS, Frame
from fvs_ros.sources.stamp_guard import ClockMove, StampGuard, describe_wrong_stamps

START_S = 1_700_000_000.0
PERIODS_S = (1.0, 1 / 30, 3.0)


@dataclass
class Seen:
    """What the guard made of a stream; stamps in seconds after START_S, to milliseconds."""

    accepted: list[float] = field(default_factory=list)
    rejected: list[float] = field(default_factory=list)
    late: int = 0
    moves: list[ClockMove] = field(default_factory=list)


def frame(stamp_s: float, received_s: float | None) -> Frame:
    received_ns = None if received_s is None else round(received_s * SECOND_NS)
    return Frame(round((START_S + stamp_s) * SECOND_NS), lambda: np.zeros((2, 2, 3), np.uint8), received_ns=received_ns)


def seconds(frames: Iterable[Frame]) -> list[float]:
    return [round((one.stamp_ns / SECOND_NS) - START_S, 3) for one in frames]


def run(stream: Iterable[tuple[float, float | None]], tolerance_s: float = 1.0) -> Seen:
    guard = StampGuard(round(tolerance_s * SECOND_NS))
    seen = Seen()
    verdicts = [guard.offer(frame(*one)) for one in stream]
    for verdict in [*verdicts, guard.finish()]:
        seen.accepted += seconds(verdict.accepted)
        seen.rejected += seconds(verdict.rejected)
        seen.late += verdict.late
        seen.moves += [verdict.moved] if verdict.moved else []
    assert guard.held == 0
    return seen


def stream(count: int, period_s: float, off: Mapping[int, float], pace: float = 1.0) -> list[tuple[float, float]]:
    """A camera whose frame `index` has its stamp off by so many seconds; it plays `pace` times as fast as it should."""
    return [(index * period_s + off.get(index, 0.0), index * period_s / pace) for index in range(count)]


def right(count: int, period_s: float, wrong: Iterable[int] = ()) -> list[float]:
    return [round(index * period_s, 3) for index in range(count) if index not in set(wrong)]


@pytest.mark.parametrize("period_s", PERIODS_S)
@pytest.mark.parametrize("off_s", [60.0, 600.0, 3.15e8, -60.0, -600.0, -START_S])
def test_one_wrong_stamp_is_left_out_alone(period_s: float, off_s: float) -> None:
    seen = run(stream(40, period_s, {10: off_s}))
    assert seen.accepted == right(40, period_s, [10])
    assert len(seen.rejected) == 1
    assert (seen.late, seen.moves) == (0, [])


@pytest.mark.parametrize("period_s", [1.0, 1 / 30])
def test_three_seconds_ahead_are_told_from_a_gap(period_s: float) -> None:
    assert run(stream(40, period_s, {10: 3.0})).accepted == right(40, period_s, [10])


def test_a_run_of_wrong_stamps_costs_only_itself() -> None:
    seen = run(stream(20, 1.0, dict.fromkeys(range(10, 15), 4.4)))
    assert seen.accepted == right(20, 1.0, range(10, 15))
    assert seen.rejected == [14.4, 15.4, 16.4, 17.4, 18.4]
    assert seen.moves == []


def test_two_clocks_on_one_topic_leave_the_first() -> None:
    seen = run(stream(60, 0.1, dict.fromkeys(range(1, 60, 2), 500.0)))
    assert seen.accepted == right(60, 0.1, range(1, 60, 2))
    assert seen.moves == []


@pytest.mark.parametrize(
    ("period_s", "off_s"), [(1 / 30, -3.0), *itertools.product([1.0, 1 / 30], [-3600.0, 3600.0, START_S])]
)
def test_a_clock_that_was_set_is_believed(period_s: float, off_s: float) -> None:
    count = 200
    seen = run(stream(count, period_s, dict.fromkeys(range(50, count), off_s)))
    assert [round(value - off_s, 3) for value in seen.accepted[-80:]] == right(count, period_s)[-80:]
    assert seen.rejected == []
    # A 30 Hz camera sends 60 frames until it is clear, more than are held; at 1 Hz not one is lost.
    assert len(seen.accepted) == count if period_s == 1.0 else len(seen.accepted) >= count - 60
    (move,) = seen.moves
    assert move.after_ns - move.before_ns == pytest.approx((off_s + period_s) * SECOND_NS, abs=1e3)
    assert f"moved by {off_s + period_s:+.3f} s" in str(move)


def test_a_first_stamp_from_before_the_clock_was_set_does_not_hold_the_stream_up() -> None:
    seen = run(stream(20, 1.0, {0: -START_S + 5.0}))
    assert seen.accepted[1:] == right(20, 1.0, [0])
    assert len(seen.moves) == 1


@pytest.mark.parametrize("gap_s", [3.0, 60.0, 86_400.0])
@pytest.mark.parametrize("pace", [1.0, 5.0, 0.5])
def test_a_gap_in_which_nothing_arrived_is_no_wrong_stamp(gap_s: float, pace: float) -> None:
    frames = stream(20, 1.0, {}) + [(20 + gap_s + index, 20 + gap_s + index) for index in range(10)]
    seen = run([(stamp, received / pace) for stamp, received in frames])
    assert len(seen.accepted) == 30
    assert (seen.rejected, seen.moves, seen.late) == ([], [], 0)


def test_a_burst_after_a_stall_is_taken_whole() -> None:
    frames = stream(20, 1.0, {})
    # Five seconds late and all at once, with two of them lost on the way.
    frames += [(20.0, 25.0), (21.0, 25.001), (24.0, 25.002)]
    frames += [(float(index), float(index)) for index in range(26, 36)]
    seen = run(frames)
    assert seen.accepted == [*right(20, 1.0), 20.0, 21.0, 24.0, *[float(index) for index in range(26, 36)]]
    assert (seen.rejected, seen.moves) == ([], [])


@pytest.mark.parametrize("pace", [0.1, 1.0, 20.0])
def test_a_recording_may_play_at_any_pace(pace: float) -> None:
    assert run(stream(50, 1.0, {}, pace)).accepted == right(50, 1.0)


def test_swapped_frames_are_late_and_not_wrong() -> None:
    order = [0, 2, 1, 3, 5, 4, 6]
    seen = run([(index * 0.1, place * 0.1) for place, index in enumerate(order)])
    assert seen.accepted == [0.0, 0.2, 0.3, 0.5, 0.6]
    assert (seen.late, seen.rejected, seen.moves) == (2, [], [])


def test_a_large_tolerance_does_not_make_the_stream_blind() -> None:
    """A clock set back by less than the tolerance: all that follows would be late for as long."""
    seen = run(stream(300, 0.1, dict.fromkeys(range(100, 300), -1800.0)), tolerance_s=3600.0)
    assert len(seen.moves) == 1
    assert seen.accepted[-100:] == [round(value - 1800.0, 3) for value in right(300, 0.1)[-100:]]


def test_a_clock_set_back_by_less_than_it_takes_to_tell_costs_as_many_frames_and_no_memory() -> None:
    seen = run(stream(100, 1.0, dict.fromkeys(range(50, 100), -3.0)))
    assert seen.accepted == right(97, 1.0)
    assert (seen.rejected, seen.late, seen.moves) == ([47.0], 2, [])


def test_a_short_recording_that_is_looped_begins_anew_each_time() -> None:
    loop = [(index * 1.0, index * 1.0 + 5.0 * turn) for turn in range(4) for index in range(5)]
    seen = run(loop)
    # The last two of a turn lie within the tolerance behind the newest, as frames do that were swapped.
    assert seen.accepted == right(5, 1.0) + right(3, 1.0) * 3
    assert (len(seen.moves), seen.late, seen.rejected) == (3, 6, [])


def test_frames_without_a_receive_time_are_believed() -> None:
    seen = run([(0.0, None), (1.0, None), (500.0, None), (499.5, None), (3.0, None), (4.0, None)])
    assert seen.accepted == [0.0, 1.0, 500.0, 3.0, 4.0]
    assert (seen.late, len(seen.moves)) == (1, 1)


def test_what_is_left_out_is_said_in_words() -> None:
    guard = StampGuard(SECOND_NS)
    for one in stream(10, 1.0, {}):
        guard.offer(frame(*one))
    assert guard.offer(frame(610.0, 10.0)).accepted == ()
    assert guard.held == 1
    verdict = guard.offer(frame(11.0, 11.0))
    text = "a frame was left out: its stamp 1700000610.000 s is wrong, since the stream went on at 1700000011.000 s"
    assert describe_wrong_stamps(verdict) == text


@given(
    st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(0, 3)), max_size=80),
    st.sampled_from([0.0, 1.0, 3600.0]),
)
def test_every_frame_has_one_fate_whatever_the_stamps(steps: list[tuple[float, float]], tolerance_s: float) -> None:
    guard = StampGuard(round(tolerance_s * SECOND_NS))
    received_s, fates = 0.0, 0
    newest: int | None = None
    for stamp_s, step_s in steps:
        received_s += step_s
        verdict = guard.offer(frame(stamp_s, received_s))
        fates += len(verdict.accepted) + len(verdict.rejected) + verdict.late + verdict.dropped
        if verdict.moved:
            newest = None
        for one in verdict.accepted:
            assert newest is None or one.stamp_ns > newest
            newest = one.stamp_ns
    assert fates + guard.held == len(steps)
