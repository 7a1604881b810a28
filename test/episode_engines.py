"""Engines on an episode store, with a fake model: how tests start, feed, kill and start them again."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engines import feed
from fakes import PATIENCE_S, FakeModel, frame, pose_at

from fvs_ros.episodic.information import Opener
from fvs_ros.episodic.store import EpisodeStore, Resume
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.recording import Episodes

SCENES = (40, 200, 90)
SCENE_STEPS = 3


def wait_until(holds: Callable[[], object]) -> None:
    """Waits for a condition."""
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
    silence_s: float = math.inf,
    read_only: bool = False,
    **settings: Any,
) -> Iterator[tuple[StreamEngine, EpisodeStore]]:
    """An engine on a store, restored as far as there is something to restore."""
    model = model or FakeModel()
    opener = Opener("front", fingerprint=model.fingerprint(), map_id=map_id)
    defaults: dict[str, Any] = {"fps": 0, "timeout_s": PATIENCE_S, "prefill_share": 0.0}
    with EpisodeStore.open(folder, opener=opener, resume=resume, read_only=read_only) as store:
        episodes = Episodes(store, "front", map_id, resume, silence_s)
        with StreamEngine(model, StreamConfig(**defaults | settings), episodes=episodes) as engine:
            wait_until(lambda: engine.recording is not None and not engine.recording.restoring)
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
