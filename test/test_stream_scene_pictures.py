"""Pictures of what was seen: with the moments of an answer, and by a stamp."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from engines import MakeEngine, failure, feed, result
from episode_engines import SCENES, scenes
from episode_engines import running as running_engine
from fakes import PATIENCE_S, SECOND_NS, FakeModel, frame, pose_at

from fvs_ros.episodic.segment import Segment
from fvs_ros.episodic.store import EpisodeStore, Resume
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.pictures import LONGEST_SIDE, encode_jpeg
from fvs_ros.stream.recording import RecordingError
from fvs_ros.stream.types import AskError, AskOptions, ErrorCode, Picture
from fvs_ros.stream.watch import WatchEvent, WatchOptions

PICTURED = AskOptions(with_images=True)
# Whatever is watched is true at the first look.
ALWAYS_TRUE: dict[str, Any] = {
    "prefill_share": 1.0,
    "watch_share": 1.0,
    "watch_true_from": 0.0,
    "watch_false_below": 0.0,
}
# All moments of the few scenes here.
running = partial(running_engine, moments_limit=50)


def pixels(picture: Picture | None) -> np.ndarray:
    assert picture is not None
    image = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def shade(picture: Picture | None) -> float:
    """Of a picture of one colour; a JPEG changes it by up to 2."""
    return float(pixels(picture).mean())


def at(engine: StreamEngine, second: float | None) -> Picture | None:
    stamp_ns = None if second is None else round(second * SECOND_NS)
    return engine.keyframe(stamp_ns).result(PATIENCE_S)


def value_at(stamp_ns: int, values: tuple[int, ...] = SCENES) -> int:
    return values[stamp_ns // SECOND_NS // 6]


def test_each_moment_brings_the_picture_of_its_scene_where_it_is_asked_for() -> None:
    with running(None) as (engine, _):
        scenes(engine)
        plain, pictured = result(engine.ask("What?")), result(engine.ask("What?", PICTURED))
    assert {moment.picture for moment in plain.moments} == {None}
    assert {moment.picture for moment in pictured.all_moments} == {None}
    assert [replace(moment, picture=None) for moment in pictured.moments] == list(plain.moments)
    assert len({value_at(moment.stamp_ns) for moment in pictured.moments}) == len(SCENES)
    for moment in pictured.moments:
        assert shade(moment.picture) == pytest.approx(value_at(moment.stamp_ns), abs=2)
        assert moment.picture is not None
        assert value_at(moment.picture.stamp_ns) == value_at(moment.stamp_ns)
        assert moment.picture.frame_id == "eye"
        assert moment.picture.pose == pose_at(moment.picture.stamp_ns / SECOND_NS)


def test_a_change_of_what_is_watched_brings_pictures_where_they_are_asked_for() -> None:
    events: dict[bool, list[WatchEvent]] = {True: [], False: []}
    with running(None, **ALWAYS_TRUE) as (engine, _):
        scenes(engine)
        watches = [
            engine.watches.add("it rains", WatchOptions(once=True, with_images=pictured), events[pictured].append)
            for pictured in events
        ]
        for watch in watches:
            assert watch.result(PATIENCE_S).error is None
    plain, pictured = events[False][0], events[True][0]
    assert {moment.picture for moment in plain.moments} == {None}
    assert [replace(moment, picture=None) for moment in pictured.moments] == list(plain.moments)
    for moment in pictured.moments:
        assert shade(moment.picture) == pytest.approx(value_at(moment.stamp_ns), abs=2)


def test_a_disk_that_hangs_costs_the_pictures_and_not_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    free, events = threading.Event(), list[WatchEvent]()

    def hangs(*_: object) -> None:
        free.wait(PATIENCE_S)

    with running(None, **ALWAYS_TRUE) as (
        engine,
        store,
    ):
        scenes(engine)
        engine.save_memory(PATIENCE_S)
        monkeypatch.setattr(store, "keyframe", hangs)
        try:
            watch = engine.watches.add("it rains", WatchOptions(once=True, with_images=True), events.append)
            assert watch.result(PATIENCE_S).error is None
        finally:
            free.set()
    assert [{moment.picture for moment in event.moments} for event in events] == [{None}]


def test_the_newest_frame_has_its_picture_although_its_step_is_not_complete() -> None:
    with running(None) as (engine, _):
        scenes(engine)
        feed(engine, frame(18, SCENES[-1], frame_id="eye"))
        answer = result(engine.ask("What?", PICTURED))
    newest = max(answer.moments, key=lambda moment: moment.stamp_ns)
    assert newest.stamp_ns == 18 * SECOND_NS
    assert newest.picture is not None
    assert newest.picture.stamp_ns == 17 * SECOND_NS, "the newest that is kept"


def test_a_restarted_engine_gives_the_pictures_of_what_it_saw_before(tmp_path: Path) -> None:
    with running(tmp_path) as (engine, _):
        scenes(engine)
        before = result(engine.ask("What?", PICTURED))
    with running(tmp_path) as (engine, _):
        after = result(engine.ask("What?", PICTURED))
    assert [value_at(moment.stamp_ns) for moment in after.moments] == [value_at(one.stamp_ns) for one in before.moments]
    for moment in after.moments:
        assert shade(moment.picture) == pytest.approx(value_at(moment.stamp_ns), abs=2)


@pytest.mark.parametrize(
    ("second", "value"),
    [(0, 40), (5, 40), (6.5, 200), (11, 200), (12, 90), (17, 90), (-100, 40), (100, 90), (None, 90)],
)
def test_a_stamp_gives_the_picture_of_the_scene_in_view_then_or_of_the_nearest(
    second: float | None, value: int
) -> None:
    with running(None) as (engine, _):
        scenes(engine)
        for kept in ("open", "stored"):
            picture = at(engine, second)
            assert picture is not None
            assert shade(picture) == pytest.approx(value, abs=2), kept
            assert value_at(picture.stamp_ns) == value
            assert (picture.frame_id, picture.pose) == ("eye", pose_at(picture.stamp_ns / SECOND_NS))
            engine.save_memory(PATIENCE_S)


def test_of_the_scene_in_view_the_nearest_of_its_pictures_is_given() -> None:
    with running(None) as (engine, _):
        scenes(engine, 0, (40,))
        newest = at(engine, None)
        assert newest is not None
        assert newest.stamp_ns == 5 * SECOND_NS
        # Of each step the last frame's is kept, for its first one too.
        for second, taken in ((0, 1), (1, 1), (2, 3), (4, 5), (5, 5)):
            picture = at(engine, second)
            assert picture is not None
            assert picture.stamp_ns == taken * SECOND_NS


def test_of_stamps_that_two_episodes_share_the_running_one_counts(tmp_path: Path) -> None:
    with running(tmp_path) as (engine, _):
        scenes(engine, 0, (40, 200))
    with running(tmp_path, resume=Resume.NEVER) as (engine, _):
        assert shade(at(engine, 1)) == pytest.approx(40, abs=2)
        scenes(engine, 0, (90, 160))
        engine.save_memory(PATIENCE_S)
        assert shade(at(engine, 1)) == pytest.approx(90, abs=2)
        scenes(engine, 12, (20,))
        engine.save_memory(PATIENCE_S)
        engine.load_memory(1, PATIENCE_S)
        assert shade(at(engine, 1)) == pytest.approx(40, abs=2)


def test_what_was_forgotten_has_no_picture() -> None:
    with running(None) as (engine, _):
        scenes(engine)
        held = result(engine.ask("What?")).moments
        engine.forget(6 * SECOND_NS, 11 * SECOND_NS, None, PATIENCE_S)
        assert {value_at(moment.stamp_ns) for moment in held} == set(SCENES)
        assert shade(at(engine, 8)) != pytest.approx(200, abs=20), "the nearest that is left"
        answer = result(engine.ask("What?", PICTURED))
        assert answer.moments
        assert all(shade(moment.picture) != pytest.approx(200, abs=20) for moment in answer.moments)


def test_a_moment_whose_scene_is_gone_has_none_rather_than_anothers() -> None:
    model = FakeModel()
    with running(None, model) as (engine, store):
        scenes(engine)
        engine.save_memory(PATIENCE_S)
        store.forget(6 * SECOND_NS, 11 * SECOND_NS)
        pictured = {value_at(one.stamp_ns): one.picture for one in result(engine.ask("What?", PICTURED)).moments}
    assert pictured[200] is None
    assert pictured[40] is not None


def test_without_anything_kept_there_is_no_picture_and_without_a_store_a_refusal(make_engine: MakeEngine) -> None:
    with running(None) as (engine, _):
        assert at(engine, None) is None
        assert at(engine, 3) is None
    with pytest.raises(RecordingError, match="closed"):
        at(engine, 3)
    plain = make_engine()
    feed(plain, frame(0), frame(1))
    with pytest.raises(RecordingError, match="memory_dir"):
        plain.keyframe(None)
    error = failure(plain.ask("What?", PICTURED))
    assert error.code == ErrorCode.INVALID_QUESTION
    assert "memory_dir" in str(error)
    with pytest.raises(AskError, match="with_images needs stored segments"):
        plain.watches.add("it rains", WatchOptions(with_images=True))


def test_a_disk_that_hangs_costs_the_pictures_and_not_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()

    def hangs(*_: object) -> None:
        free.wait(PATIENCE_S)

    with running(None) as (engine, store):
        scenes(engine)
        engine.save_memory(PATIENCE_S)
        monkeypatch.setattr(store, "keyframe", hangs)
        try:
            answer = result(engine.ask("What?", replace(PICTURED, timeout_s=1.0)))
        finally:
            free.set()
    assert answer.moments
    assert {moment.picture for moment in answer.moments} == {None}


def test_a_store_that_fails_costs_the_pictures_and_not_the_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise OSError("the disk is gone")

    with running(None) as (engine, store):
        scenes(engine)
        engine.save_memory(PATIENCE_S)
        monkeypatch.setattr(store, "keyframe", fails)
        answer = result(engine.ask("What?", PICTURED))
    assert {moment.picture for moment in answer.moments} == {None}
    assert "without pictures: the disk is gone" in caplog.text


def test_a_picture_larger_than_people_need_is_made_smaller() -> None:
    wide = np.zeros((84, 2 * LONGEST_SIDE, 3), np.uint8)
    wide[:, LONGEST_SIDE:] = 255
    with running(None) as (engine, store):
        segment = Segment(0, 5 * SECOND_NS, 3, 2 * SECOND_NS, "front", wide.shape[1], wide.shape[0])
        store.append(segment, encode_jpeg(wide))
        given = pixels(at(engine, 1))
        assert given.shape == (42, LONGEST_SIDE, 3)
        assert given[:, :300].max() < 10
        assert given[:, -300:].min() > 245
        store.append(replace(segment, start_ns=6 * SECOND_NS, keyframe_ns=6 * SECOND_NS, end_ns=6 * SECOND_NS), b"")
        assert at(engine, 6) is None, "one that cannot be read is none"


class WideModel(FakeModel):
    """Sees pictures that are longer than people need."""

    def frame_grid(self, height: int, width: int, min_pixels: int, max_pixels: int) -> PatchGrid:
        return PatchGrid(4, 64)


def test_so_is_one_of_the_scene_in_view() -> None:
    with running(None, WideModel()) as (engine, _):
        feed(engine, frame(0, 40), frame(1, 40))
        assert pixels(at(engine, None)).shape == (40, LONGEST_SIDE, 3)


def test_the_store_gives_the_nearest_segment_of_all_its_episodes() -> None:
    with EpisodeStore.open(None) as store:
        assert store.nearest(5) is None
        assert store.nearest(None) is None
        ids = [store.append(Segment(start, start + 2, 1, start, "front", 8, 8), b"x").id for start in (10, 20, 30)]
        for stamp, expected in ((0, 0), (10, 0), (12, 0), (15, 0), (17, 1), (31, 2), (10**18, 2), (-(10**18), 0)):
            nearest = store.nearest(stamp)
            assert nearest is not None
            assert nearest.id == ids[expected], stamp
        newest = store.nearest(None)
        assert newest is not None
        assert newest.id == ids[-1]
