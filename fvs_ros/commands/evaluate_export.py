"""`fvs evaluate export`: a benchmark as recordings with timed questions, for the node and `fvs evaluate replay`."""

from __future__ import annotations

import argparse
import math
import sys

from fvs_ros.commands.evaluation import add_data_arguments, exit_code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add_data_arguments(parser, out="gets a folder a video, with a bag and questions.jsonl")
    parser.add_argument("--fps", type=float, default=1.0, help="frames written per second of a video (%(default)g)")


def run(arguments: argparse.Namespace) -> int:
    """Exports with a progress bar; 0, or 1 if the data cannot be used or a video failed, which are named."""
    return exit_code("export", lambda: _export(arguments))


def _export(arguments: argparse.Namespace) -> int:
    from fvs_ros.evaluation.benchmarks import BENCHMARKS
    from fvs_ros.evaluation.benchmarks.export import folder_name, replays, write_replay
    from fvs_ros.evaluation.benchmarks.navqa import poses_file, read_poses
    from fvs_ros.evaluation.benchmarks.stream_answerer import media_frames
    from fvs_ros.evaluation.benchmarks.windows import annotation_files, media_of
    from fvs_ros.evaluation.errors import DataError
    from fvs_ros.evaluation.progress import RunProgress
    from fvs_ros.sources.bags import SourceError
    from fvs_ros.sources.frame import ImageError
    from fvs_ros.stream.config import HIGHEST_FPS

    if not 0 < arguments.fps <= HIGHEST_FPS:
        raise ValueError(f"fps is {arguments.fps}, frames per second above 0 and up to {HIGHEST_FPS:g} expected")
    name, data = arguments.benchmark, arguments.data
    questions = [one for path in annotation_files(name, data) for one in BENCHMARKS[name].read(path)]
    todo = replays(questions)
    failures = []
    with RunProgress({"videos": len(todo)}) as progress:
        for video in todo:
            try:
                frames = media_frames(media_of(name, data, video), video.start_s, math.inf)
                poses = read_poses(poses_file(data, video.video)) if name == "navqa" else None
                write_replay(video, arguments.out / folder_name(video.video), frames, arguments.fps, poses)
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
