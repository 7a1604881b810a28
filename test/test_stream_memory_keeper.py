"""Saving, loading and forgetting through the engine, while it runs."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from engines import feed
from episode_engines import running, scenes
from fakes import PATIENCE_S, FakeModel, frame

from fvs_ros.episodic.errors import StoreError
from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.recording import RecordingError


def test_a_store_in_ram_saves_nothing_and_loads_its_episodes(tmp_path: Path) -> None:
    with running(None) as (engine, store):
        scenes(engine)
        assert "in RAM" in engine.save_memory(PATIENCE_S)
        engine.reset()
        scenes(engine, 50, (7,))
        assert engine.status.steps == 3
        assert "episode 1" in engine.load_memory(1, PATIENCE_S)
        assert engine.status.steps == 9
        scenes(engine, 100, (8,))
        assert engine.status.steps == 12
        engine.save_memory(PATIENCE_S)
        assert [(one.number, one.segments) for one in store.info().episodes] == [(1, 4), (2, 1)]


def test_what_was_loaded_is_what_goes_on_after_a_restart(tmp_path: Path) -> None:
    with running(tmp_path / "store") as (engine, _):
        scenes(engine)
        engine.reset()
        scenes(engine, 50, (7,))
        engine.load_memory(1, PATIENCE_S)
    with running(tmp_path / "store") as (engine, store):
        assert (engine.status.steps, store.current_episode) == (9, 1)
        with pytest.raises(StoreError, match="nothing is kept of episode 9; kept are 1, 2"):
            engine.load_memory(9, PATIENCE_S)
        assert engine.status.steps == 9
        assert "episode 2" in engine.load_memory(None, PATIENCE_S)
        assert engine.status.steps == 3
        feed(engine, frame(40), frame(41))
        assert engine.status.steps == 1, "before its end: a new episode"
        assert store.current_episode == 3


def test_without_a_store_or_a_running_engine_nothing_can_be_saved() -> None:
    model = FakeModel()
    engine = StreamEngine(model, StreamConfig())
    with engine, pytest.raises(RecordingError, match="set memory_dir"):
        engine.save_memory(PATIENCE_S)
    with running(None) as (engine, _):
        model.encoding.shut()
    with pytest.raises(RecordingError, match="not running"):
        engine.load_memory(None, PATIENCE_S)


def test_a_request_waits_no_longer_than_it_may() -> None:
    model = FakeModel()
    with running(None, model) as (engine, _):
        model.encoding.shut()
        engine.submit(frame(1))
        model.encoding.wait_reached()
        with pytest.raises(RecordingError, match=r"longer than 0\.05 s"):
            engine.save_memory(0.05)
        model.encoding.open()
        assert engine.save_memory(PATIENCE_S)


def test_a_reset_while_an_episode_is_being_loaded_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    reached, go_on = threading.Event(), threading.Event()
    info = EpisodeStore.info

    def held(store: EpisodeStore) -> object:
        reached.set()
        assert go_on.wait(PATIENCE_S)
        return info(store)

    with running(None) as (engine, store), ThreadPoolExecutor() as pool:
        scenes(engine)
        with monkeypatch.context() as patch:
            patch.setattr(EpisodeStore, "info", held)
            loading = pool.submit(engine.load_memory, 1, PATIENCE_S)
            assert reached.wait(PATIENCE_S)
            engine.reset()
            go_on.set()
            loading.result(PATIENCE_S)
        engine.save_memory(PATIENCE_S)
        assert engine.status.steps == 0
        scenes(engine, 100, (7,))
        assert engine.status.steps == 3
        engine.save_memory(PATIENCE_S)
        assert [(one.number, one.reason) for one in store.info().episodes] == [(1, "start"), (2, "reset")]
