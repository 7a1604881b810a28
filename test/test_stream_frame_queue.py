import threading
from dataclasses import replace
from typing import Any

import pytest
from fakes import PATIENCE_S, SECOND_NS, frame
from hypothesis import given, settings
from hypothesis import strategies as st

from fvs_ros.sources.frame import Frame
from fvs_ros.sources.stamp_guard import ClockMove
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.frame_queue import MOST_WAITING_BYTES, FrameBatch, FrameQueue
from fvs_ros.stream.types import FrameCounters


def make_queue(**settings: Any) -> FrameQueue:
    return FrameQueue(StreamConfig(**{"fps": 0} | settings), threading.Condition(), lambda episode: None)


def assert_adds_up(counters: FrameCounters) -> None:
    fates = counters.skipped + counters.late + counters.dropped + counters.discarded
    assert counters.received == fates + sum(counters.rejected.values()) + counters.ingested + counters.waiting


@settings(deadline=None)
@given(capacity=st.integers(2, 8), count=st.integers(1, 30))
def test_when_the_queue_is_full_the_newest_win(capacity: int, count: int) -> None:
    queue = make_queue(frame_queue=capacity)
    frames = [frame(second) for second in range(count)]
    assert all(queue.offer(one) for one in frames)
    batch = queue.take(100, episode=0)
    assert batch is not None
    assert list(batch.frames) == frames[-capacity:]
    assert queue.counters.dropped == max(0, count - capacity)


events = st.one_of(
    st.tuples(st.just("offer"), st.floats(-3, 3)),
    st.tuples(st.just("offer"), st.floats(0, 1)),
    st.tuples(st.just("take"), st.integers(1, 6)),
    st.tuples(st.just("reset"), st.none()),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("reject"), st.none()),
    st.tuples(st.just("commit"), st.none()),
)


@settings(deadline=None, max_examples=200)
@given(story=st.lists(events, max_size=80), fps=st.sampled_from([0, 1, 2.5]))
def test_every_frame_has_one_fate_and_order_is_kept(story: list[tuple[str, Any]], fps: float) -> None:
    queue = make_queue(frame_queue=3, fps=fps, late_tolerance_s=1.0)
    second = 10.0
    episode = 0
    taken: list[Frame] = []
    pending = 0
    ingested: list[tuple[int, int]] = []
    for kind, value in story:
        if kind == "offer":
            second = max(0.0, second + value)
            queue.offer(frame(second))
        elif kind == "take" and not pending:
            batch = queue.take(value, episode=-1)  # Never waits, since no episode has this number.
            assert batch is not None
            assert len(batch.frames) <= value
            episode, pending, taken = batch.episode, len(batch.frames), list(batch.frames)
        elif kind == "reject" and pending:
            queue.reject("bad")
            taken.pop()
            pending -= 1
        elif kind == "commit" and pending:
            if queue.commit(episode, pending, lambda: None):
                ingested += [(episode, one.stamp_ns) for one in taken]
            pending = 0
        elif kind == "reset":
            queue.new_episode()
        elif kind == "pause":
            queue.pause(value)
        assert_adds_up(queue.counters)
        assert queue.counters.waiting <= 3 + pending
    assert ingested == sorted(set(ingested)), "episodes in order, and stamps in order within each"
    assert queue.counters.ingested == len(ingested)


def test_a_stamp_a_little_behind_is_late_and_one_far_behind_begins_an_episode() -> None:
    resets: list[int] = []
    queue = FrameQueue(StreamConfig(fps=0, late_tolerance_s=1.0), threading.Condition(), resets.append)
    assert queue.offer(frame(10))
    assert not queue.offer(frame(10)), "an equal stamp is a duplicate"
    assert not queue.offer(frame(9)), "exactly the tolerance behind"
    assert queue.counters.late == 2
    assert queue.counters.episodes == 0
    assert queue.offer(frame(8.999))
    assert resets == [], "the memory before it stays until the new episode has one"
    batch = queue.take(8, 0)
    assert batch is not None
    assert (batch.episode, [one.stamp_ns for one in batch.frames]) == (1, [8_999_000_000])
    counters = queue.counters
    assert (counters.episodes, counters.discarded, counters.late, counters.waiting) == (1, 1, 2, 1)


def received(second: float, off_s: float = 0.0) -> Frame:
    """A live frame that arrives at `second`, its stamp off by so much."""
    return replace(frame(second + off_s), received_ns=round(second * SECOND_NS))


def test_a_wrong_stamp_is_counted_and_logged_and_the_episode_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    queue = make_queue()
    for second in range(10, 15):
        assert queue.offer(received(second))
    assert not queue.offer(received(15, off_s=600.0))
    assert queue.counters.waiting == 6, "it is held until the next frame tells"
    assert_adds_up(queue.counters)
    assert queue.offer(received(16))
    counters = queue.counters
    assert (counters.rejected, counters.episodes, counters.clock_move) == ({"wrong_stamp": 1}, 0, None)
    assert counters.wrong_stamp == (
        "a frame was left out: its stamp 615.000 s is wrong, since the stream went on at 16.000 s"
    )
    assert [record.getMessage() for record in caplog.records] == [counters.wrong_stamp]
    assert_adds_up(counters)


def test_a_clock_that_was_set_begins_an_episode_with_the_frames_that_told(caplog: pytest.LogCaptureFixture) -> None:
    queue = make_queue()
    for second in range(100, 110):
        queue.offer(received(second))
    taken = queue.take(100, 0)
    assert taken is not None
    for second in range(110, 117):
        assert not queue.offer(received(second, off_s=-60.0))
    assert queue.offer(received(117, off_s=-60.0))
    assert not queue.commit(taken.episode, 10, lambda: pytest.fail("published the old episode"))
    batch = queue.take(100, 0)
    assert batch is not None
    assert [one.stamp_ns // SECOND_NS for one in batch.frames] == list(range(50, 58))
    assert queue.counters.clock_move == ClockMove(109 * SECOND_NS, 50 * SECOND_NS)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "moved by -59.000 s, from stamp 109.000 s to 50.000 s" in record.getMessage()


def test_a_reset_believes_the_next_stamp_and_lets_go_of_what_is_held() -> None:
    queue = make_queue()
    for second in (10, 11, 12):
        queue.offer(received(second))
    queue.offer(received(13, off_s=600.0))
    queue.new_episode()
    assert queue.offer(received(14, off_s=-5.0))
    counters = queue.counters
    assert (counters.discarded, counters.waiting, counters.episodes) == (4, 1, 0)


def test_a_new_episode_keeps_its_first_frame_and_counts_slots_from_it() -> None:
    queue = make_queue(fps=1.0)
    assert queue.offer(frame(100))
    assert queue.offer(frame(5.5)), "after a jump back"
    queue.new_episode()
    assert queue.offer(frame(5.7)), "after a reset"
    assert not queue.offer(frame(6.5))
    assert queue.offer(frame(6.7))


def test_the_newest_stamp_counts_even_if_its_frame_was_not_kept() -> None:
    queue = make_queue(fps=1.0, late_tolerance_s=0.2)
    queue.offer(frame(10))
    assert not queue.offer(frame(10.5))
    assert not queue.offer(frame(10.4))
    assert (queue.counters.skipped, queue.counters.late) == (1, 1)
    queue.offer(frame(10.2))
    assert queue.counters.episodes == 1


def test_paused_frames_are_skipped_and_begin_no_episode() -> None:
    queue = make_queue()
    queue.offer(frame(10))
    queue.pause(True)
    assert queue.paused
    assert not queue.offer(frame(1))
    queue.pause(False)
    assert queue.offer(frame(11))
    counters = queue.counters
    assert (counters.skipped, counters.episodes, counters.waiting) == (1, 0, 2)


def test_a_batch_of_an_episode_that_is_over_is_not_committed() -> None:
    queue = make_queue()
    queue.offer(frame(1))
    batch = queue.take(8, 0)
    assert batch is not None
    queue.new_episode()
    assert not queue.commit(batch.episode, 1, lambda: pytest.fail("published the old episode"))
    assert (queue.counters.discarded, queue.counters.ingested, queue.counters.waiting) == (1, 0, 0)


def test_accounted_looks_at_earlier_frames_only() -> None:
    queue = make_queue(frame_queue=2)
    queue.offer(frame(1))
    mark = queue.mark()
    assert not queue.accounted(mark)
    batch = queue.take(8, 0)
    assert batch is not None
    queue.offer(frame(2))
    assert not queue.accounted(mark), "a frame in flight is not accounted for"
    queue.commit(0, len(batch.frames), lambda: None)
    assert queue.accounted(mark)
    later = queue.mark()
    assert not queue.accounted(later)
    queue.offer(frame(3))
    queue.offer(frame(4))
    assert queue.accounted(later), "a dropped frame is accounted for"
    assert not queue.wait_accounted(queue.mark(), timeout_s=0.0)


def test_a_closed_queue_discards_and_takes_no_more() -> None:
    queue = make_queue()
    queue.offer(frame(1))
    queue.close()
    assert not queue.offer(frame(2))
    assert queue.take(8, 0) is None
    assert (queue.counters.received, queue.counters.discarded) == (1, 1)
    assert not queue.wait_accounted(queue.mark(), 0.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("fps", -1), ("fps", float("nan")), ("fps", 1e6), ("frame_queue", 1), ("timeout_s", float("inf"))],
)
def test_settings_out_of_range_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        make_queue(**{name: value})


def test_frames_that_are_held_are_taken_together() -> None:
    queue = make_queue()
    taken: list[FrameBatch | None] = []
    taker = threading.Thread(target=lambda: taken.append(queue.take(8, 0)))
    with queue.hold():
        taker.start()
        queue.offer(frame(0))
        queue.offer(frame(1))
        assert not queue.wait_accounted(1, timeout_s=0.05)
        queue.offer(frame(2))
    taker.join(PATIENCE_S)
    (batch,) = taken
    assert batch is not None
    assert [one.stamp_ns for one in batch.frames] == [0, SECOND_NS, 2 * SECOND_NS]


def test_a_queue_that_is_closed_while_frames_are_held_ends() -> None:
    queue = make_queue()
    with queue.hold():
        queue.offer(frame(0))
        queue.close()
        assert queue.take(8, 0) is None


def test_frames_that_hold_much_make_room_for_the_newest_early() -> None:
    queue = make_queue(frame_queue=100)
    large = [frame(second, held_bytes=MOST_WAITING_BYTES // 2) for second in range(3)]
    huge = frame(3, held_bytes=2 * MOST_WAITING_BYTES)
    for one in (frame(-1), *large):
        assert queue.offer(one)
    assert (queue.counters.waiting, queue.counters.dropped) == (2, 2)
    assert queue.offer(huge)
    batch = queue.take(100, episode=0)
    assert batch is not None
    assert batch.frames == (huge,)
    assert queue.counters.dropped == 4


def test_frames_and_requests_take_turns() -> None:
    queue = make_queue()
    for second in range(3):
        queue.offer(frame(second))
    for _ in range(3):
        queue.request(lambda _: None)
    kinds = []
    for _ in range(6):
        batch = queue.take(1, episode=0)
        assert batch is not None
        kinds.append("frames" if batch.frames else "request")
        queue.commit(0, len(batch.frames), lambda: None)
    assert kinds == ["request", "frames"] * 3


def test_an_episode_that_is_to_follow_one_that_is_over_does_not_begin() -> None:
    queue = make_queue()
    assert queue.new_episode(after=0) == 1
    queue.new_episode()
    assert queue.new_episode(after=1) == 1
    batch = queue.take(8, episode=1)
    assert batch is not None
    assert batch.episode == 2
