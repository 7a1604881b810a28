"""Questions about a range of stamps: what they are answered from, beside the newest memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from engines import MakeEngine, failure, feed, result
from fakes import PATIENCE_S, SECOND_NS, FakeModel, frame, pose_at

from fvs_ros.episodic.information import Opener
from fvs_ros.episodic.segment import Segment
from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.sources.frame import Area
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.recording import Episodes
from fvs_ros.stream.restore import within
from fvs_ros.stream.types import AskOptions, ErrorCode

SCENES = (40, 200, 90, 160)


@pytest.fixture
def store(model: FakeModel) -> Iterator[EpisodeStore]:
    with EpisodeStore.open(None, opener=Opener("front", fingerprint=model.fingerprint())) as made:
        yield made


@pytest.fixture
def engine(make_engine: MakeEngine, store: EpisodeStore) -> Iterator[StreamEngine]:
    """Has seen four scenes of six seconds each, the last of which is still open."""
    made = make_engine(episodes=Episodes(store, "front", silence_s=math.inf))
    for place, value in enumerate(SCENES):
        for second in range(6 * place, 6 * place + 6):
            feed(made, frame(second, value, frame_id="eye", pose=lambda x=second: pose_at(x)))
    yield made
    made.close()


def between(since_s: float | None, until_s: float | None, fresh: bool = False) -> AskOptions:
    since_ns = None if since_s is None else round(since_s * SECOND_NS)
    until_ns = None if until_s is None else round(until_s * SECOND_NS)
    return AskOptions(since_ns=since_ns, until_ns=until_ns, fresh=fresh)


def colours(text: str) -> list[float]:
    """Of the fake's answer; a JPEG changes them by up to 2."""
    return [float(word) for word in text.split(":")[1].split()]


@pytest.mark.parametrize(
    ("since_s", "until_s", "steps", "expected"),
    [
        (6, 11, 3, [200]),
        (6, 17, 6, [200, 90]),
        (None, 5, 3, [40]),
        (12, None, 6, [90, 160]),
        # A part of a scene: its third step alone; and a moment within a step.
        (10, 11, 1, [200]),
        (8.5, 8.5, 1, [200]),
        (18, 23, 3, [160]),
    ],
)
def test_a_question_about_a_range_is_answered_from_what_was_seen_in_it(
    engine: StreamEngine, since_s: float | None, until_s: float | None, steps: int, expected: list[float]
) -> None:
    answer = result(engine.ask("What?", between(since_s, until_s)))
    assert answer.steps == steps
    assert answer.text.startswith(f"{steps} steps:")
    assert sorted(set(colours(answer.text))) == pytest.approx(sorted(expected), abs=2)
    first_ns = round((0 if since_s is None else since_s) * SECOND_NS)
    last_ns = round((23 if until_s is None else until_s) * SECOND_NS)
    assert (answer.start_ns, answer.end_ns) == (first_ns, last_ns)
    assert answer.memory_version == 0
    assert answer.moments
    for moment in answer.moments:
        assert first_ns <= min(moment.start_ns, moment.stamp_ns)
        assert max(moment.end_ns, moment.stamp_ns) <= last_ns
        assert moment.frame_id == "eye"
        assert moment.pose is not None


def test_the_newest_memory_and_the_store_stay_as_they_are(engine: StreamEngine, store: EpisodeStore) -> None:
    before, status, stored = result(engine.ask("What?")), engine.status, store.segments()
    assert result(engine.ask("What?", between(6, 11))).steps == 3
    assert result(engine.ask("What?", between(20, None))).steps == 2
    assert engine.status == status
    assert store.segments() == stored, "asking must not end the open segment"
    after = result(engine.ask("What?"))
    assert (after.text, after.memory_version, after.moments) == (before.text, before.memory_version, before.moments)


def test_a_range_without_anything_is_refused_with_what_is_stored(engine: StreamEngine) -> None:
    error = failure(engine.ask("What?", between(100, 200)))
    assert error.code == ErrorCode.NO_FRAMES
    assert "between 100.000 s and 200.000 s" in str(error)
    assert "between 0.000 s and 23.000 s" in str(error)


def test_a_range_that_ends_before_it_begins_is_refused(engine: StreamEngine) -> None:
    error = failure(engine.ask("What?", between(11, 6)))
    assert error.code == ErrorCode.INVALID_QUESTION
    assert "11000000000" in str(error)
    assert "6000000000" in str(error)


def near(x: float, radius_m: float, frame_id: str = "map", y: float = 0.0) -> AskOptions:
    return AskOptions(near=Area(frame_id, x, y, radius_m))


@pytest.mark.parametrize(
    ("options", "steps", "expected"),
    [
        # Of each scene the picture's place counts, where the whole of it is taken to be seen from.
        (near(7, 3), 3, [200]),
        (near(7, 1.5, y=1.0), 3, [200]),
        (near(10, 5), 6, [200, 90]),
        (near(21, 4), 3, [160]),
        (near(10, 100), 12, [40, 200, 90, 160]),
        (replace(near(10, 5), since_ns=12 * SECOND_NS), 3, [90]),
        (replace(near(10, 5), until_ns=9 * SECOND_NS), 2, [200]),
    ],
)
def test_a_question_about_a_place_is_answered_from_what_was_seen_from_there(
    engine: StreamEngine, options: AskOptions, steps: int, expected: list[float]
) -> None:
    answer = result(engine.ask("What?", options))
    assert answer.steps == steps
    assert sorted(set(colours(answer.text))) == pytest.approx(sorted(expected), abs=2)
    assert answer.memory_version == 0
    assert options.near is not None
    for moment in answer.all_moments:
        assert options.near.holds(moment.pose)


@pytest.mark.parametrize(
    ("options", "hints"),
    [
        (near(100, 2), ["within 2 m of (100, 0) in map", "seen from 81.00 m away"]),
        (near(7, 2, "odom"), ["in odom", "its poses are in map"]),
        (replace(near(7, 2), since_ns=100 * SECOND_NS), ["between 100.000 s and now"]),
    ],
)
def test_where_nothing_was_seen_from_a_place_the_refusal_says_what_there_is(
    engine: StreamEngine, options: AskOptions, hints: list[str]
) -> None:
    error = failure(engine.ask("What?", options))
    assert error.code == ErrorCode.NO_FRAMES
    for hint in hints:
        assert hint in str(error)


def test_what_was_seen_without_a_pose_or_in_another_map_is_not_near(
    make_engine: MakeEngine, model: FakeModel, tmp_path: Path
) -> None:
    for map_id, value in (("ground floor", 40), ("first floor", 200)):
        opener = Opener("front", fingerprint=model.fingerprint(), map_id=map_id)
        with EpisodeStore.open(tmp_path, opener=opener) as store:
            engine = make_engine(episodes=Episodes(store, "front", map_id, silence_s=math.inf))
            first = 0 if value == 40 else 100
            for second in range(first, first + 6):
                feed(engine, frame(second, value, pose=lambda: pose_at(1.0)))
            for second in range(first + 6, first + 12):
                feed(engine, frame(second, value + 30))
            answer = result(engine.ask("What?", near(1, 1)))
            assert colours(answer.text) == pytest.approx([value] * 3, abs=2)
            assert answer.steps == 3
            assert failure(engine.ask("What?", replace(near(1, 1), since_ns=(first + 6) * SECOND_NS)))
            engine.close()


@pytest.mark.parametrize(
    ("area", "hint"),
    [
        (Area("map", 1.0, 2.0, 0.0), "radius_m is 0.0"),
        (Area("map", 1.0, 2.0, -1.0), "radius_m is -1.0"),
        (Area("map", 1.0, 2.0, math.nan), "radius_m is nan"),
        (Area("map", math.inf, 2.0, 1.0), "near is (inf, 2.0)"),
        (Area("", 1.0, 2.0, 1.0), "frame_id"),
    ],
)
def test_an_area_that_is_none_is_refused(engine: StreamEngine, area: Area, hint: str) -> None:
    error = failure(engine.ask("What?", AskOptions(near=area)))
    assert error.code == ErrorCode.INVALID_QUESTION
    assert hint in str(error)


def test_an_engine_without_a_store_refuses(make_engine: MakeEngine) -> None:
    engine = make_engine()
    feed(engine, frame(0), frame(1))
    error = failure(engine.ask("What?", between(0, 1)))
    assert error.code == ErrorCode.INVALID_QUESTION
    assert "memory_dir" in str(error)


def test_a_fresh_question_includes_the_frames_before_it(engine: StreamEngine) -> None:
    with engine.hold():
        for second in range(24, 30):
            engine.submit(frame(second, 250))
        pending = engine.ask("What?", between(24, None, fresh=True))
        assert not pending.done()
    answer = result(pending)
    assert (answer.steps, answer.end_ns) == (3, 29 * SECOND_NS)


def test_earlier_episodes_and_runs_are_in_the_range(tmp_path: Path, make_engine: MakeEngine, model: FakeModel) -> None:
    for run, value in enumerate((40, 200)):
        with EpisodeStore.open(tmp_path, opener=Opener("front", fingerprint=model.fingerprint())) as store:
            engine = make_engine(episodes=Episodes(store, "front", silence_s=math.inf))
            for second in range(10 * run, 10 * run + 6):
                feed(engine, frame(second, value))
            if run:
                engine.reset()
                feed(engine, *(frame(second, 90) for second in range(20, 26)))
                answer = result(engine.ask("What?", between(None, 25)))
            engine.close()
    assert answer.steps == 9
    assert sorted(set(colours(answer.text))) == pytest.approx([40, 90, 200], abs=2)


def test_what_was_seen_before_the_clock_was_set_back_can_still_be_asked_about(
    make_engine: MakeEngine, store: EpisodeStore
) -> None:
    engine = make_engine(episodes=Episodes(store, "front", silence_s=math.inf))
    feed(engine, *(frame(second, 40) for second in range(1_000, 1_006)))
    feed(engine, *(frame(second, 200) for second in range(6)))
    assert engine.statistics.episodes == 1
    assert result(engine.ask("What?")).steps == 3
    before = result(engine.ask("What?", between(1_000, None)))
    assert (before.steps, before.start_ns) == (3, 1_000 * SECOND_NS)
    assert colours(before.text) == pytest.approx([40] * 3, abs=2)
    engine.close()


def test_a_long_range_is_made_of_as_many_segments_as_the_memory_keeps_apart(
    make_engine: MakeEngine, store: EpisodeStore, model: FakeModel
) -> None:
    engine = make_engine(episodes=Episodes(store, "front", silence_s=math.inf))
    for place in range(40):
        for second in range(4 * place, 4 * place + 4):
            feed(engine, frame(second, 6 * place))
    encoded = len(model.encoded)
    answer = result(engine.ask("What?", between(0, None)))
    assert answer.steps == 80, "all steps count, though not each is encoded"
    pictures = sum(len(frames) for frames in model.encoded[encoded:]) // 2
    assert pictures == model.memory_config.csm_slots
    assert (answer.start_ns, answer.end_ns) == (0, 159 * SECOND_NS)


def test_several_are_answered_while_others_go_on(engine: StreamEngine, model: FakeModel) -> None:
    model.chunks_of_a_memory = 3
    model.answering.shut()
    plain = engine.ask("What?")
    model.answering.wait_reached()
    ranged = [engine.ask("What?", between(6 * place, 6 * place + 5)) for place in range(4)]
    model.answering.open()
    assert result(plain).steps == 12
    for pending, value in zip(ranged, SCENES, strict=True):
        assert colours(result(pending).text) == pytest.approx([value] * 3, abs=2)


def test_one_that_is_cancelled_while_it_is_prefilled_frees_its_buffer(engine: StreamEngine, model: FakeModel) -> None:
    result(engine.ask("What?"))
    model.prefilling.shut()
    pending = engine.ask("What?", between(6, 11))
    model.prefilling.wait_reached()
    assert pending.cancel()
    model.prefilling.open()
    assert failure(pending).code == ErrorCode.CANCELLED
    assert result(engine.ask("What?", between(12, 17))).steps == 3


def test_a_model_that_fails_on_it_fails_that_question_alone(engine: StreamEngine, model: FakeModel) -> None:
    result(engine.ask("What?"))
    model.prefill_error = RuntimeError("no kernel")
    assert failure(engine.ask("What?", between(6, 11))).code == ErrorCode.MODEL_ERROR
    model.prefill_error = None
    model.encode_error = RuntimeError("no kernel")
    error = failure(engine.ask("What?", between(6, 11)))
    model.encode_error = None
    assert error.code == ErrorCode.MODEL_ERROR
    assert result(engine.ask("What?")).steps == 12
    assert result(engine.ask("What?", between(6, 11))).steps == 3


def test_its_buffers_are_freed_when_nobody_needs_them(engine: StreamEngine, model: FakeModel) -> None:
    result(engine.ask("What?"))
    assert len(model.caches) == 1
    ended = threading.Event()
    pending = engine.ask("What?", between(6, 11))
    pending.add_done_callback(lambda _: ended.set())
    assert ended.wait(PATIENCE_S)
    # Questions are answered in turns: with the next, the turn that ended the first is over.
    result(engine.ask("What?"))
    assert [cache.closed for cache in model.caches] == [False, True]


def test_a_part_of_a_segment_keeps_its_share() -> None:
    whole = Segment(10, 30, 10, 12, "front", 8, 8)
    assert within(whole, None, None) == whole
    part = within(whole, 20, 25)
    assert part is not None
    assert (part.start_ns, part.end_ns, part.keyframe_ns, part.weight) == (20, 25, 20, 2)
    single = within(whole, 30, 99)
    assert single is not None
    assert (single.start_ns, single.end_ns, single.weight) == (30, 30, 1)
    assert within(whole, 31, 99) is None
    assert within(whole, None, 9) is None


def test_ranges_that_nobody_waits_for_any_more_cost_nothing(make_engine: MakeEngine, model: FakeModel) -> None:
    """Neither those that were cancelled in the queue, nor those that found it full."""
    with EpisodeStore.open(None, opener=Opener("front", fingerprint=model.fingerprint())) as store:
        engine = make_engine(episodes=Episodes(store, "front", silence_s=math.inf), question_queue=4)
        feed(engine, *(frame(second, 40) for second in range(6)))
        model.encoding.shut()
        engine.submit(frame(6))
        model.encoding.wait_reached()
        encoded = len(model.encoded)
        asked = [engine.ask("What?", between(0, 5)) for _ in range(20)]
        assert [failure(pending).code for pending in asked[4:]] == [ErrorCode.BUSY] * 16
        assert all(pending.cancel() for pending in asked[:4])
        model.encoding.open()
        engine.save_memory(PATIENCE_S)
        assert len(model.encoded) == encoded
        engine.close()


def test_frames_come_into_memory_between_two_ranges(engine: StreamEngine, model: FakeModel) -> None:
    model.encoding.shut()
    engine.submit(frame(24, 111))
    model.encoding.wait_reached()
    encoded = len(model.encoded)
    asked = [engine.ask("What?", between(6, 11)) for _ in range(3)]
    for second, value in ((25, 121), (26, 131)):
        engine.submit(frame(second, value))
    model.encoding.open()
    for pending in asked:
        assert result(pending).steps == 3
    first, second_one, *_ = model.encoded[encoded:]
    assert first[0] == pytest.approx(200, abs=2)
    assert second_one == [111, 121, 131, 131]
