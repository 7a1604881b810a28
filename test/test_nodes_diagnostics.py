"""What the diagnostics say, and when they warn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from conftest import require_ros

require_ros()
from diagnostic_msgs.msg import DiagnosticStatus

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.nodes.diagnostics import Observation, StreamDiagnostics
from fvs_ros.sources.stamp_guard import ClockMove
from fvs_ros.stream.recording import RecordingStatus
from fvs_ros.stream.types import MemoryStatus, ModelFaults, StreamStatistics
from fvs_ros.stream.watches import WatchingStatus

BEFORE = Observation(
    now_s=10.0,
    state="active",
    active=True,
    topic="/image",
    publishers=1,
    image_age_s=0.1,
    device="cpu",
    statistics=StreamStatistics(received=100, ingested=10),
    memory=MemoryStatus(version=3, steps=5, csm_slots=5, dam_slots=3, end_ns=2_500_000_000, bytes=2_000_000),
    capacity=FlashMemoryConfig(6, 3),
    recording=RecordingStatus(segments=7, bytes=1_500_000, limit_bytes=4_000_000, evicted=2, unrecorded_steps=1),
    store="/data/store",
)


def after(**changes: Any) -> dict[str, DiagnosticStatus]:
    """The statuses one second later, with what has changed since."""
    diagnostics = StreamDiagnostics("node")
    diagnostics.statuses(BEFORE)
    statuses = diagnostics.statuses(replace(BEFORE, now_s=11.0, **changes))
    assert all(status.name.startswith("node: ") for status in statuses)
    assert all(status.hardware_id == "cpu" for status in statuses)
    return {status.name.split(": ")[1]: status for status in statuses}


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {value.key: value.value for value in status.values}


def test_rates_are_those_since_the_observation_before() -> None:
    stream = after(statistics=replace(BEFORE.statistics, received=130, ingested=11))["stream"]
    assert (stream.level, stream.message) == (DiagnosticStatus.OK, "receiving")
    assert values(stream)["rate (images/s)"] == "30.00"
    assert values(stream)["rate in memory (frames/s)"] == "1.00"


def test_the_memory_tells_its_fill() -> None:
    memory = after()["memory"]
    assert memory.message == "5 steps in 5 of 6 slots"
    assert values(memory)["size (MB)"] == "2.00"
    assert values(memory)["span (s)"] == "2.500"


@pytest.mark.parametrize(
    ("changes", "level", "hint"),
    [
        ({"silence": "no image on /image for 6 s"}, DiagnosticStatus.WARN, "no image on /image for 6 s"),
        ({"image_age_s": 6.0}, DiagnosticStatus.OK, "receiving"),
        ({"paused": True}, DiagnosticStatus.OK, "paused"),
        ({"faults": ModelFaults(ingest="encode_steps hangs")}, DiagnosticStatus.ERROR, "encode_steps hangs"),
        ({"faults": ModelFaults(out_of_memory="lower batch_steps")}, DiagnosticStatus.WARN, "lower batch_steps"),
        ({"active": False, "state": "inactive"}, DiagnosticStatus.OK, "not subscribed: inactive"),
        (
            {"active": False, "state": "loading the model", "progress": "1 of 2 GB"},
            DiagnosticStatus.OK,
            "not subscribed: loading the model (1 of 2 GB)",
        ),
        (
            {"active": False, "state": "unconfigured", "problem": "no such model"},
            DiagnosticStatus.ERROR,
            "unconfigured: no such model",
        ),
        (
            {"statistics": replace(BEFORE.statistics, rejected={"no_stamp": 2}), "last_rejection": "Do this."},
            DiagnosticStatus.WARN,
            "2 no_stamp. Do this.",
        ),
        ({"statistics": replace(BEFORE.statistics, dropped=1)}, DiagnosticStatus.WARN, "lower fps"),
        ({"statistics": replace(BEFORE.statistics, rejected={"step": 1})}, DiagnosticStatus.WARN, "1 step"),
        (
            {"statistics": replace(BEFORE.statistics, rejected={"model_error": 1}, ingest_error="out of memory")},
            DiagnosticStatus.ERROR,
            "out of memory",
        ),
    ],
)
def test_the_stream_warns_and_says_what_to_do(changes: dict[str, Any], level: bytes, hint: str) -> None:
    stream = after(**changes)["stream"]
    assert stream.level == level
    assert hint in stream.message


@pytest.mark.parametrize(
    ("failed", "level"),
    [({"MODEL_ERROR": 1}, DiagnosticStatus.ERROR), ({"BUSY": 1}, DiagnosticStatus.WARN), ({}, DiagnosticStatus.OK)],
)
def test_the_answers_warn_of_new_failures_only(failed: dict[str, int], level: bytes) -> None:
    diagnostics = StreamDiagnostics("node")
    diagnostics.statuses(BEFORE)
    failing = replace(BEFORE, now_s=11.0, statistics=replace(BEFORE.statistics, questions=1, failed=failed))
    assert diagnostics.statuses(failing)[2].level == level
    assert diagnostics.statuses(replace(failing, now_s=12.0))[2].level == DiagnosticStatus.OK


@pytest.mark.parametrize(
    ("watching", "level", "hint"),
    [
        (WatchingStatus(watches=3, looks=5, changes=1, lag_s=1.9), DiagnosticStatus.OK, "watches: 3"),
        (WatchingStatus(watches=100, lag_s=2.5), DiagnosticStatus.WARN, "100 watches are looked at up to 2.5 s late"),
        (WatchingStatus(watches=1, failed=2, error="RuntimeError: broken"), DiagnosticStatus.ERROR, "broken"),
    ],
)
def test_watches_that_are_late_or_fail_are_told(watching: WatchingStatus, level: bytes, hint: str) -> None:
    status = after(watching=watching)["watches"]
    assert status.level == level
    assert hint in status.message
    assert values(status)["watches"] == str(watching.watches)


def test_a_node_without_an_engine_says_so() -> None:
    stream, memory, answers, episodes, watches = StreamDiagnostics("node").statuses(
        Observation(1.0, "loading the model")
    )
    assert "loading the model" in stream.message
    assert "not configured" in memory.message
    assert answers.level == DiagnosticStatus.OK
    assert episodes.message == "no store: the node is not configured"
    assert (watches.level, watches.message) == (DiagnosticStatus.OK, "watches: 0")


def test_an_engine_made_anew_gives_no_negative_rate() -> None:
    stream = after(statistics=StreamStatistics(received=1))["stream"]
    assert values(stream)["rate (images/s)"] == "0.00"


def test_a_wrong_stamp_is_named() -> None:
    statistics = replace(BEFORE.statistics, rejected={"wrong_stamp": 1}, wrong_stamp="its stamp 615.000 s is wrong")
    stream = after(statistics=statistics)["stream"]
    assert (stream.level, stream.message) == (
        DiagnosticStatus.WARN,
        "bad images: 1 wrong_stamp. its stamp 615.000 s is wrong",
    )


def test_a_clock_that_was_set_is_a_warning_for_a_minute_that_names_both_stamps() -> None:
    diagnostics = StreamDiagnostics("node")
    diagnostics.statuses(BEFORE)
    move = ClockMove(109_000_000_000, 50_000_000_000)
    later = replace(BEFORE, statistics=replace(BEFORE.statistics, episodes=1, clock_move=move))
    messages = {}
    for now_s in (11.0, 70.0, 72.0):
        stream = diagnostics.statuses(replace(later, now_s=now_s))[0]
        messages[now_s] = (stream.level, stream.message)
    expected = (
        DiagnosticStatus.WARN,
        "the stream's clock moved by -59.000 s, from stamp 109.000 s to 50.000 s; the memory began anew",
    )
    assert messages == {11.0: expected, 70.0: expected, 72.0: (DiagnosticStatus.OK, "receiving")}


def test_a_question_that_hangs_is_an_error_of_the_answers() -> None:
    answers = after(faults=ModelFaults(answers="decode_step has not returned since 10:00:00 (130 s)"))["answers"]
    assert answers.level == DiagnosticStatus.ERROR
    assert "decode_step has not returned since 10:00:00" in answers.message


def test_the_episodes_tell_what_is_stored_and_where() -> None:
    episodes = after()["episodes"]
    assert (episodes.level, episodes.message) == (DiagnosticStatus.OK, "7 segments")
    told = values(episodes)
    assert told["store"] == "/data/store"
    assert told["size (MB)"] == "1.50 of 4.00"
    assert (told["segments"], told["segments evicted"], told["grid steps not recorded"]) == ("7", "2", "1")


@pytest.mark.parametrize(
    ("changes", "level", "message"),
    [
        ({"problem": "read only"}, DiagnosticStatus.WARN, "read only"),
        ({"restoring": "5 of 9 segments"}, DiagnosticStatus.OK, "5 of 9 segments"),
        ({"remaking": "3 to be made"}, DiagnosticStatus.OK, "3 to be made"),
        ({"remaking": "3 to be made", "problem": "read only"}, DiagnosticStatus.WARN, "read only"),
        (
            {"unrecorded_steps": 4, "problem": "the disk is full"},
            DiagnosticStatus.ERROR,
            "3 grid steps were not recorded: the disk is full",
        ),
        (
            {"unrecorded_steps": 2},
            DiagnosticStatus.ERROR,
            "1 grid steps were not recorded: the disk is slower than the stream",
        ),
    ],
)
def test_the_episodes_warn_of_what_is_wrong_and_err_while_steps_are_lost(
    changes: dict[str, Any], level: bytes, message: str
) -> None:
    episodes = after(recording=replace(BEFORE.recording, **changes))["episodes"]
    assert (episodes.level, episodes.message) == (level, message)


def test_steps_that_were_lost_before_are_no_error_now() -> None:
    diagnostics = StreamDiagnostics("node")
    losing = replace(BEFORE, recording=replace(BEFORE.recording, unrecorded_steps=9))
    for now, level in ((BEFORE, DiagnosticStatus.OK), (losing, DiagnosticStatus.ERROR), (losing, DiagnosticStatus.OK)):
        assert diagnostics.statuses(now)[3].level == level


def test_steps_that_a_folder_cannot_take_are_a_warning() -> None:
    lost = replace(BEFORE.recording, unrecorded_steps=4, problem="make its folder writable")
    episodes = after(recording=lost, store="/data/store (read only)")["episodes"]
    assert (episodes.level, episodes.message) == (DiagnosticStatus.WARN, "make its folder writable")
