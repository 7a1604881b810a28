"""The saved Flash Memory and the segments after it: what of them is used, and what is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from engines import result
from episode_engines import killed, running, scenes
from fakes import PATIENCE_S, SECOND_NS, FakeModel

from fvs_ros.stream import memory_keeper
from fvs_ros.stream.recorder import Recorder
from fvs_ros.stream.saved_memory import read


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def save_after_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_keeper, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(memory_keeper, "SAVING_SHARE", math.inf)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (flip_a_byte, "its hash is wrong"),
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "cannot be read"),
        (lambda path: path.write_bytes(b"mine"), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
    ],
    ids=["flipped", "cut", "foreign", "empty"],
)
def test_a_saved_memory_that_is_damaged_is_told_and_not_used(
    spoil: Callable[[Path], object], words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
    spoil(tmp_path / "store" / "memory.safetensors")
    with running(tmp_path / "store") as (engine, _):
        assert result(engine.ask("What?")).text.startswith("9 steps: 40 40 200 200 200 90 90 90")
        assert engine.recording is not None
        assert "episode 1 is back from 3 of 3 segments" in engine.recording.resumed
    assert words in caplog.text


def test_a_memory_of_other_settings_is_rebuilt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
    with running(tmp_path / "store", FakeModel(csm_slots=4)) as (engine, _):
        assert engine.status.steps == 9
        assert engine.status.csm_slots == 4
    assert "csm_slots 8 where this one has 4" in caplog.text


def test_steps_since_the_memory_was_saved_come_from_segments_and_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is saved after each batch, in the middle of segments too."""
    save_after_each_batch(monkeypatch)
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
        monkeypatch.setattr(memory_keeper.MemoryKeeper, "after_batch", lambda *_: None)
        scenes(engine, 18, (90, 10, 250))
        left = killed(tmp_path / "store")
    with running(left) as (engine, store):
        weights = [stored.segment.weight for stored in store.segments()]
        assert sum(weights) == 15, "the last scene was in the open segment"
        assert engine.status.steps == 15
        assert result(engine.ask("What?")).text.startswith("15 steps: 40")
        assert engine.recording is not None
        assert "from the saved memory and" in engine.recording.resumed


def test_poses_of_another_map_do_not_come_back(tmp_path: Path) -> None:
    for drop_saved in (False, True):
        folder = tmp_path / f"store-{drop_saved}"
        with running(folder, map_id="house") as (engine, _):
            scenes(engine)
        if drop_saved:
            (folder / "memory.safetensors").unlink()
        with running(folder, map_id="garden") as (engine, _):
            moments = result(engine.ask("What?")).moments
            assert {(moment.pose, moment.frame_id) for moment in moments} == {(None, "eye")}


def test_a_restoring_that_fails_leaves_an_empty_memory_and_says_why(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
    (tmp_path / "store" / "memory.safetensors").unlink()
    model = FakeModel()
    model.encode_error = RuntimeError("no luck")
    with running(tmp_path / "store", model) as (engine, store):
        assert engine.status.steps == 0
        assert engine.recording is not None
        assert "episode 1 could not be restored: RuntimeError: no luck" in engine.recording.resumed
        model.encode_error = None
        scenes(engine, 100)
        assert engine.status.steps == 9
        engine.save_memory(PATIENCE_S)
        assert len(store.info().episodes) == 1


def test_a_long_episode_is_thinned_with_its_weights_added_up(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine, 0, tuple(range(10, 250, 20)))
    (tmp_path / "store" / "memory.safetensors").unlink()
    # Two segments for each that it holds apart, of 12; each keyframe stands for both frames of a step.
    model = FakeModel(csm_slots=3, dam_slots=2)
    with running(tmp_path / "store", model) as (engine, _):
        assert sum(map(len, model.encoded)) == 2 * (2 * 3)
        assert engine.status.steps == 36
        assert (engine.status.start_ns, engine.status.end_ns) == (0, 71 * SECOND_NS)


def saved_at(folder: Path) -> int:
    """Distinguishes two savings: each writes a file of its own."""
    return (folder / "memory.safetensors").stat().st_ino


def test_a_memory_that_takes_long_to_save_is_saved_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_keeper, "SAVE_EVERY_S", 0.0)
    for share, again in ((math.inf, True), (1e-9, False)):
        monkeypatch.setattr(memory_keeper, "SAVING_SHARE", share)
        folder = tmp_path / f"store-{share}"
        with running(folder) as (engine, _):
            scenes(engine, 0, (40,))
            # The recorder is idle: the first saving is over, and the next one's time is known.
            first = saved_at(folder)
            kept = (folder / "memory.safetensors").open("rb")
            scenes(engine, 6, (90,))
            assert (saved_at(folder) != first) == again
            kept.close()


def test_a_memory_above_the_bound_is_not_saved_and_comes_back_from_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_keeper, "MOST_BYTES", 1_000)
    monkeypatch.setattr(memory_keeper, "SAVE_EVERY_S", 0.0)
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
        assert "Flash Memory" not in engine.save_memory(PATIENCE_S)
    assert not (tmp_path / "store" / "memory.safetensors").exists()
    with running(tmp_path / "store") as (engine, _):
        assert engine.status.steps == 9


def test_the_memory_of_a_database_that_was_deleted_does_not_come_back(tmp_path: Path) -> None:
    """Not before the first segment of the new one, and not after it."""
    folder = tmp_path / "store"
    with running(folder) as (engine, _):
        scenes(engine)
    old = (folder / "memory.safetensors").read_bytes()
    (folder / "episodes.sqlite").unlink()
    with running(folder) as (engine, _):
        scenes(engine, 50, (7, 70))
        left = killed(folder)
    assert not (left / "memory.safetensors").exists()
    (left / "memory.safetensors").write_bytes(old)
    with running(left) as (engine, _):
        assert (engine.status.steps, engine.status.start_ns) == (3, 50 * SECOND_NS)


def test_steps_after_a_segment_that_was_never_stored_are_not_taken_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is saved with a step of it; the disk then fails until the next scene."""
    save_after_each_batch(monkeypatch)
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
        monkeypatch.setattr(memory_keeper.MemoryKeeper, "after_batch", lambda *_: None)
        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "_attempt", lambda *_: False)
            scenes(engine, 18, (250,))
        scenes(engine, 24, (10, 130))
        left = killed(tmp_path / "store")
    saved, about = read(left / "memory.safetensors")
    assert about.open_steps > 0
    with running(left) as (engine, store):
        assert [stored.segment.weight for stored in store.segments()] == [3, 3, 3, 3]
        assert engine.status.steps == int(saved.tensors["steps"]) + 6


def test_a_store_that_is_read_only_answers_and_keeps_its_saved_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
    saved = tmp_path / "store" / "memory.safetensors"
    before = (saved.stat().st_mtime_ns, saved.read_bytes())
    with running(tmp_path / "store", read_only=True) as (engine, _):
        assert result(engine.ask("What?")).text.startswith("9 steps:")
    assert (saved.stat().st_mtime_ns, saved.read_bytes()) == before
    assert "saved" not in caplog.text
