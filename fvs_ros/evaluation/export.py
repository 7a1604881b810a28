"""Streaming benchmarks in the form of recordings: a video (or a bag made of it) with a file of timed questions.

Timing allows it where a question is asked at a moment of the video: OVO-Bench, StreamingBench's questions with
options, and NaVQA. The others are asked at the video's end, and have no moment to be replayed at.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fvs_ros.evaluation.benchmarks.question import AnswerKind, BenchmarkQuestion
from fvs_ros.evaluation.questions import TimedQuestion, write_questions

JPEG_QUALITY = 95
IMAGE_TOPIC = "/camera/image_raw/compressed"
_IMAGE_TYPE = "sensor_msgs/msg/CompressedImage"


@dataclass(frozen=True)
class Replay:
    """A video and what is asked about it.

    Attributes:
        video: as the benchmark names it.
        questions: in the order of their times.
    """

    video: str
    questions: tuple[TimedQuestion, ...]


def timed_question(question: BenchmarkQuestion) -> TimedQuestion:
    """A benchmark's question as asked at its moment.

    What is asked is the benchmark's prompt where it tells the form of the answer, the plain question where options
    do. Times on the UNIX clock (NaVQA) stay stamps, others count from the video's start.

    Raises:
        ValueError: if the question has no moment, or waits for one (StreamingBench's proactive questions).
    """
    if question.ask_time_s is None or question.kind is AnswerKind.PROACTIVE:
        raise ValueError(f"question {question.id} is not asked at a moment of its video; there is nothing to replay")
    return TimedQuestion(
        id=question.id,
        time_ns=round(question.ask_time_s * 1e9),
        relative=question.start_time_s == 0,
        question=question.question if question.options else question.prompt.strip(),
        choices=question.options,
        answer=question.answer,
        family=question.task,
    )


def replays(questions: Iterable[BenchmarkQuestion]) -> list[Replay]:
    """The questions that are asked at a moment, video by video.

    Raises:
        ValueError: see `timed_question`.
    """
    by_video: dict[str, list[TimedQuestion]] = {}
    for question in questions:
        by_video.setdefault(question.video, []).append(timed_question(question))
    return [
        Replay(video, tuple(sorted(asked, key=lambda one: one.time_ns))) for video, asked in sorted(by_video.items())
    ]


def write_replay(replay: Replay, out: Path) -> Path:
    """Writes a replay's questions to `<out>/<video's name>/questions.jsonl` and returns that folder.

    The name is the video's path with `_` for what is not safe in a file's name, and a hash of it, since two paths
    may differ in such characters only.

    Raises:
        OSError: if the file cannot be written.
    """
    safe = re.sub(r"[^\w.-]+", "_", replay.video).strip("._")
    folder = out / f"{safe}-{hashlib.sha256(replay.video.encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    write_questions(folder / "questions.jsonl", replay.questions)
    return folder


def write_bag(video: Path, bag: Path, fps: float = 1.0, start_ns: int = 0) -> int:
    """Writes a video as an MCAP bag of compressed images, one frame in memory at a time.

    Of the video's frames, each is kept that is the first one at or after k / `fps` seconds.

    Args:
        video: any file that OpenCV can open.
        bag: the bag's folder, which must not exist.
        fps: at most this many frames a second.
        start_ns: stamp of the video's beginning.

    Returns:
        How many frames were written.

    Raises:
        SourceError: if the video cannot be read to its end.
        FileExistsError: if `bag` exists.
        ValueError: if `fps` is not positive.
    """
    import cv2
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    from fvs_ros.stream.sources import VideoSource

    if not fps > 0:
        raise ValueError(f"fps is {fps}, frames per second above 0 expected")
    if bag.exists():
        raise FileExistsError(f"{bag} exists; choose another folder")
    store = get_typestore(Stores.ROS2_HUMBLE)
    image, header, stamp = (
        store.types[name] for name in (_IMAGE_TYPE, "std_msgs/msg/Header", "builtin_interfaces/msg/Time")
    )
    written = 0
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(IMAGE_TOPIC, _IMAGE_TYPE, typestore=store)
        for frame in VideoSource(video, start_ns=start_ns).frames():
            # Half a millisecond: containers round positions.
            if frame.stamp_ns - start_ns + 500_000 < written / fps * 1e9:
                continue
            bgr = cv2.cvtColor(frame.image(), cv2.COLOR_RGB2BGR)
            _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            at = stamp(sec=frame.stamp_ns // 10**9, nanosec=frame.stamp_ns % 10**9)
            message = image(header=header(stamp=at, frame_id="camera"), format="jpeg", data=data.reshape(-1))
            writer.write(connection, frame.stamp_ns, store.serialize_cdr(message, _IMAGE_TYPE))
            written += 1
    return written
