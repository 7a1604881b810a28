"""`fvs evaluate export`: a benchmark as recordings with timed questions, for the node and `fvs evaluate replay`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.commands.evaluation import add_data_arguments, exit_code

if TYPE_CHECKING:
    from fvs_ros.evaluation.benchmarks.export import Replay
    from fvs_ros.evaluation.benchmarks.navqa import Poses
    from fvs_ros.sources.frame import Frame


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_data_arguments(parser, out="gets a folder a video, with a bag and questions.jsonl")
    parser.add_argument("--fps", type=float, default=1.0, help="frames written per second of a video (%(default)g)")


def run(arguments: argparse.Namespace) -> int:
    """Exports with a progress bar; 0, or 1 if the data cannot be used or a video failed, which are named."""
    return exit_code("export", lambda: _export(arguments))


def _export(arguments: argparse.Namespace) -> int:
    from fvs_ros.evaluation.benchmarks import BENCHMARKS
    from fvs_ros.evaluation.benchmarks.export import replays, write_replay
    from fvs_ros.evaluation.benchmarks.windows import annotation_files
    from fvs_ros.evaluation.errors import DataError
    from fvs_ros.evaluation.progress import RunProgress
    from fvs_ros.sources.bags import SourceError
    from fvs_ros.sources.frame import ImageError

    if not arguments.fps > 0:
        raise ValueError(f"fps is {arguments.fps}, frames per second above 0 expected")
    name, data = arguments.benchmark, arguments.data
    questions = [one for path in annotation_files(name, data) for one in BENCHMARKS[name].read(path)]
    todo = replays(questions)
    failures = []
    with RunProgress({"videos": len(todo)}) as progress:
        for video in todo:
            try:
                frames, poses = _frames(name, data, video), _poses(name, data, video)
                write_replay(video, arguments.out / video.folder, frames, arguments.fps, poses)
            except (DataError, SourceError, ImageError, ValueError) as error:
                failures.append(f"{video.video}: {error}")
                progress.note(failures[-1])
            progress.advance("videos", where=video.video)
    asked = sum(len(video.questions) for video in todo)
    print(f"{len(todo) - len(failures)} of {len(todo)} videos with {asked} questions in {arguments.out}")
    if waiting := len(questions) - asked:
        print(f"{waiting} questions are left out: they wait for a moment, and cannot be replayed")
    if failures:
        print(f"{len(failures)} failed:", *failures, sep="\n  ", file=sys.stderr)
    return 1 if failures else 0


def _frames(name: str, data: Path, video: Replay) -> Iterator[Frame]:
    """All frames that any of a video's questions may see."""
    from fvs_ros.evaluation.benchmarks import BENCHMARKS
    from fvs_ros.evaluation.benchmarks.stream_answerer import media_frames

    last = max(video.questions, key=lambda one: one.ask_time_s or 0.0)
    start_s = min(question.start_time_s for question in video.questions)
    media = BENCHMARKS[name].media(data, replace(last, start_time_s=start_s))
    return media_frames(media, start_s, float("inf"))


def _poses(name: str, data: Path, video: Replay) -> Poses | None:
    from fvs_ros.evaluation.benchmarks.navqa import poses_file, read_poses

    return read_poses(poses_file(data, video.video)) if name == "navqa" else None
