"""The recorder through the engine's door: what of a stream is stored, and that the stream never pays for it."""

from __future__ import annotations

import math
import os
import resource
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from engines import MakeEngine, feed, result
from episode_engines import running, scenes, wait_until
from episodic_data import folder_bytes
from fakes import GRID, PATIENCE_S, SECOND_NS, FakeModel, Gate, frame, pose_at

from fvs_ros.episodic.database import Budget
from fvs_ros.episodic.errors import Problem, StoreError
from fvs_ros.episodic.segment import Appended, PoseSpread
from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.tiny import tiny_checkpoint
from fvs_ros.sources.frame import Frame, Pose
from fvs_ros.stream import episode_keeping
from fvs_ros.stream import recorder as recorder_module
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.pictures import decode_jpeg
from fvs_ros.stream.recorder import Recorder
from fvs_ros.stream.recording import Episodes, RecordingError, RecordingStatus
from fvs_ros.stream.segment_builder import KeysOf, merge_blocks, pose_spread, rows_and_columns
from fvs_ros.stream.types import AskOptions


@pytest.fixture
def store() -> Iterator[EpisodeStore]:
    with EpisodeStore.open(None) as made:
        yield made


@pytest.fixture
def episodes(store: EpisodeStore) -> Episodes:
    return Episodes(store, "front", "house", silence_s=math.inf)


def test_scenes_are_stored_with_their_pictures_places_and_mean_features(
    make_engine: MakeEngine, model: FakeModel, store: EpisodeStore, episodes: Episodes
) -> None:
    engine = make_engine(episodes=episodes)
    for second in range(12):
        feed(engine, frame(second, 40 if second < 6 else 200, frame_id="eye", pose=lambda x=second: pose_at(x)))
    engine.close()
    first, second_one = (stored.segment for stored in store.segments())
    assert (first.start_ns, first.end_ns, first.weight) == (0, 5 * SECOND_NS, 3)
    assert (second_one.start_ns, second_one.end_ns, second_one.weight) == (6 * SECOND_NS, 11 * SECOND_NS, 3)
    assert (first.camera, first.map_id, first.frame_id) == ("front", "house", "eye")
    assert (first.width, first.height) == (14 * GRID.width, 14 * GRID.height)
    assert first.pose == pose_at(first.keyframe_ns // SECOND_NS)
    for stored, value in zip(store.segments(), (40, 200), strict=True):
        picture = decode_jpeg(store.keyframe(stored.id) or b"")
        assert picture is not None
        assert np.abs(picture.astype(int) - value).max() <= 2
        mean = store.features(model.fingerprint(), [stored.id])[stored.id].mean
        assert mean.shape == (2, 2, 3)
        assert merge_blocks(mean).tolist() == [[value] * 3] * 4


def recording(engine: StreamEngine) -> RecordingStatus:
    assert engine.recording is not None
    return engine.recording


def test_a_segment_ends_with_silence_and_the_next_frame_begins_another() -> None:
    with running(None, silence_s=0.02) as (engine, store):
        feed(engine, frame(0, 50), frame(1, 50))
        wait_until(lambda: recording(engine).segments == 1)
        feed(engine, frame(100, 50), frame(101, 50), frame(102, 50))
        wait_until(lambda: recording(engine).segments == 2)
        assert [stored.segment.end_ns for stored in store.segments()] == [SECOND_NS, 101 * SECOND_NS]
        assert store.info().episodes[0].gaps == ()


@pytest.mark.parametrize(("fps", "silence_s", "expected"), [(0.0, 10.0, 10.0), (1.0, 10.0, 10.0), (0.01, 10.0, 800.0)])
def test_at_a_low_rate_silence_is_four_steps(
    fps: float, silence_s: float, expected: float, store: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def made(episodes: Episodes, fingerprint: str, silence_s: float, keys_of: KeysOf) -> Recorder:
        given.append(silence_s)
        return Recorder(episodes, fingerprint, silence_s, keys_of)

    monkeypatch.setattr(episode_keeping, "Recorder", made)
    StreamEngine(FakeModel(), StreamConfig(fps=fps), episodes=Episodes(store, "front", silence_s=silence_s))
    assert given == [expected]


def test_a_frame_without_a_partner_is_not_stored() -> None:
    with running(None) as (engine, store):
        feed(engine, frame(0), frame(1), frame(2))
        engine.save_memory(PATIENCE_S)
        assert [stored.segment.end_ns for stored in store.segments()] == [SECOND_NS]


def test_static_steps_count_as_weight() -> None:
    model = FakeModel()
    with running(None, model, static_tolerance=2.0) as (engine, store):
        for second in range(20):
            feed(engine, frame(second, 50))
        engine.save_memory(PATIENCE_S)
        assert engine.statistics.static_frames > 0
        assert [stored.segment.weight for stored in store.segments()] == [10]


def test_when_the_recorder_is_behind_steps_are_left_out_and_counted_and_frames_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder_module, "MOST_WAITING_STEPS", 3)
    gate = Gate()
    with running(None) as (engine, store):
        append = store.append

        def slow(*values: object) -> Appended:
            gate.go_through()
            return append(*values)  # type: ignore[arg-type]

        monkeypatch.setattr(store, "append", slow)
        gate.shut()
        for second in range(40):
            engine.submit(frame(second, 40 if second < 6 else 200))
            if second % 2:
                wait_until(lambda: engine.statistics.waiting == 0)
            if second == 9:
                gate.wait_reached()
        assert engine.status.steps == 20, "the store did not hold the stream up"
        left_out = recording(engine).unrecorded_steps
        assert 10 <= left_out < 20
        gate.open()
        engine.save_memory(PATIENCE_S)
        assert sum(stored.segment.weight for stored in store.segments()) == 20 - left_out


def test_a_store_that_fails_costs_its_segments_alone_and_goes_on_when_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder_module, "FIRST_PAUSE_S", 0.0)
    with running(None) as (engine, store):
        append = store.append
        full = StoreError(Problem.DISK_FULL, "the disk is full; free some space")

        def fails(*_: object) -> Appended:
            raise full

        monkeypatch.setattr(store, "append", fails)
        scenes(engine)
        assert recording(engine).problem == "the disk is full; free some space"
        assert (recording(engine).unrecorded_steps, recording(engine).segments) == (6, 0)
        assert result(engine.ask("What?")).steps == 9
        monkeypatch.setattr(store, "append", append)
        scenes(engine, 100)
        assert recording(engine).problem == ""
        assert (recording(engine).unrecorded_steps, recording(engine).segments) == (6, 3)


def test_after_a_failure_the_store_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "FIRST_PAUSE_S", 3600.0)
    monkeypatch.setattr(recorder_module, "LONGEST_PAUSE_S", 3600.0)
    with running(None) as (engine, store):
        tried = []

        def fails(*_: object) -> Appended:
            tried.append(1)
            raise StoreError(Problem.DISK_FULL, "full")

        monkeypatch.setattr(store, "append", fails)
        scenes(engine, 0, (1, 200, 3, 200, 5))
        assert len(tried) == 1
        assert recording(engine).unrecorded_steps == 12


def test_a_full_disk_stops_neither_frames_nor_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of the process's files, which SQLite takes for a failing disk."""
    monkeypatch.setattr(recorder_module, "FIRST_PAUSE_S", 0.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with running(tmp_path) as (engine, store):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
            first = 0
            while not recording(engine).problem:
                scenes(engine, first)
                first += 18
                assert first < 18 * 200
            assert "episodes.sqlite" in recording(engine).problem
            assert result(engine.ask("What?")).steps == first // 2
            with pytest.raises(RecordingError, match="disk I/O error"):
                engine.save_memory(PATIENCE_S)
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            scenes(engine, first)
            assert recording(engine).problem == ""
            kept = len(store.segments())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with running(tmp_path) as (engine, store):
        assert len(store.segments()) == kept + 1
        assert store.info().damaged == 0


def test_a_store_that_cannot_be_written_is_restored_from_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as (engine, _):
        scenes(engine)

    def refuse(path: Path, *_: object) -> int:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr("fvs_ros.episodic.folder.os.open", refuse)
    with running(tmp_path) as (engine, store):
        assert engine.status.steps == 9
        assert "open for reading only" in recording(engine).problem
        scenes(engine, 100)
        assert engine.status.steps == 18
        wait_until(lambda: recording(engine).unrecorded_steps == 6)
        assert len(store.segments()) == 3
        engine.load_memory(1, PATIENCE_S)
        assert engine.status.steps == 9
        with pytest.raises(StoreError):
            engine.forget(None, None, None, PATIENCE_S)
        assert engine.status.steps == 9, "it is rebuilt as it was"


def test_a_disk_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    gate.shut()
    with running(None) as (engine, store):
        monkeypatch.setattr(store, "append", lambda *_: gate.go_through())
        feed(engine, frame(0), frame(1))
        assert not engine.close(lambda: True)
        monkeypatch.setattr(recorder_module, "LONGEST_CLOSE_S", 0.0)
        assert not engine.close()
        gate.open()
        wait_until(engine.close)


def test_a_worker_that_takes_over_goes_on_recording() -> None:
    model = FakeModel()
    with running(None, model, model_timeout_s=0.2) as (engine, store):
        feed(engine, frame(0, 9), frame(1, 9))
        model.encoding.shut()
        engine.submit(frame(2, 9))
        model.encoding.wait_reached()
        wait_until(lambda: engine.faults.ingest)
        model.encoding.open()
        feed(engine, frame(3, 9), frame(4, 9))
        engine.save_memory(PATIENCE_S)
        assert sum(stored.segment.weight for stored in store.segments()) == 2


def snapshots(
    model: FlashVStream, episodes: Episodes | None, images: list[np.ndarray]
) -> tuple[list[MemorySnapshot], str]:
    """Every memory of a stream of a real network, and an answer from the last."""
    taken: list[MemorySnapshot] = []
    config = StreamConfig(fps=0, max_pixels=12_544, min_pixels=3_136, prefill_share=0.0)
    with StreamEngine(model, config, episodes=episodes) as engine:
        for second, image in enumerate(images):
            feed(engine, Frame(second * SECOND_NS, partial(np.copy, image)))
            current = engine._latest.current
            assert current is not None
            taken.append(current.snapshot)
        return taken, result(engine.ask("What is it?")).text


def test_memory_and_answers_are_the_same_bit_for_bit_with_and_without_a_recorder(episodes: Episodes) -> None:
    generator = np.random.default_rng(3)
    images = [generator.integers(0, 256, (90, 120, 3), dtype=np.uint8) for _ in range(60)]
    model = FlashVStream(tiny_checkpoint(memory=FlashMemoryConfig(csm_slots=4, dam_slots=2)), "tiny")
    with_one, answer = snapshots(model, episodes, images)
    without, expected = snapshots(model, None, images)
    assert answer == expected
    for one, other in zip(with_one, without, strict=True):
        for name, value in vars(one).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, getattr(other, name)), name
    assert sum(stored.segment.weight for stored in episodes.store.segments()) == 30


def test_features_in_rows_and_columns_go_back_into_merge_blocks() -> None:
    grid = PatchGrid(8, 16)
    low = torch.arange(grid.low_patches * 2, dtype=torch.float32).view(grid.low_patches, 2)
    ordered = rows_and_columns(low, grid)
    assert ordered.shape == (4, 8, 2)
    # The first block of 2 x 2 comes first: right of its first patch, then the row below.
    assert ordered[0, 1].tolist() == low[1].tolist()
    assert ordered[1, 0].tolist() == low[2].tolist()
    assert torch.equal(merge_blocks(ordered).float(), low)
    assert np.isfinite(rows_and_columns(low * 1e6, grid)).all()


def test_a_spread_is_about_the_keyframe_and_in_its_frame() -> None:
    turned = Pose("map", (0.0, 0.0, 0.0), (0.0, 0.0, math.sin(0.5), math.cos(0.5)))
    assert pose_spread(None, [pose_at(1)]) is None
    spread = pose_spread(
        pose_at(0), [pose_at(0), pose_at(2), turned, turned, None, Pose("odom", (9, 9, 9), (0, 0, 0, 1))]
    )
    assert spread is not None
    assert spread.metres == pytest.approx(1.0)
    assert spread.radians == pytest.approx(math.sqrt(0.5))
    assert pose_spread(pose_at(3), [pose_at(3)]) == PoseSpread(0.0, 0.0)


@pytest.mark.parametrize("by", ["deleting", "moving", "replacing"])
def test_a_folder_that_vanishes_is_told_and_stops_neither_frames_nor_answers(by: str, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with running(folder) as (engine, _):
        scenes(engine)
        if by == "deleting":
            shutil.rmtree(folder)
        else:
            folder.rename(tmp_path / "elsewhere")
        if by == "replacing":
            shutil.copytree(tmp_path / "elsewhere", folder)
        others = folder_bytes(folder)
        scenes(engine, 50)
        assert engine.recording is not None
        assert engine.recording.unrecorded_steps > 0
        assert f"{folder / 'episodes.sqlite'} was deleted, moved or replaced" in engine.recording.problem
        for request in (
            lambda: engine.save_memory(PATIENCE_S),
            lambda: engine.forget(0, 5 * SECOND_NS, None, PATIENCE_S),
        ):
            with pytest.raises((StoreError, RecordingError), match="deleted, moved or replaced"):
                request()
        assert result(engine.ask("What?")).steps == 18
    assert folder_bytes(folder) == others, "what another store keeps there is left alone"


def test_a_picture_whose_features_are_too_large_is_stored_without_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As those of a large model at a high resolution are: 3 MB at 1,280 x 720 pixels."""
    with running(None) as (engine, store):
        scenes(engine, 0, (40,))
        engine.save_memory(PATIENCE_S)
        (first,) = store.segments()
        keyframe = store.keyframe(first.id)
        assert keyframe is not None
        monkeypatch.setattr(Budget, "largest_segment", len(keyframe) + 8)
        scenes(engine, 6, (40,))
        engine.save_memory(PATIENCE_S)
        assert engine.recording is not None
        assert (engine.recording.unrecorded_steps, engine.recording.problem) == (0, "")
        assert [stored.segment.weight for stored in store.segments()] == [3, 3]
        assert list(store.features("fake-1", [1, 2])) == [1]
        assert "recorded without its features" in caplog.text
        answer = result(engine.ask("What?", AskOptions(since_ns=6 * SECOND_NS)))
        assert answer.text.startswith("3 steps: 40")
