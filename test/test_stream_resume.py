"""An engine that starts on the store of an earlier one: what it knows before a frame comes, and what frames then do."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engines import feed, result
from fakes import PATIENCE_S, FakeModel, frame, pose_at

from fvs_ros.episodic.information import Opener
from fvs_ros.episodic.store import EpisodeStore, Resume
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.recording import Episodes

SCENES = (40, 200, 90)


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


@contextmanager
def running(
    folder: Path | None,
    model: FakeModel | None = None,
    resume: Resume = Resume.AUTO,
    map_id: str = "house",
    **settings: Any,
) -> Iterator[tuple[StreamEngine, EpisodeStore]]:
    """An engine on a store, restored as far as there is something to restore."""
    model = model or FakeModel()
    opener = Opener("front", fingerprint=model.fingerprint(), map_id=map_id)
    config = StreamConfig(**{"fps": 0, "timeout_s": PATIENCE_S, "prefill_share": 0.0, **settings})
    with EpisodeStore.open(folder, opener=opener, resume=resume) as store:
        episodes = Episodes(store, "front", map_id, resume, silence_s=math.inf)
        with StreamEngine(model, config, episodes=episodes) as engine:
            wait_until(lambda: engine.recording and not engine.recording.restoring)
            yield engine, store


def scenes(engine: StreamEngine, first_second: int = 0, values: tuple[int, ...] = SCENES) -> None:
    """Six frames, three steps, of each scene; a second apart."""
    for place, value in enumerate(values):
        for second in range(first_second + 6 * place, first_second + 6 * place + 6):
            feed(engine, frame(second, value, frame_id="eye", pose=lambda x=second: pose_at(x)))


def killed(folder: Path) -> Path:
    """A copy of a store's folder while it is open: what a process that is killed leaves."""
    copy = folder.with_name(f"{folder.name}-killed")
    shutil.copytree(folder, copy)
    return copy


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
        assert [moment.pose is not None for moment in after.moments] == [True] * 4
        assert {moment.frame_id for moment in after.moments} == {"eye"}
