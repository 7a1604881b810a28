"""Benchmarks in the form of recordings: a bag of a video's frames beside a file of timed questions.

Questions of OVO-Bench, StreamingBench and NaVQA are asked at their moments; those about whole clips at the last frame.
StreamingBench's proactive questions wait for a moment instead of having one, and cannot be replayed. What a benchmark
says about how far back may be seen (StreamingBench's 60 s, the windows of NaVQA) a recording cannot say: there a
question sees everything from its beginning.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.evaluation.benchmarks.question import BenchmarkQuestion
from fvs_ros.evaluation.benchmarks.windows import Window
from fvs_ros.evaluation.grading import AnswerKind
from fvs_ros.evaluation.parsing import without_options
from fvs_ros.evaluation.questions import QUESTIONS_FILE, TimedQuestion, write_questions
from fvs_ros.evaluation.statistics import grouped
from fvs_ros.hashing import config_hash
from fvs_ros.sources.frame import SECOND_NS, Frame, Pose
from fvs_ros.sources.sampling import RatePolicy

if TYPE_CHECKING:
    from fvs_ros.evaluation.benchmarks.navqa import Poses

JPEG_QUALITY = 95
CAMERA_FRAME = "camera"
MAP_FRAME = "map"
BAG = "bag"


def folder_name(video: str) -> str:
    """A name for a video's files: its path with `_` for what is not safe in a file's name, and a hash of it.

    Two paths may differ in such characters only.
    """
    safe = re.sub(r"[^\w.-]+", "_", video).strip("._")
    return f"{safe}-{config_hash(video)[:8]}"


def replays(questions: Iterable[BenchmarkQuestion]) -> list[Window]:
    """One window a video, from the earliest moment that any of its questions may see, without those that wait."""
    asked = [question for question in questions if question.kind is not AnswerKind.PROACTIVE]
    return [
        Window(
            video,
            min(question.start_time_s for question in members),
            tuple(sorted(members, key=lambda one: one.ask_time_s or 0.0)),
        )
        for video, members in sorted(grouped(asked, lambda question: [question.video]).items())
    ]


def timed_question(question: BenchmarkQuestion, end_ns: int) -> TimedQuestion:
    """A benchmark's question as asked at its moment, or at the end where it has none or lies behind it.

    Asked is the benchmark's prompt, or the plain question where options show the form of the answer. Times on the UNIX
    clock (NaVQA) stay stamps, others count from the video's start.

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


def write_replay(replay: Window, folder: Path, frames: Iterable[Frame], fps: float, poses: Poses | None = None) -> None:
    """Writes a bag of a video's frames, unless it is there, and its questions, into a folder.

    Args:
        replay: the video's questions.
        folder: gets `questions.jsonl` and `bag`; the bag appears under its name once it is complete.
        frames: of the video, in the order of time.
        fps: see `write_bag`.
        poses: of the camera's robot.

    Raises:
        SourceError: if the video cannot be read to its end.
        ValueError: if it has no frame.
        OSError: if the folder cannot be written.
    """
    from fvs_ros.sources.bags import Bag

    bag, partial = folder / BAG, folder / ".partial"
    if not bag.exists():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        # Within another folder: a bag's files carry the name of theirs.
        write_bag(frames, partial / BAG, fps, poses)
        (partial / BAG).rename(bag)
        partial.rmdir()
    with Bag(bag) as opened:
        end_ns = opened.start_ns + opened.duration_ns
    write_questions(folder / QUESTIONS_FILE, [timed_question(question, end_ns) for question in replay.questions])


def write_bag(frames: Iterable[Frame], bag: Path, fps: float = 1.0, poses: Poses | None = None) -> int:
    """Writes frames as an MCAP bag of compressed images, one frame in memory at a time.

    The frames kept are those that the node keeps at `fps` (`RatePolicy`), so that it sees in the bag what it would see
    in the video. Poses between the first and the last frame come as odometry.

    Args:
        frames: in stamp order.
        bag: the bag's folder, which must not exist.
        fps: most frames a second.
        poses: of the camera's robot.

    Returns:
        How many frames were written.

    Raises:
        SourceError: if the frames cannot be read to their end.
        FileExistsError: if `bag` exists.
        ValueError: if `fps` is not positive, or there is no frame.
    """
    from fvs_ros.sources.bag_writer import IMAGE_TOPIC, ODOMETRY_TOPIC, BagWriter

    if not fps > 0:
        raise ValueError(f"fps is {fps}, frames per second above 0 expected")
    if bag.exists():
        raise FileExistsError(f"{bag} exists; choose another folder")
    rate = RatePolicy(fps)
    stamps_ns: list[int] = []
    topics = [IMAGE_TOPIC] if poses is None else [IMAGE_TOPIC, ODOMETRY_TOPIC]
    with BagWriter(bag, topics, JPEG_QUALITY) as writer:
        for frame in frames:
            if rate.keep(frame.stamp_ns):
                writer.write_image(frame.stamp_ns, CAMERA_FRAME, frame.image())
                stamps_ns.append(frame.stamp_ns)
        if poses is not None and stamps_ns:
            for time_s, position, orientation in zip(poses.times_s, poses.positions, poses.orientations, strict=True):
                stamp_ns = round(time_s * SECOND_NS)
                if stamps_ns[0] <= stamp_ns <= stamps_ns[-1]:
                    writer.write_odometry(stamp_ns, Pose(MAP_FRAME, position, orientation), CAMERA_FRAME)
    if not stamps_ns:
        raise ValueError("there is no frame to write")
    return len(stamps_ns)
