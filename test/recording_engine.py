"""Engines to be killed: for each line of the standard input it forks a process that records a stream until then.

A line is "FOLDER". The process prints its number, what it restored ("restored STEPS"), and after each scene
"seen STEPS SEGMENTS": the steps in its memory, and the segments that are in the store for good.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from episode_engines import running, scenes
from fakes import SECOND_NS

from fvs_ros.stream import memory_keeper


def say(*words: object) -> None:
    """One line in one write, so that a kill leaves no half of it."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def work(folder: Path) -> None:
    """Restores, and goes on recording."""
    memory_keeper.SAVE_EVERY_S = 0.02
    memory_keeper.SAVING_SHARE = 1.0
    with running(folder) as (engine, _):
        say("restored", engine.status.steps)
        second = engine.status.end_ns // SECOND_NS + 1 if engine.status.steps else 0
        while True:
            value = 20 + (second // 6) * 70 % 200
            scenes(engine, second, (value,))
            second += 6
            assert engine.recording is not None
            say("seen", engine.status.steps, engine.recording.segments)


def main() -> None:
    """Forks an engine a line and waits for its end."""
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            say("process", os.getpid())
            work(Path(line.strip()))
        os.waitpid(process, 0)
        say("ended")


if __name__ == "__main__":
    main()
