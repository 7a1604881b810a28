from itertools import pairwise

import pytest
from fakes import SECOND_NS, frame
from hypothesis import given, settings
from hypothesis import strategies as st

from fvs_ros.sources.sampling import NearestSampler, RatePolicy, nearest_frames


def kept_stamps(fps: float, stamps: list[int]) -> list[int]:
    policy = RatePolicy(fps)
    return [stamp for stamp in stamps if policy.keep(stamp)]


def test_a_30_hz_camera_is_kept_at_exactly_one_frame_a_second() -> None:
    kept = kept_stamps(1.0, [round(index * SECOND_NS / 30) for index in range(30 * 3600)])
    # The second frame is taken a tenth of a period early; from there on the spacing is the period, always.
    assert kept[:2] == [0, 9 * SECOND_NS // 10]
    assert {later - earlier for earlier, later in pairwise(kept[1:])} == {SECOND_NS}


@settings(deadline=None)
@given(
    jitter=st.lists(st.floats(-0.049, 0.049), min_size=2, max_size=200),
    start_ns=st.integers(0, 2_000_000_000 * SECOND_NS),
)
def test_a_camera_at_the_kept_rate_loses_no_frame_to_jitter(jitter: list[float], start_ns: int) -> None:
    stamps = [start_ns + round((index + shift) * SECOND_NS) for index, shift in enumerate(jitter, 1)]
    assert kept_stamps(1.0, stamps) == stamps


@settings(deadline=None)
@given(
    fps=st.floats(0.1, 30),
    gaps=st.lists(st.integers(1, 3 * SECOND_NS), min_size=1, max_size=300),
)
def test_no_more_frames_are_kept_than_slots_have_begun(fps: float, gaps: list[int]) -> None:
    stamps = [SECOND_NS]
    for gap in gaps:
        stamps.append(stamps[-1] + gap)
    kept = kept_stamps(fps, stamps)
    assert kept[0] == stamps[0]
    elapsed = (stamps[-1] - stamps[0]) / SECOND_NS
    assert len(kept) <= elapsed * fps + 1.1 + 1e-6
    # A frame that is a period or more after the last kept one is always due.
    period_ns = SECOND_NS / fps
    for stamp in set(stamps) - set(kept):
        last = max(earlier for earlier in kept if earlier < stamp)
        assert stamp - last < period_ns * 1.1 + 1


@settings(deadline=None)
@given(stamps=st.lists(st.integers(0, 10**15), unique=True).map(sorted))
def test_fps_0_keeps_every_frame(stamps: list[int]) -> None:
    assert kept_stamps(0, stamps) == stamps


def test_slots_are_anchored_anew_after_a_restart() -> None:
    policy = RatePolicy(1.0)
    assert policy.keep(100 * SECOND_NS)
    policy.restart()
    assert policy.keep(5 * SECOND_NS)
    assert not policy.keep(5 * SECOND_NS + SECOND_NS // 2)
    assert policy.keep(6 * SECOND_NS)


def nearest(fps: float, seconds: list[float]) -> list[float]:
    return [picked.stamp_ns / SECOND_NS for picked in nearest_frames(map(frame, seconds), fps)]


def test_the_frame_nearest_to_each_second_is_picked() -> None:
    assert nearest(1.0, [5.0, 5.6, 6.1, 6.9, 8.3]) == [5.0, 6.1, 6.9, 8.3]


def test_of_two_equally_near_frames_the_earlier_one_is_picked() -> None:
    assert nearest(1.0, [0.0, 0.5, 1.5, 2.0]) == [0.0, 0.5, 2.0]


def test_frames_of_a_slow_recording_are_picked_again() -> None:
    assert nearest(2.0, [0.0, 1.5, 3.0]) == [0.0, 0.0, 1.5, 1.5, 1.5, 3.0, 3.0]


def test_a_last_frame_whose_position_was_rounded_down_counts() -> None:
    assert nearest(1.0, [0.0, 0.5, 0.9995]) == [0.0, 0.9995]
    assert nearest(1.0, [0.0, 0.5, 0.9985]) == [0.0]


def test_without_frames_there_are_no_picks() -> None:
    assert nearest(1.0, []) == []


@settings(deadline=None)
@given(
    fps=st.floats(0.2, 20),
    gaps=st.lists(st.integers(5_000_000, 2 * SECOND_NS), min_size=1, max_size=60),
)
def test_no_frame_is_nearer_than_the_one_picked(fps: float, gaps: list[int]) -> None:
    stamps = [7 * SECOND_NS]
    for gap in gaps:
        stamps.append(stamps[-1] + gap)
    sampler = NearestSampler(fps)
    picked = [pick.stamp_ns for stamp in stamps for pick in sampler.add(frame(stamp / SECOND_NS))]
    for index, stamp in enumerate(picked):
        due_ns = stamps[0] + index / fps * SECOND_NS
        assert abs(stamp - due_ns) <= min(abs(other - due_ns) for other in stamps) + 1_000_000
    assert len(picked) == pytest.approx((stamps[-1] - stamps[0]) / SECOND_NS * fps + 0.5, abs=0.6)
