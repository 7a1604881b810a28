"""Subtitles of Video-MME: SubRip files, and the lines that are visible at the sampled frames."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fvs_ros.evaluation.benchmarks.long_video import subtitle_prompt
from fvs_ros.evaluation.benchmarks.question import BenchmarkQuestion
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.records import read_text

# As many frames as the published evaluation looks up subtitles for.
PUBLISHED_FRAMES = 180

_TIMES = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})\s*-->\s*(\d+):(\d\d):(\d\d)[,.](\d{1,3})")
_FONT = re.compile(r"<font[^>]*>(.*?)</font>")


@dataclass(frozen=True)
class Subtitle:
    """One entry of a subtitle file, its times in seconds; visible from `start_s` until before `end_s`."""

    start_s: float
    end_s: float
    text: str


def read_subtitles(path: Path) -> list[Subtitle]:
    """The entries of a SubRip file, in its order.

    The text of a line in a font tag, as all of Video-MME's are, is what the tag encloses. Entries without text are
    left out: there is nothing to show.

    Raises:
        DataError: with the block's number, if it has no line of times.
    """
    blocks = [block for block in re.split(r"\n\s*\n", read_text(path).replace("\r\n", "\n")) if block.strip()]
    subtitles = []
    for number, block in enumerate(blocks, start=1):
        lines = block.strip("\n").split("\n")
        found = ((index, _TIMES.match(line.strip())) for index, line in enumerate(lines[:2]))
        at, times = next(((index, match) for index, match in found if match), (0, None))
        if times is None:
            raise DataError(
                path, f"entry {number}", f"{lines[0][:60]!r} found, times like 00:00:01,000 --> 00:00:02,500 expected"
            )
        start, end = _seconds(times.groups()[:4]), _seconds(times.groups()[4:])
        text = " ".join(lines[at + 1 :])
        tagged = _FONT.search(text)
        text = (tagged.group(1) if tagged else text).strip()
        if text:
            subtitles.append(Subtitle(start, end, text))
    return subtitles


def _seconds(parts: Sequence[str]) -> float:
    hours, minutes, seconds, fraction = parts
    return (int(hours) * 60 + int(minutes)) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000


def visible_subtitles(
    subtitles: Sequence[Subtitle], fps: float, frame_count: int, samples: int = PUBLISHED_FRAMES
) -> str:
    """The subtitles on screen at evenly spaced frames, one a line, each once, in the order of the file.

    The published code puts them into the order of a Python set, which is seldom another one.

    The published rule: an entry is visible at frame f if int(start * fps) <= f < int(end * fps), for `samples` frames
    from the first to the last.

    Args:
        subtitles: of one video.
        fps: of the original video.
        frame_count: frames of the original video.
        samples: how many frames are looked at.

    Raises:
        ValueError: if there are no frames, or fps is not positive.
    """
    if frame_count < 1 or not fps > 0 or samples < 1:
        raise ValueError(f"{frame_count} frames at {fps} fps, {samples} samples; all must be positive")
    step = (frame_count - 1) / max(1, samples - 1)
    frames = [*(int(index * step) for index in range(samples - 1)), frame_count - 1 if samples > 1 else 0]
    return "\n".join(
        entry.text
        for entry in subtitles
        if any(int(entry.start_s * fps) <= frame < int(entry.end_s * fps) for frame in frames)
    )


def subtitled(question: BenchmarkQuestion, data: Path) -> BenchmarkQuestion:
    """A question of Video-MME with its video's subtitles in the prompt.

    They are read from `<data>/subtitle/<video_id>.srt`; a video without that file has none, as published. Frames are
    counted in the original video, `<data>/data/<video_id>.mp4`.

    Raises:
        DataError: if there is no folder of subtitles, the video is missing or cannot be opened, or a file of
            subtitles is none.
    """
    folder = data / "subtitle"
    if not folder.is_dir():
        raise DataError(folder, "", "does not exist, Video-MME's subtitles <video_id>.srt expected")
    path = folder / f"{question.video}.srt"
    if not path.exists():
        return replace(question, prompt=subtitle_prompt(question.question, ""))
    fps, frame_count = _frames(data / "data" / f"{question.video}.mp4")
    text = visible_subtitles(read_subtitles(path), fps, frame_count)
    return replace(question, prompt=subtitle_prompt(question.question, text))


def _frames(video: Path) -> tuple[float, int]:
    """Frames per second and number of frames, from the container."""
    import cv2

    if not video.is_file():
        raise DataError(video, "", "does not exist, the original video expected: subtitles go by its frames")
    capture = cv2.VideoCapture(str(video.absolute()))
    fps, frame_count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    if not fps > 0 or frame_count < 1:
        raise DataError(video, "", f"{frame_count} frames at {fps:g} fps; OpenCV cannot read this video")
    return fps, frame_count
