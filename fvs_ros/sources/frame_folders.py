"""Videos as folders of JPEG files at one or more rates, with one frame in memory at a time.

File k, from `000001.jpg` on, is the frame nearest to (k - 1) / fps seconds after the first, up to the last frame
(`NearestSampler`). A video slower than fps repeats frames, so the k-th file always stands for the same second.

A folder appears under its name only when it is complete, so an interrupted run resumes with the remaining videos. What
was read of a damaged video stays in a folder of another name. A folder records its video's size and date: a video that
has changed is extracted again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fvs_ros.sources.bags import SourceError
from fvs_ros.sources.frame import Frame
from fvs_ros.sources.images import encode_jpeg
from fvs_ros.sources.recordings import VIDEO_SUFFIXES
from fvs_ros.sources.sampling import NearestSampler
from fvs_ros.sources.videos import VideoSource

# As in the extraction of the published code.
JPEG_QUALITY = 100
_MARKER = ".extracted.json"
_PARTIAL = ".partial"


@dataclass(frozen=True)
class FrameFolder:
    """A folder of frames to make of a video, at `fps` frames a second."""

    video: Path
    folder: Path
    fps: float


@dataclass(frozen=True)
class Marker:
    """What a finished folder records: its number of frames, and the video that they are from."""

    frames: int
    fps: float
    video_bytes: int
    video_mtime_ns: int


def plan(inputs: Sequence[Path], out: Path, rates: Iterable[float]) -> dict[Path, list[FrameFolder]]:
    """The folders to make of each video: `<out>/<path under its input, without the last suffix>[_fpsRATE]`.

    Raises:
        SourceError: an input has no video, or two videos would share a folder.
    """
    planned: dict[Path, list[FrameFolder]] = {}
    targets: dict[Path, FrameFolder] = {}
    rates = list(dict.fromkeys(rates))
    for video, relative in _videos(inputs):
        for fps in rates:
            suffix = "" if fps == 1 else f"_fps{fps:g}"
            folder = out / relative.with_name(relative.stem + suffix)
            target = FrameFolder(video, folder, fps)
            before = targets.setdefault(folder, target)
            if before is target:
                planned.setdefault(video, []).append(target)
            elif before.video.resolve() != video.resolve() or before.fps != fps:
                raise SourceError(
                    f"{video}: {folder} is also the folder of {before.video}; rename one, or use two --out"
                )
    return planned


def _videos(inputs: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Each video with its path under its input."""
    for given in inputs:
        if given.is_file():
            yield given, Path(given.name)
            continue
        if not given.is_dir():
            raise SourceError(f"{given}: does not exist, a video or a folder with videos expected")
        found = sorted(path for path in given.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
        if not found:
            raise SourceError(f"{given}: holds no video ({', '.join(VIDEO_SUFFIXES)})")
        for path in found:
            yield path, path.relative_to(given)


def extract(video: Path, targets: Sequence[FrameFolder], advance: Callable[[int, int], None] | None = None) -> int:
    """Makes those folders of one video that are not finished, in one pass over it.

    Args:
        video: the file.
        targets: its folders.
        advance: called with the number of frames read so far and their total (0 if unknown).

    Returns:
        The number of folders made.

    Raises:
        SourceError: the video cannot be read to its end, or a folder cannot be written. What was read until then
            stays in a folder of another name, ``.<name>.partial``.
    """
    todo = [target for target in targets if not _finished(target)]
    if not todo:
        return 0
    folders = [_FolderWriter(target) for target in todo]
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
        raise SourceError(f"{error}{''.join(folder.kept() for folder in folders)}") from error
    except OSError as error:
        raise SourceError(f"{error.filename or todo[0].folder}: cannot be written: {error.strerror}") from error
    return len(todo)


def _finished(target: FrameFolder) -> bool:
    """Whether a folder is complete and of this video.

    Raises:
        SourceError: a folder of that name was not made by `extract`.
    """
    if not target.folder.exists():
        return False
    try:
        marker = Marker(**json.loads((target.folder / _MARKER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise SourceError(
            f"{target.folder}: exists, and was not made by this command; move it away, or choose another --out"
        ) from None
    count = sum(1 for path in target.folder.iterdir() if path.suffix == ".jpg")
    return marker == _marker(target, count)


def _marker(target: FrameFolder, frames: int) -> Marker:
    status = target.video.stat()
    return Marker(frames, target.fps, status.st_size, status.st_mtime_ns)


class _FolderWriter:
    """Writes the frames of one folder, picked from those of its video."""

    def __init__(self, target: FrameFolder) -> None:
        self._target = target
        self._partial = target.folder.with_name(f".{target.folder.name}{_PARTIAL}")
        self._sampler = NearestSampler(target.fps)
        self._written = 0
        shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, frame: Frame) -> None:
        """Takes the next frame of the video and writes whatever the sampler picks."""
        for picked in self._sampler.add(frame):
            self._partial.mkdir(parents=True, exist_ok=True)
            self._written += 1
            (self._partial / f"{self._written:06d}.jpg").write_bytes(encode_jpeg(picked.image(), JPEG_QUALITY))

    def finish(self) -> None:
        """Records the video and gives the folder its name."""
        marker = json.dumps(asdict(_marker(self._target, self._written)))
        (self._partial / _MARKER).write_text(marker + "\n", encoding="utf-8")
        if self._target.folder.exists():
            shutil.rmtree(self._target.folder)
        self._partial.rename(self._target.folder)

    def kept(self) -> str:
        """Says where the frames of a folder are that was not finished; empty if there are none."""
        return f"; the frames that could be read are in {self._partial} ({self._written})" if self._written else ""
