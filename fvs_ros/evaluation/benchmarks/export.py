"""Benchmarks in the form of recordings: a bag of a video's frames beside a file of timed questions.

Questions of OVO-Bench, StreamingBench and NaVQA are asked at their moments; those about whole clips at the last frame.
StreamingBench's proactive questions wait for a moment instead of having one, and cannot be replayed. What a benchmark
says about how far back may be seen (StreamingBench's 60 s, the windows of NaVQA) a recording cannot say: there a
question sees everything from its beginning.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fvs_ros.evaluation.benchmarks.question import AnswerKind, BenchmarkQuestion
from fvs_ros.evaluation.parsing import without_options
from fvs_ros.evaluation.questions import TimedQuestion, write_questions
from fvs_ros.sources.frame import SECOND_NS, Frame

if TYPE_CHECKING:
    from fvs_ros.evaluation.benchmarks.navqa import Poses

JPEG_QUALITY = 95
IMAGE_TOPIC = "/camera/image_raw/compressed"
ODOMETRY_TOPIC = "/odom"
QUESTIONS = "questions.jsonl"
BAG = "bag"
_IMAGE_TYPE = "sensor_msgs/msg/CompressedImage"
_ODOMETRY_TYPE = "nav_msgs/msg/Odometry"


@dataclass(frozen=True)
class Replay:
    """A video and what is asked about it.

    Attributes:
        video: as the benchmark names it.
        questions: in the order of their times.
    """

    video: str
    questions: tuple[BenchmarkQuestion, ...]

    @property
    def folder(self) -> str:
        """A name for its files: the video's path with `_` for what is not safe in a file's name, and a hash of it.

        Two paths may differ in such characters only.
        """
        safe = re.sub(r"[^\w.-]+", "_", self.video).strip("._")
        return f"{safe}-{hashlib.sha256(self.video.encode()).hexdigest()[:8]}"


def replays(questions: Iterable[BenchmarkQuestion]) -> list[Replay]:
    """The questions video by video, without those that wait for a moment."""
    by_video: dict[str, list[BenchmarkQuestion]] = {}
    for question in questions:
        if question.kind is not AnswerKind.PROACTIVE:
            by_video.setdefault(question.video, []).append(question)
    return [
        Replay(video, tuple(sorted(asked, key=lambda one: one.ask_time_s or 0.0)))
        for video, asked in sorted(by_video.items())
    ]


def timed_question(question: BenchmarkQuestion, end_ns: int) -> TimedQuestion:
    """A benchmark's question as asked at its moment, or at the end where it has none or lies behind it.

    What is asked is the benchmark's prompt where it tells the form of the answer, the plain question where options
    do. Times on the UNIX clock (NaVQA) stay stamps, others count from the video's start.

    Args:
        question: of any kind but proactive.
        end_ns: of the recording's last frame, nanoseconds on the clock of the question's times.

    Raises:
        ValueError: if the question waits for its moment.
    """
    if question.kind is AnswerKind.PROACTIVE:
        raise ValueError(f"question {question.id} waits for its moment; there is nothing to replay")
    asked_ns = end_ns if question.ask_time_s is None else min(end_ns, round(question.ask_time_s * SECOND_NS))
    return TimedQuestion(
        id=question.id,
        time_ns=asked_ns,
        relative=question.start_time_s == 0,
        question=without_options(question.question) if question.options else question.prompt.strip(),
        choices=question.options,
        answer=question.answer,
        family=question.task,
    )


def write_replay(replay: Replay, folder: Path, frames: Iterable[Frame], fps: float, poses: Poses | None = None) -> int:
    """Writes a bag of a video's frames, unless it is there, and its questions, into a folder.

    Args:
        replay: the video's questions.
        folder: gets `questions.jsonl` and `bag`; the bag appears under its name once it is complete.
        frames: of the video, in the order of time.
        fps: see `write_bag`.
        poses: of the camera's robot.

    Returns:
        How many frames the bag has.

    Raises:
        SourceError: if the video cannot be read to its end.
        ValueError: if it has no frame.
        OSError: if the folder cannot be written.
    """
    bag, partial = folder / BAG, folder / ".partial"
    if not bag.exists():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        # Within another folder: a bag's files carry the name of theirs.
        write_bag(frames, partial / BAG, fps, poses)
        (partial / BAG).rename(bag)
        partial.rmdir()
    count, end_ns = _extent(bag)
    write_questions(folder / QUESTIONS, [timed_question(question, end_ns) for question in replay.questions])
    return count


def _extent(bag: Path) -> tuple[int, int]:
    """How many frames a bag of `write_bag` has, and the last one's stamp in nanoseconds."""
    from fvs_ros.sources.bags import Bag

    with Bag(bag) as opened:
        return opened.topics[IMAGE_TOPIC].count, opened.start_ns + opened.duration_ns


def write_bag(frames: Iterable[Frame], bag: Path, fps: float = 1.0, poses: Poses | None = None) -> int:
    """Writes frames as an MCAP bag of compressed images, one frame in memory at a time.

    Of the frames, each is kept that is the first one at or after k / `fps` seconds from the first. Poses between the
    first and the last frame come as odometry.

    Args:
        frames: in the order of time.
        bag: the bag's folder, which must not exist.
        fps: at most this many frames a second.
        poses: of the camera's robot.

    Returns:
        How many frames were written.

    Raises:
        SourceError: if the frames cannot be read to their end.
        FileExistsError: if `bag` exists.
        ValueError: if `fps` is not positive, or there is no frame.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer

    if not fps > 0:
        raise ValueError(f"fps is {fps}, frames per second above 0 expected")
    if bag.exists():
        raise FileExistsError(f"{bag} exists; choose another folder")
    written, start_ns, end_ns = 0, 0, 0
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        messages = _Messages(writer, with_poses=poses is not None)
        for frame in frames:
            start_ns = start_ns if written else frame.stamp_ns
            # Half a millisecond: containers round positions.
            if frame.stamp_ns - start_ns + 500_000 < written / fps * SECOND_NS:
                continue
            messages.write_image(frame)
            end_ns = frame.stamp_ns
            written += 1
        if poses is not None:
            for time_s, position, turn in zip(poses.times_s, poses.positions, poses.orientations, strict=True):
                if start_ns <= round(time_s * SECOND_NS) <= end_ns:
                    messages.write_pose(round(time_s * SECOND_NS), position, turn)
    if not written:
        raise ValueError("there is no frame to write")
    return written


class _Messages:
    """Writes frames and poses as ROS 2 messages."""

    def __init__(self, writer: Any, with_poses: bool) -> None:
        from rosbags.typesys import Stores, get_typestore

        self._writer = writer
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self._image = writer.add_connection(IMAGE_TOPIC, _IMAGE_TYPE, typestore=self._store)
        self._odometry = (
            writer.add_connection(ODOMETRY_TOPIC, _ODOMETRY_TYPE, typestore=self._store) if with_poses else None
        )

    def write_image(self, frame: Frame) -> None:
        import cv2

        bgr = cv2.cvtColor(frame.image(), cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        header = self._header(frame.stamp_ns, "camera")
        self._write(self._image, _IMAGE_TYPE, frame.stamp_ns, header=header, format="jpeg", data=data.reshape(-1))

    def write_pose(
        self, stamp_ns: int, position: tuple[float, float, float], turn: tuple[float, float, float, float]
    ) -> None:
        import numpy as np

        pose = self._make(
            "geometry_msgs/msg/Pose",
            position=self._make("geometry_msgs/msg/Point", **dict(zip("xyz", position, strict=True))),
            orientation=self._make("geometry_msgs/msg/Quaternion", **dict(zip("xyzw", turn, strict=True))),
        )
        still = self._make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        twist = self._make("geometry_msgs/msg/Twist", linear=still, angular=still)
        self._write(
            self._odometry,
            _ODOMETRY_TYPE,
            stamp_ns,
            header=self._header(stamp_ns, "map"),
            child_frame_id="camera",
            pose=self._make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
            # By convention -1 in the first element says that nothing is known about the twist.
            twist=self._make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=-np.eye(6).ravel()),
        )

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        stamp = self._make("builtin_interfaces/msg/Time", sec=stamp_ns // SECOND_NS, nanosec=stamp_ns % SECOND_NS)
        return self._make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def _make(self, message_type: str, **fields: Any) -> Any:
        return self._store.types[message_type](**fields)

    def _write(self, connection: Any, message_type: str, stamp_ns: int, **fields: Any) -> None:
        self._writer.write(
            connection, stamp_ns, self._store.serialize_cdr(self._make(message_type, **fields), message_type)
        )
