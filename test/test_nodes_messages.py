"""Plain data to messages."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from conftest import require_ros

require_ros()
from builtin_interfaces.msg import Time
from fvs_ros.action import Ask as AskAction
from fvs_ros.srv import Ask as AskService
from geometry_msgs.msg import Point, PointStamped
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.nodes.messages import (
    answer_of,
    ask_options,
    fill_answer,
    fill_error,
    memory_message,
    memory_status,
    moment_message,
    stamp_nanoseconds,
    statistics_message,
    stream_statistics,
    time_message,
)
from fvs_ros.sources.frame import Area, Pose
from fvs_ros.sources.stamp_guard import ClockMove
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.recording import RecordingStatus
from fvs_ros.stream.types import (
    Answer,
    AskError,
    AskOptions,
    ErrorCode,
    Kept,
    MemoryStatus,
    Moment,
    Picture,
    StreamStatistics,
)

POSE = Pose("map", (1.0, 2.0, 3.0), (0.0, 0.6, 0.0, 0.8))
MOMENT = Moment(
    1_000_000_005, 900_000_000, 2_000_000_000, 3.0, "camera", POSE, 0.25, kept=Kept.SYNOPSIS | Kept.RECALLED
)
ANSWER = Answer(
    "A door.",
    (MOMENT,),
    7,
    900_000_000,
    4_000_000_000,
    12,
    0.5,
    1.5,
    "tiny",
    confidence=0.75,
    calibrated=True,
    not_seen=True,
    choice_probabilities=(0.75, 0.25),
)


@pytest.mark.parametrize("stamp_ns", [0, 5, 999_999_999, 1_700_000_000_000_000_005, -1])
def test_stamps_survive_to_the_nanosecond(stamp_ns: int) -> None:
    assert stamp_nanoseconds(time_message(stamp_ns)) == stamp_ns


def test_five_nanoseconds_are_not_half_a_second() -> None:
    assert time_message(1_000_000_005) == Time(sec=1, nanosec=5)


@pytest.mark.parametrize("message", [AskService.Response, AskAction.Result])
def test_an_answer_fills_the_service_and_the_action_alike(message: type) -> None:
    filled = fill_answer(message(), ANSWER)
    assert (filled.success, filled.error_code, filled.error_message) == (True, 0, "")
    assert (filled.answer, filled.model, filled.memory_version, filled.memory_steps) == ("A door.", "tiny", 7, 12)
    assert (filled.memory_start, filled.memory_end) == (time_message(900_000_000), time_message(4_000_000_000))
    assert (filled.first_token_s, filled.total_s) == (0.5, 1.5)
    assert filled.moments == [moment_message(MOMENT)]
    assert (filled.confidence, filled.confidence_calibrated, filled.not_seen) == (0.75, True, True)
    assert list(filled.choice_probabilities) == [0.75, 0.25]


@pytest.mark.parametrize("message", [AskService.Response, AskAction.Result])
def test_an_answer_survives_being_a_message(message: type) -> None:
    answer = replace(ANSWER, all_moments=(MOMENT, replace(MOMENT, pose=None, relevance=None)))
    answer = replace(answer, choice_probabilities=(0.25, 0.75))
    assert answer_of(fill_answer(message(), answer, with_all_moments=True)) == answer


def test_a_memory_survives_being_a_message() -> None:
    status = MemoryStatus(3, 2, 12, 5, 4, 900_000_000, 4_000_000_001, 1024, "camera")
    assert memory_status(memory_message(status, FlashMemoryConfig(), "tiny", Time())) == status


@pytest.mark.parametrize("message", [AskService.Response, AskAction.Result])
def test_an_error_carries_its_code_and_what_to_do(message: Any) -> None:
    filled = fill_error(message(), AskError(ErrorCode.BUSY, "ask less often"))
    assert (filled.success, filled.error_code, filled.error_message) == (False, message.BUSY, "ask less often")


@pytest.mark.parametrize("message", [AskService.Response, AskAction.Result])
def test_the_error_codes_of_the_interfaces_are_the_engines(message: type) -> None:
    for code in ErrorCode:
        assert getattr(message, code.name) == code.value


def test_a_moment_says_which_of_its_fields_are_valid() -> None:
    full = moment_message(MOMENT)
    assert (full.pose_valid, full.ranked, full.relevance) == (True, True, 0.25)
    assert full.pose.header.frame_id == "map"
    assert full.pose.header.stamp == full.stamp == time_message(1_000_000_005)
    assert (full.pose.pose.position.z, full.pose.pose.orientation.y) == (3.0, 0.6)
    bare = moment_message(Moment(1, 1, 2, 1.0))
    assert (bare.pose_valid, bare.ranked) == (False, False)


def test_the_memory_tells_its_fill_and_its_span() -> None:
    status = MemoryStatus(3, 1, 5, 4, 2, 1_000_000_000, 9_000_000_000, 1024, frame_id="camera")
    message = memory_message(status, FlashMemoryConfig(6, 3), "tiny", Time(sec=10))
    assert (message.header.stamp.sec, message.header.frame_id) == (10, "camera")
    assert (message.version, message.episode, message.steps, message.bytes) == (3, 1, 5, 1024)
    assert (message.csm_slots, message.csm_capacity, message.dam_slots, message.dam_capacity) == (4, 6, 2, 3)
    assert (message.start.sec, message.end.sec, message.model) == (1, 9, "tiny")


@pytest.mark.parametrize("move", [None, ClockMove(7_000_000_001, 5)])
def test_every_counter_survives_its_message(move: ClockMove | None) -> None:
    statistics = StreamStatistics(
        rejected={"step": 2, "empty": 1},
        failed={"BUSY": 3},
        wrong_stamp="two frames",
        clock_move=move,
        ingest_error="out of memory",
    )
    for number, field in enumerate(fields(StreamStatistics)):
        # Told in diagnostics alone.
        if field.name != "recalls" and isinstance(getattr(statistics, field.name), int | float):
            setattr(statistics, field.name, number + 1)
    recording = RecordingStatus(segments=101, evicted=102, unrecorded_steps=103)
    message = statistics_message(statistics, Time(sec=10), recording)
    assert message.stamp.sec == 10
    assert (message.segments, message.segments_evicted, message.unrecorded_steps) == (101, 102, 103)
    assert [(count.name, count.count) for count in message.rejected] == [("empty", 1), ("step", 2)]
    assert stream_statistics(message) == statistics


def test_a_picture_comes_with_its_own_stamp_and_camera() -> None:
    assert moment_message(MOMENT).image == CompressedImage()
    message = moment_message(replace(MOMENT, picture=Picture(1_500_000_000, b"\xff\xd8 a picture", "eye"))).image
    assert (message.format, bytes(message.data)) == ("jpeg", b"\xff\xd8 a picture")
    assert (message.header.stamp, message.header.frame_id) == (time_message(1_500_000_000), "eye")


@pytest.mark.parametrize("request_type", [AskService.Request, AskAction.Goal])
def test_a_request_alone_asks_as_ever(request_type: type) -> None:
    config = StreamConfig()
    expected = AskOptions(max_new_tokens=config.max_new_tokens, timeout_s=config.timeout_s)
    assert ask_options(request_type(), config) == expected
    point = PointStamped(header=Header(frame_id="map"), point=Point(x=1.0, y=-2.0, z=9.0))
    options = ask_options(request_type(near=point, radius_m=1.5, with_images=True), config)
    assert options == replace(expected, near=Area("map", 1.0, -2.0, 1.5), with_images=True)
    # A half of the wish is checked by the engine, and not passed over.
    assert ask_options(request_type(near=point), config).near == Area("map", 1.0, -2.0, 0.0)
    assert ask_options(request_type(radius_m=1.5), config).near == Area("", 0.0, 0.0, 1.5)
