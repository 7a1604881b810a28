"""`kill -9` at any moment loses at most the segment that was being written."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from episodic_data import LIMIT, picture

import fvs_ros
from fvs_ros.episodic.store import EpisodeStore

KILLS = 200
TEST = Path(__file__).parent


@dataclass
class Told:
    """What the writers said that they did, until they were killed.

    Attributes:
        kept: second of each segment by id.
        evicted: number of segments.
        forgetting: ids of a forgetting that was not said to be over.
    """

    kept: dict[int, int] = field(default_factory=dict)
    evicted: int = 0
    forgetting: list[int] = field(default_factory=list)

    def hear(self, line: str) -> None:
        words = line.split()
        if words[0] == "kept":
            self.kept[int(words[1])] = int(words[2])
            for evicted in words[4:]:
                del self.kept[int(evicted)]
            self.evicted += len(words) - 4
        elif words[0] == "forgetting":
            self.forgetting = [int(word) for word in words[1:]]
        elif words[0] == "forgot":
            for one in self.forgetting:
                del self.kept[one]
            self.forgetting = []

    def compare(self, store: EpisodeStore) -> None:
        """Fails unless all that was told is there; then takes over what the last moment left untold."""
        found = {stored.id: stored.segment.start_ns // 10**9 for stored in store.segments()}
        information = store.info()
        assert information.damaged == 0
        missing = {one for one in self.kept if one not in found}
        # A forgetting that was begun is done as a whole or not at all.
        forgotten = missing & set(self.forgetting)
        assert forgotten in (set(), set(self.forgetting) & set(self.kept))
        # The append that was being written evicted in its own transaction, and counted that.
        assert len(missing - forgotten) == information.evicted - self.evicted
        assert {one: found[one] for one in self.kept if one in found} == {
            one: second for one, second in self.kept.items() if one in found
        }
        assert len([one for one in found if one not in self.kept]) <= 1
        assert all(store.keyframe(one) == picture(second) for one, second in found.items())
        self.kept, self.evicted, self.forgetting = found, information.evicted, []


@pytest.fixture
def writers() -> Iterator[subprocess.Popen[bytes]]:
    path = os.pathsep.join([str(TEST), str(Path(fvs_ros.__file__).parents[1])])
    process = subprocess.Popen(
        [sys.executable, str(TEST / "episodic_writer.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    yield process
    process.kill()
    process.communicate(timeout=30)


def lines_until(process: subprocess.Popen[bytes], last: bytes, kill_after_s: float | None = None) -> list[str]:
    """What is said until a line that begins with `last`; the writer is killed meanwhile, after a time."""
    assert process.stdout is not None
    content, writer = b"", 0
    deadline = time.monotonic() + 30
    kill_at: float | None = None
    while not (content.endswith(b"\n") and content.splitlines()[-1].startswith(last)):
        assert time.monotonic() < deadline, content
        wait = 1.0 if kill_at is None else max(0.0, kill_at - time.monotonic())
        if select.select([process.stdout], [], [], wait)[0]:
            content += os.read(process.stdout.fileno(), 65536)
        if not writer and b"\n" in content:
            writer = int(content.split()[1])
            kill_at = time.monotonic() + (kill_after_s or 0.0)
        if kill_at is not None and time.monotonic() >= kill_at and kill_after_s is not None:
            os.kill(writer, signal.SIGKILL)
            kill_at, kill_after_s = None, None
    return content.decode().splitlines()


@pytest.mark.slow
def test_200_kills_lose_no_segment_that_was_closed(tmp_path: Path, writers: subprocess.Popen[bytes]) -> None:
    moments, told, opened = random.Random(9), Told(), 0
    assert writers.stdin is not None
    for kill in range(KILLS):
        writers.stdin.write(f"{tmp_path} {kill}\n".encode())
        writers.stdin.flush()
        for line in lines_until(writers, b"ended", kill_after_s=moments.uniform(0.002, 0.15)):
            told.hear(line)
        if not (tmp_path / "episodes.sqlite").exists():
            assert not told.kept
            continue
        with EpisodeStore.open(tmp_path, LIMIT) as store:
            told.compare(store)
            opened += 1
    print(f"{opened} openings after {KILLS} kills: {len(told.kept)} segments kept, {told.evicted} evicted")
    assert opened > KILLS * 0.9
    assert told.evicted > 50
