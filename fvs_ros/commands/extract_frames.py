"""`fvs extract-frames`: videos to folders of JPEG files at one or more rates, one frame in memory at a time.

File k, from `000001.jpg` on, is the frame nearest to (k - 1) / fps seconds after the first, up to the last frame
(`NearestSampler`). A video slower than fps so repeats frames, and the k-th file always stands for the same second.

A folder appears under its name only when it is complete, so that an interrupted run goes on with the videos that are
left. It remembers its video's size and date: a video that changed is done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.evaluation.errors import DataError
from fvs_ros.sources.sampling import NearestSampler

if TYPE_CHECKING:
    from fvs_ros.sources.frame import Frame

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".flv", ".mpg", ".mpeg", ".wmv", ".ts", ".gif"}
)
# Flash-VStream's own extraction writes with this quality.
JPEG_QUALITY = 100
_MARKER = ".extracted.json"
_PARTIAL = ".partial"


@dataclass(frozen=True)
class Target:
    """One folder of frames to be made of one video."""

    video: Path
    folder: Path
    fps: float


@dataclass(frozen=True)
class Marker:
    """What a finished folder remembers: how many frames it holds, and of which video they are."""

    frames: int
    fps: float
    video_bytes: int
    video_mtime_ns: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
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
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is no rate; give frames per second above 0, at most 1000")
    return rate


def run(arguments: argparse.Namespace) -> int:
    """Extracts with a progress bar; 0, or 1 if the inputs cannot be used or any video failed, which are named."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    try:
        targets = plan(arguments.inputs, arguments.out, arguments.fps or [1.0])
    except DataError as error:
        print(f"fvs extract-frames: {error}", file=sys.stderr)
        return 1
    failures: list[str] = []
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        videos = progress.add_task("videos", total=len({target.video for target in targets}))
        current = progress.add_task("", total=None)
        for video, todo in _by_video(targets):
            progress.update(current, description=video.name, completed=0, total=None)

            def advance(done: int, total: int) -> None:
                progress.update(current, completed=done, total=total or None)

            try:
                extract(video, todo, advance)
            except DataError as error:
                failures.append(str(error))
                progress.console.print(str(error), markup=False, highlight=False, soft_wrap=True)
            progress.advance(videos)
    print(f"{len({target.video for target in targets}) - len(failures)} videos in {arguments.out}")
    if failures:
        print(f"{len(failures)} failed:", *failures, sep="\n  ", file=sys.stderr)
    return 1 if failures else 0


def plan(inputs: Sequence[Path], out: Path, rates: Iterable[float]) -> list[Target]:
    """The folders that are to be made: `<out>/<path under its input, without the last suffix>[_fpsRATE]`.

    Raises:
        DataError: for an input without a video, or two videos for one folder.
    """
    targets: dict[Path, Target] = {}
    rates = list(dict.fromkeys(rates))
    for video, relative in _videos(inputs):
        for fps in rates:
            suffix = "" if fps == 1 else f"_fps{fps:g}"
            folder = out / relative.with_name(relative.stem + suffix)
            before = targets.setdefault(folder, Target(video, folder, fps))
            if before.video.resolve() != video.resolve() or before.fps != fps:
                raise DataError(
                    video, "", f"{folder} is also the folder of {before.video}; rename one, or use two --out"
                )
    return list(targets.values())


def _videos(inputs: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Each video with its path under its input."""
    for given in inputs:
        if given.is_file():
            yield given, Path(given.name)
            continue
        if not given.is_dir():
            raise DataError(given, "", "does not exist, a video or a folder with videos expected")
        found = sorted(path for path in given.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
        if not found:
            raise DataError(given, "", f"holds no video ({', '.join(sorted(VIDEO_SUFFIXES))})")
        for path in found:
            yield path, path.relative_to(given)


def _by_video(targets: Iterable[Target]) -> Iterator[tuple[Path, list[Target]]]:
    grouped: dict[Path, list[Target]] = {}
    for target in targets:
        grouped.setdefault(target.video, []).append(target)
    yield from grouped.items()


def extract(video: Path, targets: Sequence[Target], advance: Callable[[int, int], None] | None = None) -> int:
    """Makes the folders of one video that are not finished yet, in one pass over it.

    Args:
        video: the file.
        targets: its folders.
        advance: called with the frames read so far and those in all (0: unknown).

    Returns:
        How many folders were made.

    Raises:
        DataError: if the video cannot be read to its end; then no folder is left of it.
    """
    from fvs_ros.sources.bags import SourceError
    from fvs_ros.sources.recordings import VideoSource

    todo = [target for target in targets if not _finished(target)]
    if not todo:
        return 0
    folders = [_FrameFolder(target) for target in todo]
    try:
        source = VideoSource(video)
        for index, frame in enumerate(source.frames()):
            for folder in folders:
                folder.add(frame)
            if advance is not None:
                advance(index + 1, source.frame_count)
        for folder in folders:
            folder.finish()
    except SourceError as error:
        for folder in folders:
            folder.discard()
        raise DataError(video, "", str(error).removeprefix(f"{video} ")) from error
    except OSError as error:
        for folder in folders:
            folder.discard()
        raise DataError(error.filename or todo[0].folder, "", f"cannot be written: {error.strerror}") from error
    return len(todo)


def _finished(target: Target) -> bool:
    """Whether a folder is complete and of this video.

    Raises:
        DataError: if there is a folder that this command did not make.
    """
    if not target.folder.exists():
        return False
    try:
        marker = Marker(**json.loads((target.folder / _MARKER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise DataError(
            target.folder, "", "exists, and was not made by this command; move it away, or choose another --out"
        ) from None
    count = sum(1 for path in target.folder.iterdir() if path.suffix == ".jpg")
    return marker == _marker(target, count)


def _marker(target: Target, frames: int) -> Marker:
    status = target.video.stat()
    return Marker(frames, target.fps, status.st_size, status.st_mtime_ns)


class _FrameFolder:
    """Writes the frames of one folder, picked out of a video's."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._partial = target.folder.with_name(f".{target.folder.name}{_PARTIAL}")
        self._sampler = NearestSampler(target.fps)
        self._written = 0
        shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, frame: Frame) -> None:
        """Takes the next frame; writes for every time that it has reached or passed."""
        for picked in self._sampler.add(frame):
            self._write(picked)

    def _write(self, frame: Frame) -> None:
        from fvs_ros.sources.images import encode_jpeg

        self._partial.mkdir(parents=True, exist_ok=True)
        self._written += 1
        (self._partial / f"{self._written:06d}.jpg").write_bytes(encode_jpeg(frame.image(), JPEG_QUALITY))

    def finish(self) -> None:
        """Gives the folder its name."""
        marker = json.dumps(asdict(_marker(self._target, self._written)))
        (self._partial / _MARKER).write_text(marker + "\n", encoding="utf-8")
        if self._target.folder.exists():
            shutil.rmtree(self._target.folder)
        self._partial.rename(self._target.folder)

    def discard(self) -> None:
        """Removes what was written."""
        shutil.rmtree(self._partial, ignore_errors=True)
