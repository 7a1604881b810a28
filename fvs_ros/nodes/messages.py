"""The engine's plain data as ROS messages."""

from __future__ import annotations

from array import array
from dataclasses import fields, replace
from typing import Any, TypeVar

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PointStamped, PoseStamped, Quaternion, Vector3
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.msg import Count, MemoryState
from fvs_ros.msg import Moment as MomentMessage
from fvs_ros.msg import StreamStatistics as StatisticsMessage
from fvs_ros.sources.frame import SECOND_NS, Area, Pose
from fvs_ros.sources.stamp_guard import ClockMove
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.recording import RecordingStatus
from fvs_ros.stream.types import (
    Answer,
    AskError,
    AskOptions,
    ChatMessage,
    Kept,
    MemoryStatus,
    Moment,
    Picture,
    StreamStatistics,
)

# Both have the fields of an answer, but share no class.
AnswerMessage = TypeVar("AnswerMessage", bound=Any)  # fvs_ros.srv.Ask.Response or fvs_ros.action.Ask.Result

NOTHING_RECORDED = RecordingStatus()


def time_message(stamp_ns: int) -> Time:
    """A stamp in nanoseconds as a message."""
    seconds, nanoseconds = divmod(stamp_ns, SECOND_NS)
    return Time(sec=seconds, nanosec=nanoseconds)


def stamp_nanoseconds(stamp: Time) -> int:
    """A message's stamp in nanoseconds."""
    return stamp.sec * SECOND_NS + stamp.nanosec


def open_stamp(stamp: Time) -> int | None:
    """One end of a range of stamps in nanoseconds; None for zero, which leaves it open."""
    return stamp_nanoseconds(stamp) or None


def ask_options(request: Any, config: StreamConfig) -> AskOptions:
    """The options of a request, service or action, where zero means the parameter as it is now."""
    return AskOptions(
        max_new_tokens=request.max_new_tokens or config.max_new_tokens,
        timeout_s=request.timeout_s or config.timeout_s,
        fresh=request.fresh,
        since_ns=open_stamp(request.since),
        until_ns=open_stamp(request.until),
        near=area_of(request.near, request.radius_m),
        choices=tuple(request.choices),
        json_schema=request.json_schema,
        history=tuple(ChatMessage(message.role, message.text) for message in request.history),
        with_images=request.with_images,
    )


def area_of(point: PointStamped, radius_m: float) -> Area | None:
    """The area around a point; None where the request names neither a point nor a radius."""
    area = Area(point.header.frame_id, point.point.x, point.point.y, radius_m)
    return None if area == Area("", 0.0, 0.0, 0.0) else area


def fill_answer(message: AnswerMessage, answer: Answer, with_all_moments: bool = False) -> AnswerMessage:
    """Fills in a response or a result with an answer, and returns it."""
    message.success = True
    message.error_code = message.NONE
    message.answer = answer.text
    message.moments = [moment_message(moment) for moment in answer.moments]
    if with_all_moments:
        message.all_moments = [moment_message(moment) for moment in answer.all_moments]
    message.confidence = float(answer.confidence)
    message.confidence_calibrated = answer.calibrated
    message.not_seen = answer.not_seen
    message.choice_probabilities = answer.choice_probabilities
    message.truncated = answer.truncated
    message.memory_version = answer.memory_version
    message.memory_start = time_message(answer.start_ns)
    message.memory_end = time_message(answer.end_ns)
    message.memory_steps = answer.steps
    message.first_token_s = answer.first_token_s
    message.total_s = answer.total_s
    message.model = answer.model_name
    return message


def fill_error(message: AnswerMessage, error: AskError) -> AnswerMessage:
    """Fills in a response or a result with why there is no answer, and returns it."""
    message.success = False
    message.error_code = int(error.code)
    message.error_message = str(error)
    return message


def moment_message(moment: Moment) -> MomentMessage:
    """One moment that the model had in front of it."""
    message = MomentMessage(
        stamp=time_message(moment.stamp_ns),
        start=time_message(moment.start_ns),
        end=time_message(moment.end_ns),
        weight=float(moment.weight),
        frame_id=moment.frame_id,
        pose_valid=moment.pose is not None,
        ranked=moment.relevance is not None,
        kept=int(moment.kept),
    )
    if moment.pose is not None:
        message.pose = pose_message(moment.pose, moment.stamp_ns)
    if moment.relevance is not None:
        message.relevance = float(moment.relevance)
    if moment.picture is not None:
        message.image = picture_message(moment.picture)
    return message


def picture_message(picture: Picture) -> CompressedImage:
    """A picture of what was seen, with the stamp and the camera that it was taken by."""
    header = Header(stamp=time_message(picture.stamp_ns), frame_id=picture.frame_id)
    # An array, which rclpy takes as it is; bytes it would copy value by value.
    return CompressedImage(header=header, format="jpeg", data=array("B", picture.jpeg))


def answer_of(message: AnswerMessage) -> Answer:
    """The answer of a response or a result; the opposite of `fill_answer`."""
    return Answer(
        text=message.answer,
        moments=tuple(map(pictured_moment, message.moments)),
        memory_version=message.memory_version,
        start_ns=stamp_nanoseconds(message.memory_start),
        end_ns=stamp_nanoseconds(message.memory_end),
        steps=message.memory_steps,
        first_token_s=message.first_token_s,
        total_s=message.total_s,
        model_name=message.model,
        all_moments=tuple(map(moment_of, message.all_moments)),
        confidence=message.confidence,
        calibrated=message.confidence_calibrated,
        not_seen=message.not_seen,
        choice_probabilities=tuple(message.choice_probabilities),
        truncated=message.truncated,
    )


def placeless_moment(message: MomentMessage) -> Moment:
    """A message's moment, without the camera's frame and pose, and without how the memory shows it."""
    return Moment(
        stamp_ns=stamp_nanoseconds(message.stamp),
        start_ns=stamp_nanoseconds(message.start),
        end_ns=stamp_nanoseconds(message.end),
        weight=message.weight,
        relevance=message.relevance if message.ranked else None,
    )


def moment_of(message: MomentMessage) -> Moment:
    """A message's moment, without its picture."""
    moment = replace(placeless_moment(message), frame_id=message.frame_id, kept=Kept(message.kept))
    if not message.pose_valid:
        return moment
    at = message.pose.pose
    return replace(moment, pose=pose_of(message.pose.header.frame_id, at.position, at.orientation))


def pictured_moment(message: MomentMessage) -> Moment:
    """A message's moment, with its picture if it has one."""
    moment = moment_of(message)
    return replace(moment, picture=picture_of(message.image)) if len(message.image.data) else moment


def picture_of(message: CompressedImage, pose: Pose | None = None) -> Picture:
    """The picture of a message, and where it was taken."""
    return Picture(stamp_nanoseconds(message.header.stamp), bytes(message.data), message.header.frame_id, pose)


def pose_message(pose: Pose, stamp_ns: int) -> PoseStamped:
    """A pose as it was at a stamp."""
    message = PoseStamped(header=Header(stamp=time_message(stamp_ns), frame_id=pose.frame_id))
    message.pose.position = Point(**dict(zip("xyz", pose.position, strict=True)))
    message.pose.orientation = Quaternion(**dict(zip("xyzw", pose.orientation, strict=True)))
    return message


def pose_of(frame_id: str, position: Point | Vector3, orientation: Quaternion) -> Pose:
    """A pose of a message, in the coordinate frame `frame_id`."""
    return Pose(
        frame_id,
        (position.x, position.y, position.z),
        (orientation.x, orientation.y, orientation.z, orientation.w),
    )


def memory_message(status: MemoryStatus, capacity: FlashMemoryConfig, model: str, now: Time) -> MemoryState:
    """The memory as it stands.

    Args:
        status: what is in it.
        capacity: how many slots there are.
        model: name of the model.
        now: when this is published.
    """
    return MemoryState(
        header=Header(stamp=now, frame_id=status.frame_id),
        version=status.version,
        episode=status.episode,
        steps=status.steps,
        csm_slots=status.csm_slots,
        csm_capacity=capacity.csm_slots,
        dam_slots=status.dam_slots,
        dam_capacity=capacity.dam_slots,
        start=time_message(status.start_ns),
        end=time_message(status.end_ns),
        bytes=status.bytes,
        model=model,
    )


def memory_status(message: MemoryState) -> MemoryStatus:
    """The memory of a message; the opposite of `memory_message`."""
    return MemoryStatus(
        version=message.version,
        episode=message.episode,
        steps=message.steps,
        csm_slots=message.csm_slots,
        dam_slots=message.dam_slots,
        start_ns=stamp_nanoseconds(message.start),
        end_ns=stamp_nanoseconds(message.end),
        bytes=message.bytes,
        frame_id=message.header.frame_id,
    )


# Told in diagnostics alone.
_UNTOLD = ("recalls",)


def statistics_message(
    statistics: StreamStatistics, now: Time, recording: RecordingStatus = NOTHING_RECORDED
) -> StatisticsMessage:
    """All counters of the stream and of what is stored of it, as they stand at `now`."""
    values = {name: value for name, value in vars(statistics).items() if name not in _UNTOLD}
    move = values.pop("clock_move") or ClockMove(0, 0)
    counts = {name: _counts(value) for name, value in values.items() if isinstance(value, dict)}
    clock = {"clock_before": time_message(move.before_ns), "clock_after": time_message(move.after_ns)}
    return StatisticsMessage(
        stamp=now,
        segments=recording.segments,
        segments_evicted=recording.evicted,
        unrecorded_steps=recording.unrecorded_steps,
        **{**values, **counts, **clock},
    )


def stream_statistics(message: StatisticsMessage) -> StreamStatistics:
    """The stream's counters of a message; the opposite of `statistics_message`."""
    names = {field.name for field in fields(StreamStatistics)} - {"clock_move", *_UNTOLD}
    values = {name: getattr(message, name) for name in names}
    move = ClockMove(stamp_nanoseconds(message.clock_before), stamp_nanoseconds(message.clock_after))
    values["clock_move"] = move if move != ClockMove(0, 0) else None
    for name in ("rejected", "failed"):
        values[name] = {count.name: count.count for count in values[name]}
    return StreamStatistics(**values)


def _counts(counts: dict[str, int]) -> list[Count]:
    return [Count(name=name, count=count) for name, count in sorted(counts.items())]
