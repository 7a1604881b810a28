"""An engine on the store of an earlier one: what it knows before a frame comes, and what frames then do."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from engines import failure, result
from episode_engines import killed, running, scenes, wait_until
from fakes import PATIENCE_S, SECOND_NS, FakeModel, frame

from fvs_ros.episodic.information import Opener
from fvs_ros.episodic.store import EpisodeStore, Resume
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.recording import Episodes
from fvs_ros.stream.types import AskOptions, ErrorCode


def test_what_was_seen_before_a_restart_is_answered_before_a_frame_comes(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
        before, status = result(engine.ask("What?")), engine.status
    with running(tmp_path / "store") as (engine, _):
        after = result(engine.ask("What?"))
        assert (after.text, after.moments) == (before.text, before.moments)
        assert (engine.status.start_ns, engine.status.end_ns) == (status.start_ns, status.end_ns)
        assert engine.recording is not None
        assert "episode 1 is back from the saved memory" in engine.recording.resumed


def test_what_was_seen_before_a_kill_is_made_again_from_segments(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
        before = result(engine.ask("What?"))
        left = killed(tmp_path / "store")
    (left / "memory.safetensors").unlink(missing_ok=True)
    with running(left) as (engine, store):
        after = result(engine.ask("What?"))
        assert [stored.segment.weight for stored in store.segments()] == [3, 3]
        assert after.text.startswith("6 steps: 40 40 40 200 200 200")
        assert before.text.startswith("9 steps: 40 40 200 200 200 90 90 90")
        assert after.moments
        assert all(moment.pose is not None for moment in after.moments)
        assert {moment.frame_id for moment in after.moments} == {"eye"}


def test_frames_whose_stamps_go_on_belong_to_the_same_episode_and_the_gap_is_visible(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
        episode = engine.status.episode
    with running(tmp_path / "store") as (engine, store):
        scenes(engine, 100)
        assert (engine.status.episode, engine.status.steps) == (episode, 18)
        assert (engine.status.start_ns, engine.status.end_ns) == (0, 117 * SECOND_NS)
        assert engine.recording is not None
        assert "episode 1 goes on after a gap of 0:01:23" in engine.recording.resumed
        (told,) = store.info().episodes
        assert [(gap.start_ns, gap.end_ns) for gap in told.gaps] == [(17 * SECOND_NS, 100 * SECOND_NS)]


def test_a_stamp_that_lies_before_the_end_begins_a_new_episode_and_a_warning_names_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine, 100)
    caplog.clear()
    with running(tmp_path / "store") as (engine, _):
        before = engine.status
        with engine.hold():
            for second in (7, 8, 9):
                engine.submit(frame(second))
        assert engine.flush(PATIENCE_S)
        assert (engine.status.episode, engine.status.steps) == (before.episode + 1, 2)
        assert (engine.statistics.ingested, engine.statistics.episodes) == (3, 1)
        assert result(engine.ask("What?")).start_ns == 7 * SECOND_NS
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "7.000 s lies before 117.000 s" in warning
    with EpisodeStore.open(tmp_path / "store", read_only=True) as found:
        first, second_one = found.info().episodes
        assert (first.segments, second_one.segments, second_one.start_ns) == (3, 1, 7 * SECOND_NS)
        assert "7.000 s lies before 117.000 s" in second_one.reason


def test_always_goes_on_whatever_the_stamp(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine, 100)
    with running(tmp_path / "store", resume=Resume.ALWAYS) as (engine, _):
        scenes(engine)
        assert engine.status.steps == 18
    with running(tmp_path / "store", resume=Resume.ALWAYS) as (engine, store):
        assert engine.status.steps == 18, "what was stored last comes last, though its stamps do not"
        assert [episode.number for episode in store.info().episodes] == [1]


def test_never_begins_an_empty_memory_and_an_episode(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
    with running(tmp_path / "store", resume=Resume.NEVER) as (engine, store):
        assert engine.status.steps == 0
        scenes(engine, 100)
        assert engine.status.steps == 9
        engine.save_memory(PATIENCE_S)
        assert [(one.number, one.segments) for one in store.info().episodes] == [(1, 3), (2, 3)]


def test_what_was_reset_does_not_come_back(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (engine, store):
        scenes(engine)
        engine.reset()
        wait_until(lambda: len(store.info().episodes) == 2)
    for _ in range(2):
        with running(tmp_path / "store") as (engine, store):
            assert engine.status.steps == 0
            assert [one.reason for one in store.info().episodes] == ["start", "reset"]
            engine.load_memory(1, PATIENCE_S)
            assert engine.status.steps == 9, "it is kept all the same, and can be loaded"
            engine.reset()


def test_what_the_store_says_of_another_camera_is_told(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
    with (
        EpisodeStore.open(tmp_path / "store", opener=Opener("rear")) as store,
        StreamEngine(FakeModel(), StreamConfig(), episodes=Episodes(store, "rear")) as engine,
    ):
        assert engine.recording is not None
        assert "holds segments of front beside those of rear" in engine.recording.problem
        assert engine.recording.notes() == ()


def test_a_reset_before_the_first_frame_ends_what_was_restored(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
    with running(tmp_path / "store") as (engine, store):
        engine.reset()
        scenes(engine, 100, (7,))
        assert engine.status.steps == 3
        assert engine.recording is not None
        assert engine.recording.resumed == ""
        engine.save_memory(PATIENCE_S)
        assert [(one.reason, one.segments) for one in store.info().episodes] == [("start", 3), ("reset", 1)]


def test_a_clock_that_is_set_back_begins_an_episode_of_the_store(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (engine, store):
        scenes(engine, 1_000)
        scenes(engine)
        engine.save_memory(PATIENCE_S)
        first, second = store.info().episodes
        assert (first.start_ns, second.end_ns) == (1_000 * SECOND_NS, 17 * SECOND_NS)
        assert second.reason not in ("", "start", "reset")


def test_another_model_rebuilds_the_memory_from_pictures_and_makes_features_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path / "store") as (engine, store):
        scenes(engine)
        engine.save_memory(PATIENCE_S)
        ids = [stored.id for stored in store.segments()]
    model = FakeModel()
    model.weights = "fake-2"
    with running(tmp_path / "store", model) as (engine, store):
        assert "of the model fake-1, and this one is fake-2" in caplog.text
        assert result(engine.ask("What?")).text.startswith("9 steps: 40 40 200 200 200 90 90 90")
        wait_until(lambda: not store.missing_features("fake-2"))
        wait_until(lambda: engine.recording is not None and not engine.recording.remaking)
        assert set(store.features("fake-2", ids)) == set(store.features("fake-1", ids)) == set(ids)


def test_another_camera_size_rebuilds_the_memory_at_that_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
    model = FakeModel()
    monkeypatch.setattr(model, "frame_grid", lambda *_: PatchGrid(8, 4))
    with running(tmp_path / "store", model) as (engine, _):
        assert engine.status.steps == 9
        scenes(engine, 100, (10,))
        assert engine.status.steps == 12
        text = result(engine.ask("What?", AskOptions(max_new_tokens=20))).text
        assert text == "12 steps: 40 40 200 200 90 90 10 10"
        assert engine.recording is not None
        assert "goes on after a gap of 0:01:23" in engine.recording.resumed
        assert engine.recording.resumed.endswith("made anew for frames of 4 x 8 patches")
        assert "patches, and now come 4 x 8" in caplog.text


def test_an_engine_that_is_closed_while_it_restores_does_not_finish_that_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "store"
    with running(folder) as (engine, _):
        scenes(engine, 0, tuple(range(0, 240, 4)))
    (folder / "memory.safetensors").unlink()
    caplog.clear()
    model = FakeModel()
    model.encoding.shut()
    with EpisodeStore.open(folder, opener=Opener("front", fingerprint=model.fingerprint(), map_id="house")) as store:
        engine = StreamEngine(model, StreamConfig(fps=0), episodes=Episodes(store, "front", "house"))
        engine.start()
        model.encoding.wait_reached()
        asked = engine.ask("What?", AskOptions(since_ns=0))
        with ThreadPoolExecutor() as pool:
            closing = pool.submit(engine.close)
            assert failure(asked).code is ErrorCode.CANCELLED
            model.encoding.open()
            assert closing.result(PATIENCE_S)
        assert len(model.encoded) == 1, "of 15 calls"
    assert caplog.text == ""
    with running(folder) as (engine, _):
        assert engine.status.steps == 180
