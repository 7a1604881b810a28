"""`fvs extract-frames`: videos to folders of JPEG files, with progress."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fvs_ros.commands.arguments import positive

HIGHEST_RATE = 1_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the videos, the rates and the folder of the results."""
    parser.add_argument("inputs", metavar="INPUT", nargs="+", type=Path, help="video file, or folder with videos")
    parser.add_argument("--out", metavar="DIR", required=True, type=Path, help="where the folders of frames go")
    parser.add_argument(
        "--fps",
        metavar="RATE",
        action="append",
        type=_rate,
        help="frames per second (default 1); may be repeated, every rate but 1 in folders that end in _fpsRATE",
    )


def _rate(text: str) -> float:
    rate = positive(text)
    if rate > HIGHEST_RATE:
        raise argparse.ArgumentTypeError(f"{text} frames per second are more than {HIGHEST_RATE}")
    return rate


def run(arguments: argparse.Namespace) -> int:
    """Extracts with a progress bar; 0, or 1 if any video failed, which are named.

    Raises:
        SourceError: the inputs cannot be used.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fvs_ros.sources.bags import SourceError
    from fvs_ros.sources.frame_folders import extract, plan

    folders = plan(arguments.inputs, arguments.out, arguments.fps or [1.0])
    failures: list[str] = []
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        videos = progress.add_task("videos", total=len(folders))
        current = progress.add_task("", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(current, completed=done, total=total or None)

        for video, targets in folders.items():
            progress.update(current, description=video.name, completed=0, total=None)
            try:
                extract(video, targets, advance)
            except SourceError as error:
                failures.append(str(error))
                progress.console.print(str(error), markup=False, highlight=False, soft_wrap=True)
            progress.advance(videos)
    print(f"{len(folders) - len(failures)} videos in {arguments.out}")
    if failures:
        print(f"{len(failures)} failed:", *failures, sep="\n  ", file=sys.stderr)
    return 1 if failures else 0
