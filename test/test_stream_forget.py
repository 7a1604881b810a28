"""What was seen is forgotten through the engine: no byte of it is left, in no file and not in the memory."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

import numpy as np
import pytest
import torch
from engines import failure, feed, result
from episode_engines import killed, running, scenes
from episodic_data import folder_bytes
from fakes import PATIENCE_S, SECOND_NS, FakeModel, frame

from fvs_ros.episodic import folder as folder_module
from fvs_ros.episodic.errors import StoreError
from fvs_ros.episodic.store import EpisodeStore, Resume
from fvs_ros.episodic.writer import Writer
from fvs_ros.stream import saved_memory
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.types import AskOptions, ErrorCode

# A stamp of this century, so that its 8 bytes are in no file by chance.
BEGIN = 1_764_240_000
SECRET = 137
VALUES = (40, SECRET, 90)
# The secret scene's first and last stamp.
SINCE_NS, UNTIL_NS = (BEGIN + 6) * SECOND_NS, (BEGIN + 11) * SECOND_NS


def traces(store: EpisodeStore) -> dict[str, bytes]:
    """What is to vanish, by what it is: taken before it does."""
    (secret,) = store.segments(SINCE_NS, UNTIL_NS)
    jpeg = store.keyframe(secret.id)
    assert jpeg is not None
    return {
        "picture": jpeg[-200:],
        "features in the store": np.full(12, SECRET, np.float16).tobytes(),
        "features in the saved memory": np.full(12, SECRET, np.float32).tobytes(),
        "stamp in a row": secret.segment.end_ns.to_bytes(8, "big"),
        "stamp in the saved memory": ((BEGIN + 10) * SECOND_NS).to_bytes(8, "little"),
    }


def found(folder: Path, wanted: dict[str, bytes]) -> set[str]:
    content = folder_bytes(folder)
    return {name for name, trace in wanted.items() if trace in content}


def assert_gone(engine: StreamEngine, steps: int) -> None:
    answer = result(engine.ask("What?"))
    assert f" {SECRET}" not in answer.text
    assert answer.steps == steps
    assert not any(SINCE_NS <= moment.stamp_ns <= UNTIL_NS for moment in answer.moments)


def test_a_range_is_gone_from_the_files_and_from_the_memory(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with running(folder) as (engine, store):
        scenes(engine, BEGIN, VALUES)
        engine.save_memory(PATIENCE_S)
        wanted = traces(store)
        assert found(folder, wanted) == set(wanted)
        episode = engine.status.episode
        assert engine.forget(SINCE_NS, UNTIL_NS, None, PATIENCE_S) == 1
        assert found(folder, wanted) == set()
        assert engine.status.episode > episode, "no answer begins from the memory before"
        assert_gone(engine, 6)
        scenes(engine, BEGIN + 18, (60,))
        assert_gone(engine, 9)
        assert engine.recording is not None
        assert engine.recording.segments == 2
    assert found(folder, wanted) == set()
    with running(folder) as (engine, store):
        assert_gone(engine, 9)
        assert len(store.info().episodes) == 1


def test_what_is_in_the_open_segment_is_forgotten_too(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (engine, store):
        scenes(engine, BEGIN, (40, SECRET))
        feed(engine, frame(BEGIN + 12, SECRET))
        assert len(store.segments()) == 1
        assert engine.forget(SINCE_NS, None, None, PATIENCE_S) == 1
        assert_gone(engine, 3)


@pytest.mark.parametrize("everything", [True, False], ids=["all", "its episode"])
def test_after_everything_is_forgotten_nothing_can_be_asked_until_a_frame_comes(
    everything: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    with running(folder) as (engine, store):
        scenes(engine, BEGIN, VALUES)
        engine.save_memory(PATIENCE_S)
        wanted = traces(store)
        assert engine.forget(None, None, None if everything else store.current_episode, PATIENCE_S) == 3
        assert found(folder, wanted) == set()
        assert failure(engine.ask("What?")).code is ErrorCode.NO_FRAMES
        scenes(engine, BEGIN + 50, (7,))
        assert result(engine.ask("What?")).steps == 3


def test_what_the_memory_does_not_show_leaves_it_as_it_is(tmp_path: Path) -> None:
    model = FakeModel()
    with running(tmp_path / "store", model) as (engine, store):
        scenes(engine, BEGIN, (SECRET,))
        engine.reset()
        scenes(engine, BEGIN + 50, (7, 70))
        version, encoded = engine.status.version, len(model.encoded)
        assert engine.forget(None, None, 1, PATIENCE_S) == 1
        assert engine.forget(None, UNTIL_NS, None, PATIENCE_S) == 0
        assert (engine.status.version, len(model.encoded)) == (version, encoded)
        assert engine.status.steps == 6
        assert [stored.episode for stored in store.segments()] == [2, 2]


def test_a_kill_in_the_middle_only_delays_it_to_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "store"
    left: list[Path] = []
    finish = Writer.finish_forgetting

    def interrupted(writer: Writer) -> None:
        if not left:
            left.append(killed(folder))
        finish(writer)

    with running(folder) as (engine, store):
        scenes(engine, BEGIN, VALUES)
        engine.save_memory(PATIENCE_S)
        wanted = traces(store)
        monkeypatch.setattr(Writer, "finish_forgetting", interrupted)
        engine.forget(SINCE_NS, UNTIL_NS, None, PATIENCE_S)
    before = found(left[0], wanted)
    assert {"picture", "stamp in a row"} <= before
    assert not before & {"features in the saved memory", "stamp in the saved memory"}, "it is deleted first"
    with running(left[0]) as (engine, _):
        assert_gone(engine, 6)
        assert found(left[0], wanted) == set()


@pytest.mark.parametrize("chunks", [1, 3])
def test_no_answer_begins_from_a_range_that_was_made_before(chunks: int, tmp_path: Path) -> None:
    """Such as one that waits for its turn; what it is about may be of another episode, which leaves the memory."""
    model = FakeModel()
    model.chunks_of_a_memory = chunks
    with running(tmp_path / "store", model, parallel_questions=2) as (engine, _):
        scenes(engine, BEGIN, VALUES)
        engine.reset()
        scenes(engine, BEGIN + 50, (7,))
        model.answering.shut()
        plain = [engine.ask("What?") for _ in range(2)]
        model.answering.wait_reached()
        ranged = engine.ask("What?", AskOptions(since_ns=SINCE_NS, until_ns=UNTIL_NS))
        engine.save_memory(PATIENCE_S)
        assert engine.forget(SINCE_NS, UNTIL_NS, None, PATIENCE_S) == 1
        model.answering.open()
        assert [result(pending).steps for pending in plain] == [3, 3]
        error = failure(ranged)
        assert error.code is ErrorCode.CANCELLED
        assert "ask again" in str(error)
        answer = result(engine.ask("What?", AskOptions(since_ns=BEGIN * SECOND_NS, until_ns=(BEGIN + 17) * SECOND_NS)))
        assert answer.steps == 6
        assert f" {SECRET}" not in answer.text


def test_a_memory_that_went_on_with_stamps_of_the_past_forgets_too(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine, BEGIN, VALUES)
    with running(tmp_path / "store", resume=Resume.ALWAYS) as (engine, _):
        scenes(engine, 100, (7,))
        assert engine.status.steps == 12
        assert engine.forget(SINCE_NS, UNTIL_NS, None, PATIENCE_S) == 1
        assert_gone(engine, 9)


def test_what_a_kill_in_the_middle_of_saving_left_is_forgotten_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Safetensors writes a temporary file beside the one that it is told, under a name of its own."""
    folder = tmp_path / "store"
    left: list[Path] = []
    save_file = saved_memory.save_file

    def interrupted(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        save_file(tensors, path.with_name(".tmpK1ll3d"), metadata)
        left.append(killed(folder))
        path.with_name(".tmpK1ll3d").unlink()
        save_file(tensors, path, metadata)

    with running(folder) as (engine, store):
        scenes(engine, BEGIN, VALUES)
        monkeypatch.setattr(saved_memory, "save_file", interrupted)
        engine.save_memory(PATIENCE_S)
        monkeypatch.setattr(saved_memory, "save_file", save_file)
        wanted = traces(store)
    assert "features in the saved memory" in found(left[0], wanted)
    with running(left[0]) as (engine, _):
        engine.forget(SINCE_NS, UNTIL_NS, None, PATIENCE_S)
        assert found(left[0], wanted) == set()


@pytest.mark.parametrize("seen_before", [True, False])
def test_frames_that_wait_for_the_model_are_forgotten_too(seen_before: bool, tmp_path: Path) -> None:
    model = FakeModel()
    with running(tmp_path / "store", model) as (engine, store), ThreadPoolExecutor() as pool:
        scenes(engine, BEGIN, (40,) * seen_before)
        model.encoding.shut()
        engine.submit(frame(BEGIN + 6, 50))
        model.encoding.wait_reached()
        for second in range(7, 12):
            engine.submit(frame(BEGIN + second, SECRET))
        # Of the range, nothing is in memory yet.
        forgetting = pool.submit(engine.forget, (BEGIN + 7) * SECOND_NS, UNTIL_NS, None, PATIENCE_S)
        with pytest.raises(FutureTimeoutError):
            forgetting.result(0.05)
        model.encoding.open()
        forgetting.result(PATIENCE_S)
        engine.submit(frame(BEGIN + 20, 60))
        assert engine.flush(PATIENCE_S)
        assert_gone(engine, 3 * seen_before + 1)
        assert store.segments(SINCE_NS, UNTIL_NS) == []


def test_a_saved_memory_that_cannot_be_deleted_keeps_all_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    with running(tmp_path / "store") as (engine, store):
        scenes(engine, BEGIN, VALUES)
        engine.save_memory(PATIENCE_S)
        version = engine.status.version
        monkeypatch.setattr(folder_module, "delete", refused)
        with pytest.raises(StoreError, match=r"memory\.safetensors cannot be deleted \(Permission denied\)"):
            engine.forget(SINCE_NS, UNTIL_NS, None, PATIENCE_S)
        assert (len(store.segments()), engine.status.version) == (3, version)
