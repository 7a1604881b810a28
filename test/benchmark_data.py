"""Whole data folders of the benchmarks, in the published layouts, with made-up annotations and small pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from benchmark_files import SAMPLES
from recordings import write_video

from fvs_ros.evaluation.benchmarks import BENCHMARKS


def write_frames(folder: Path, count: int = 3, first: int = 1) -> Path:
    """A folder of `count` numbered JPEG files, one gray each."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        gray = np.full((48, 64, 3), 10 + 40 * index % 240, np.uint8)
        assert cv2.imwrite(str(folder / f"{index + first:06d}.jpg"), gray)
    return folder


def long_video(data: Path, name: str) -> Path:
    """The data folder of EgoSchema, MLVU, LVBench, MVBench or Video-MME."""
    data.mkdir(parents=True, exist_ok=True)
    sample = SAMPLES / f"{name}.json"
    shutil.copy(sample, data / "test_qa.json")
    for place, question in enumerate(BENCHMARKS[name].read(sample)):
        if not (data / "frames" / question.video).exists():
            write_frames(data / "frames" / question.video, 3 + place)
    return data


def subtitles(data: Path) -> Path:
    """Adds Video-MME's subtitles and original videos, of the first video alone."""
    video = BENCHMARKS["videomme"].read(data / "test_qa.json")[0].video
    (data / "subtitle").mkdir()
    (data / "data").mkdir()
    text = '1\n00:00:00,000 --> 00:00:01,500\n<font color="white">Two moons rise.</font>\n'
    (data / "subtitle" / f"{video}.srt").write_text(text, encoding="utf-8")
    write_video(data / "data" / f"{video}.avi", frames=20, fps=10.0).rename(data / "data" / f"{video}.mp4")
    return data


def ovo_bench(data: Path) -> Path:
    """OVO-Bench: a video of 4 s each, so that later questions see its end."""
    data.mkdir(parents=True, exist_ok=True)
    content = json.loads((SAMPLES / "ovo_bench_new.json").read_text(encoding="utf-8"))
    # Seconds instead of minutes, so that small videos have something at them.
    for item in content:
        for timed in [item, *item.get("test_info", ())]:
            if "realtime" in timed:
                timed["realtime"] = timed["realtime"] / 60
    (data / "ovo_bench_new.json").write_text(json.dumps(content), encoding="utf-8")
    for video in {item["video"] for item in content}:
        (data / "src_videos" / video).parent.mkdir(parents=True, exist_ok=True)
        mp4(data / "src_videos" / video)
    return data


def streaming_bench(data: Path, *parts: str) -> Path:
    """StreamingBench: videos of 4 s, and questions in their seconds."""
    data.mkdir(parents=True, exist_ok=True)
    for part in parts:
        text = (SAMPLES / f"questions_{part}.json").read_text(encoding="utf-8")
        for minutes, seconds in (
            ("00:00:31", "00:00:01"), ("0:01:05", "0:00:02"), ("01:10", "00:03"), ("00:00:50", "00:00:02"),
            ("00:00:36", "00:00:01"), ("00:03:02", "00:00:03"), ("00:00:20", "00:00:01"), ("00:00:29", "00:00:02"),
        ):  # fmt: skip
            text = text.replace(f'"{minutes}"', f'"{seconds}"')
        path = data / f"questions_{part}.json"
        path.write_text(text, encoding="utf-8")
        for question in BENCHMARKS["streamingbench"].read(path):
            (data / question.video).parent.mkdir(parents=True, exist_ok=True)
            if not (data / question.video).exists():
                mp4(data / question.video)
    return data


def navqa(data: Path) -> Path:
    """NaVQA: its annotations, CODa's poses, and three images in each question's window."""
    shutil.copytree(SAMPLES / "navqa", data)
    questions = BENCHMARKS["navqa"].read(data / "data.csv")
    times = sorted({second for one in questions for second in _seconds(one)})
    images = write_frames(data / "unnamed", len(times), first=0)
    folder = data / "2d_rect" / "cam0" / "3"
    folder.mkdir(parents=True)
    for index, image in enumerate(sorted(images.iterdir())):
        image.rename(folder / f"2d_rect_cam0_3_{index}.jpg")
    images.rmdir()
    (data / "timestamps").mkdir()
    (data / "timestamps" / "3.txt").write_text("".join(f"{time}\n" for time in times), encoding="utf-8")
    return data


def _seconds(question: object) -> list[float]:
    start, end = question.start_time_s, question.ask_time_s  # type: ignore[attr-defined]
    return [start, (start + end) / 2, end, end + 0.5]


def mp4(path: Path, frames: int = 16, fps: float = 4.0) -> Path:
    """A video under that name, whatever its suffix."""
    written = write_video(path.with_suffix(".avi"), frames=frames, fps=fps)
    return written.rename(path)
