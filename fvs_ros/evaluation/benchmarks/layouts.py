"""Where each benchmark's frames and videos lie, as published; what is missing is named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fvs_ros.evaluation.benchmarks.question import BenchmarkQuestion
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.records import read_text
from fvs_ros.sources.recordings import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Media:
    """What a question's video is on disk.

    Attributes:
        video: a video file; None where there are frames.
        frames: image files in the order of time.
        times_s: seconds of each frame on the clock of the question's times.
    """

    video: Path | None = None
    frames: tuple[Path, ...] = ()
    times_s: tuple[float, ...] = ()


def frame_folder(folder: Path) -> Media:
    """A folder of numbered images, one a second, the first one at 0 s.

    They are ordered by the number between the last `_` and the first `.` of their names after it, as published.

    Raises:
        DataError: if the folder is missing or empty, holds other files, or two files of one number.
    """
    if not folder.is_dir():
        raise DataError(folder, "", "does not exist, a folder of frames NNNNNN.jpg expected; see `fvs extract-frames`")
    numbered: dict[int, Path] = {}
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        number = path.name.rpartition("_")[2].partition(".")[0]
        if path.suffix.lower() not in IMAGE_SUFFIXES or not number.isdecimal():
            raise DataError(folder, path.name, "a numbered image expected, like 000001.jpg")
        if int(number) in numbered:
            raise DataError(folder, path.name, f"has the number of {numbered[int(number)].name}")
        numbered[int(number)] = path
    if not numbered:
        raise DataError(folder, "", "holds no frames")
    frames = tuple(path for _, path in sorted(numbered.items()))
    return Media(frames=frames, times_s=tuple(map(float, range(len(frames)))))


def long_video_media(data: Path, question: BenchmarkQuestion) -> Media:
    """EgoSchema, MLVU, LVBench, MVBench, Video-MME: `frames/<video_id>/NNNNNN.jpg` at 1 fps.

    Raises:
        DataError: if that folder is not as it must be.
    """
    return frame_folder(data / "frames" / question.video)


def ovo_bench_media(data: Path, question: BenchmarkQuestion) -> Media:
    """OVO-Bench: `src_videos/<video>`, or the benchmark's own clip `chunked_videos/<id>.mp4`.

    Raises:
        DataError: if there is neither.
    """
    return _video(question, data / "src_videos" / question.video, data / "chunked_videos" / f"{question.id}.mp4")


def streaming_bench_media(data: Path, question: BenchmarkQuestion) -> Media:
    """StreamingBench: the annotated path, from the folder of the annotations on.

    Raises:
        DataError: if it is missing.
    """
    return _video(question, data / question.video)


def _video(question: BenchmarkQuestion, *candidates: Path) -> Media:
    for path in candidates:
        if path.is_file():
            return Media(video=path)
    others = "".join(f", nor does {path}" for path in candidates[1:])
    raise DataError(candidates[0], f"id {question.id}", f"does not exist{others}; a video expected")


def navqa_media(data: Path, question: BenchmarkQuestion) -> Media:
    """NaVQA: CODa's images `2d_rect/cam0/<sequence>/2d_rect_cam0_<sequence>_<frame>.jpg` within the question's window.

    Their times are line `<frame>` (from 0) of `timestamps/<sequence>.txt`, UNIX seconds.

    Raises:
        DataError: if one of them is missing or not as it must be, or no image lies in the window.
    """
    folder = data / "2d_rect" / "cam0" / question.video
    times_file = data / "timestamps" / f"{question.video}.txt"
    times = _timestamps(times_file)
    if not folder.is_dir():
        raise DataError(folder, f"id {question.id}", "does not exist, CODa's rectified images of camera 0 expected")
    frames: list[tuple[float, Path]] = []
    for path in folder.iterdir():
        found = re.fullmatch(rf"2d_rect_cam0_{re.escape(question.video)}_(\d+)\.(?:jpg|png)", path.name)
        if found is None:
            raise DataError(folder, path.name, f"an image like 2d_rect_cam0_{question.video}_0.jpg expected")
        if int(found.group(1)) >= len(times):
            raise DataError(folder, path.name, f"has no line in {times_file}, which holds {len(times)}")
        time_s = times[int(found.group(1))]
        if question.start_time_s <= time_s and (question.ask_time_s is None or time_s <= question.ask_time_s):
            frames.append((time_s, path))
    if not frames:
        raise DataError(
            folder, f"id {question.id}", f"no image between {question.start_time_s} and {question.ask_time_s} s"
        )
    frames.sort()
    return Media(frames=tuple(path for _, path in frames), times_s=tuple(time_s for time_s, _ in frames))


def _timestamps(path: Path) -> Sequence[float]:
    times = []
    for number, line in enumerate(read_text(path).split(), start=1):
        try:
            times.append(float(line))
        except ValueError:
            raise DataError(path, f"line {number}", f"{line!r} found, UNIX seconds expected") from None
    return times
