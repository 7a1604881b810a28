"""Timed questions to the running node, over DDS, while a recording plays: what a robot would have been told."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.timed.replay import MemoryPoint
from fvs_ros.msg import MemoryState
from fvs_ros.nodes.messages import stamp_nanoseconds
from fvs_ros.ros_tools.processes import DemoError, Processes
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.srv import Ask
from fvs_ros.stream.types import ErrorCode, Moment, StreamStatistics

# A node that still loads a large checkpoint.
START_TIMEOUT_S = 600.0
# `/diagnostics` comes once a second.
_SETTLE_TIMEOUT_S = 30.0
_STALL_TIMEOUT_S = 60.0
_COUNTERS = {
    "received": "received",
    "skipped": "skipped (not due or paused)",
    "late": "late",
    "dropped": "dropped (model too slow)",
    "discarded": "discarded (reset or new episode)",
    "ingested": "ingested",
    "waiting": "waiting",
    "episodes": "backward stamps",
}


@dataclass(frozen=True)
class LiveOptions:
    """How the running node is driven.

    Attributes:
        recording: played by `replay_node` in a process of its own.
        rate: recorded seconds per wall-clock second.
        node: the stream node's full name; its service `ask` lies in the same namespace.
        max_new_tokens: the answers' longest length.
        start_timeout_s: longest wait for the node to answer, and to be subscribed to the recording's images.
    """

    recording: Path
    rate: float = 1.0
    node: str = "/stream_node"
    max_new_tokens: int = 128
    start_timeout_s: float = START_TIMEOUT_S

    @property
    def ask_service(self) -> str:
        """The service's full name."""
        return f"{self.node.rpartition('/')[0]}/ask"


@dataclass
class LiveResult:
    """What the node did.

    Attributes:
        rows: answers by the question's id.
        asked_late_s: of each question, seconds of the recording by which it was asked late, because the one before was
            still being answered.
        behind_s: of each answer, seconds of the recording from the newest frame in the memory that was read to the
            moment of asking.
        memory: as it grew.
        statistics: of the frames of this run, as `/diagnostics` counts them.
        model: as the node calls it.
    """

    rows: dict[str, AnswerRow] = field(default_factory=dict)
    asked_late_s: list[float] = field(default_factory=list)
    behind_s: list[float] = field(default_factory=list)
    memory: list[MemoryPoint] = field(default_factory=list)
    statistics: StreamStatistics = field(default_factory=StreamStatistics)
    model: str = ""


def evaluate_live(
    options: LiveOptions,
    questions: Sequence[TimedQuestion],
    start_ns: int,
    on_time: Callable[[float], None],
    on_row: Callable[[AnswerRow], None],
) -> LiveResult:
    """Resets the node's memory, plays a recording to it and asks each question when its time comes.

    One question is out at a time, so that none is refused as busy; the next ones wait for it.

    Args:
        options: what is played to whom.
        questions: with stamps on the recording's clock.
        start_ns: stamp of the recording's first frame.
        on_time: told the recorded seconds that have been played.
        on_row: told each answer.

    Raises:
        DemoError: the node is not there, the replay fails, or nothing moves any more.
    """
    with (
        tempfile.TemporaryDirectory(prefix="fvs_live_") as folder,
        _live(options, start_ns, on_time) as live,
    ):
        live.prepare()
        processes = Processes(Path(folder), os.environ)
        try:
            processes.start(
                "fvs_ros.nodes.replay_node",
                ["--ros-args", *_parameters(options), "-r", "__node:=fvs_evaluate_replay"],
                may_finish=True,
            )
            live.ask_all(sorted(questions, key=lambda one: one.time_ns), processes, on_row)
        finally:
            processes.stop()
        live.settle()
        return live.result


def _parameters(options: LiveOptions) -> list[str]:
    values = {
        "bag": options.recording.resolve(),
        "rate": float(options.rate),
        "wait_for_subscriber": float(options.start_timeout_s),
    }
    return [part for name, value in values.items() for part in ("-p", f"{name}:={value}")]


@contextmanager
def _live(options: LiveOptions, start_ns: int, on_time: Callable[[float], None]) -> Iterator[_Live]:
    # Signals end this through Python, so that the replay is stopped in any case.
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("fvs_evaluate", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        yield _Live(node, executor, options, start_ns, on_time)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)


class _Live:
    """Watches the node and asks it; knows nothing of it but its public interface."""

    def __init__(
        self,
        node: Any,
        executor: SingleThreadedExecutor,
        options: LiveOptions,
        start_ns: int,
        on_time: Callable[[float], None],
    ) -> None:
        self.result = LiveResult()
        self._executor = executor
        self._options = options
        self._start_ns = start_ns
        self._on_time = on_time
        self._now_ns = 0
        self._moved = time.monotonic()
        self._counters: dict[str, str] = {}
        self._counted = 0
        self._before: dict[str, str] = {}
        self._recording = False
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(Clock, "/clock", self._on_clock, qos_profile_sensor_data)
        node.create_subscription(MemoryState, f"{options.node}/memory", self._on_memory, latched)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._ask = node.create_client(Ask, options.ask_service)
        self._reset = node.create_client(Trigger, f"{options.node}/reset")

    def prepare(self) -> None:
        """Waits for the node, empties its memory and notes what it has counted so far."""
        self._spin_until(
            lambda: self._ask.service_is_ready() and self._reset.service_is_ready(),
            self._options.start_timeout_s,
            f"{self._options.ask_service} and {self._options.node}/reset are not offered; start the node (ros2 launch "
            "fvs_ros stream.launch.py use_sim_time:=true), or name it with --node",
        )
        done = self._reset.call_async(Trigger.Request())
        self._spin_until(done.done, _SETTLE_TIMEOUT_S, "the node did not reset its memory")
        if not done.result().success:
            raise DemoError(f"{self._options.node} cannot reset its memory: {done.result().message}; activate it first")
        self._fresh_counters()
        self._before = dict(self._counters)
        self._recording = True

    def ask_all(
        self, questions: Sequence[TimedQuestion], processes: Processes, on_row: Callable[[AnswerRow], None]
    ) -> None:
        """Asks each question once the recording's time has come, and waits for the recording's end."""
        for question in questions:
            self._spin_until(
                lambda question=question: self._now_ns >= question.time_ns or processes.finished(),  # type: ignore[misc]
                None,
                "",
                processes,
            )
            row = self._answer(question, processes)
            self.result.rows[row.id] = row
            on_row(row)
        self._spin_until(processes.finished, None, "", processes)

    def _answer(self, question: TimedQuestion, processes: Processes) -> AnswerRow:
        asked_ns = max(self._now_ns, question.time_ns)
        request = Ask.Request(question=question.question, max_new_tokens=self._options.max_new_tokens)
        future = self._ask.call_async(request)
        self._spin_until(future.done, None, "", processes)
        response = future.result()
        self.result.asked_late_s.append((asked_ns - question.time_ns) / SECOND_NS)
        if not response.success:
            error = f"{ErrorCode(response.error_code).name}: {response.error_message}"
            return AnswerRow(question.id, question.question, question.answer, None, error=error)
        self.result.model = response.model
        self.result.behind_s.append((asked_ns - stamp_nanoseconds(response.memory_end)) / SECOND_NS)
        moments = tuple(
            Moment(
                stamp_ns=stamp_nanoseconds(one.stamp),
                start_ns=stamp_nanoseconds(one.start),
                end_ns=stamp_nanoseconds(one.end),
                weight=one.weight,
                relevance=one.relevance if one.ranked else None,
            )
            for one in response.moments
        )
        return AnswerRow(
            id=question.id,
            question=question.question,
            answer=question.answer,
            response=response.answer,
            first_token_s=response.first_token_s,
            total_s=response.total_s,
            memory_version=response.memory_version,
            memory_steps=response.memory_steps,
            moments=moments,
            prefilled=False,
        )

    def settle(self) -> None:
        """Waits until no frame is on its way any more, and takes the counters."""
        deadline = time.monotonic() + _SETTLE_TIMEOUT_S
        self._fresh_counters()
        while self._counters.get(_COUNTERS["waiting"]) != "0" and time.monotonic() < deadline:
            self._fresh_counters()

        def grown(key: str) -> int:
            return int(self._counters.get(key, 0)) - int(self._before.get(key, 0))

        reasons = {key.removeprefix("rejected: "): grown(key) for key in self._counters if key.startswith("rejected: ")}
        counts: dict[str, Any] = {name: grown(key) for name, key in _COUNTERS.items()}
        rejected = {reason: count for reason, count in sorted(reasons.items()) if count}
        self.result.statistics = StreamStatistics(**counts, rejected=rejected)

    def _fresh_counters(self) -> None:
        seen = self._counted
        self._spin_until(
            lambda: self._counted > seen,
            _SETTLE_TIMEOUT_S,
            f"/diagnostics tells nothing of {self._options.node.rpartition('/')[2]}",
        )

    def _spin_until(
        self,
        condition: Callable[[], bool],
        timeout_s: float | None,
        problem: str,
        processes: Processes | None = None,
    ) -> None:
        """Spins; without a time limit, as long as anything moves."""
        begin = self._moved = time.monotonic()
        while not condition():
            if processes is not None:
                processes.check()
            now = time.monotonic()
            if timeout_s is not None and now > begin + timeout_s:
                raise DemoError(f"{problem}, within {timeout_s:.0f} s")
            if timeout_s is None and now > self._moved + max(_STALL_TIMEOUT_S, self._options.start_timeout_s):
                raise DemoError("neither the recording nor the memory moves any more; look into the node's log")
            self._executor.spin_once(timeout_sec=0.05)

    def _on_clock(self, message: Clock) -> None:
        self._now_ns = stamp_nanoseconds(message.clock)
        self._moved = time.monotonic()
        self._on_time(max(0.0, (self._now_ns - self._start_ns) / SECOND_NS))

    def _on_memory(self, message: MemoryState) -> None:
        self._moved = time.monotonic()
        if self._recording and message.steps:
            time_s = (stamp_nanoseconds(message.end) - self._start_ns) / SECOND_NS
            self.result.memory.append(
                MemoryPoint(time_s, message.steps, message.csm_slots, message.dam_slots, message.bytes)
            )

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        wanted = f"{self._options.node.rpartition('/')[2]}: stream"
        for status in message.status:
            if status.name.rpartition("/")[2] == wanted:
                self._counters = {one.key: one.value for one in status.values}
                self._counted += 1
