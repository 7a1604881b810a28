"""Timed questions to the running node, over DDS, while a recording plays: the answers that a robot would have got."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.timed.replay import MemoryPoint
from fvs_ros.msg import MemoryState
from fvs_ros.nodes.messages import placeless_moment, stamp_nanoseconds, stream_statistics
from fvs_ros.nodes.qos import latched_qos
from fvs_ros.ros_tools.client import DEFAULT_NODE, FlashVStreamClient, RefusedError
from fvs_ros.ros_tools.processes import Processes, ros_arguments
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.types import AskError, FrameCounters, StreamStatistics

# A node that still loads a large checkpoint.
START_TIMEOUT_S = 600.0
_SETTLE_TIMEOUT_S = 30.0
_STALL_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class LiveOptions:
    """How the running node is driven.

    Attributes:
        recording: played by `replay_node` in a process of its own.
        rate: recorded seconds per wall-clock second.
        node: the stream node's full name.
        max_new_tokens: the answers' longest length.
        start_timeout_s: longest wait for the node to be active, and to be subscribed to the recording's images.
    """

    recording: Path
    rate: float = 1.0
    node: str = DEFAULT_NODE
    max_new_tokens: int = 128
    start_timeout_s: float = START_TIMEOUT_S


@dataclass
class LiveResult:
    """What the node did.

    Attributes:
        rows: answers by the question's id.
        asked_late_s: how late each question was asked, in seconds of the recording; it waits for the answer before it.
        behind_s: how far the memory of each answer was behind the moment of asking, in seconds of the recording.
        memory: as it grew.
        statistics: of the frames of this run.
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

    Only one question is open at a time, so none is refused as busy; the next ones wait for it.

    Args:
        options: what is played to whom.
        questions: with stamps on the recording's clock.
        start_ns: stamp of the recording's first frame.
        on_time: called with the recorded seconds that have been played.
        on_row: called with each answer.

    Raises:
        TimeoutError: the node is not active in time, or nothing moves any more.
        RefusedError: the node cannot become active, as with a model that cannot be loaded, or cannot reset its memory.
        ProcessError: the replay fails.
    """
    with tempfile.TemporaryDirectory(prefix="fvs_live_") as folder:
        run = _LiveRun(options, Processes(Path(folder), os.environ), start_ns, on_time)
        with run.client:
            before = run.prepare()
            try:
                run.play()
                for question in sorted(questions, key=lambda one: one.time_ns):
                    on_row(run.ask_at_its_time(question))
                run.watch_to_the_end()
            finally:
                run.processes.stop()
            run.settle(before)
    return run.result


class _LiveRun:
    """Watches the node and asks it; knows nothing of it but its public interface."""

    def __init__(
        self, options: LiveOptions, processes: Processes, start_ns: int, on_time: Callable[[float], None]
    ) -> None:
        self.result = LiveResult()
        self.processes = processes
        self._options = options
        self._start_ns = start_ns
        self._on_time = on_time
        self._now_ns = 0
        self._recording = False
        # Whether something must move, and when it did last, on the steady clock.
        self._playing = False
        self._moved_s = 0.0
        # Why the node does not become active, as it reports.
        self._problem = ""
        self.client = FlashVStreamClient(options.node, on_wait=self._check)
        node = self.client.ros_node
        node.create_subscription(Clock, "/clock", self._on_clock, qos_profile_sensor_data)
        node.create_subscription(MemoryState, f"{options.node}/memory", self._on_memory, latched_qos())
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def prepare(self) -> FrameCounters:
        """Waits for the node and empties its memory; returns what it has counted so far."""
        try:
            self.client.wait_until_active(self._options.start_timeout_s)
        except TimeoutError as error:
            raise TimeoutError(
                f"{error}; start it (ros2 launch fvs_ros stream.launch.py use_sim_time:=true), or name it with --node"
            ) from error
        self.client.reset()
        return stream_statistics(self.client.next_statistics())

    def play(self) -> None:
        """Starts the recording; from now on something must move."""
        self._recording = self._playing = True
        parameters = {
            "bag": self._options.recording.resolve(),
            "rate": float(self._options.rate),
            "wait_for_subscriber": float(self._options.start_timeout_s),
        }
        self.processes.start(
            "fvs_ros.nodes.replay_node",
            ros_arguments(parameters, remap={"__node": "fvs_evaluate_replay"}),
            may_finish=True,
        )

    def ask_at_its_time(self, question: TimedQuestion) -> AnswerRow:
        """Asks once the recording's time has come; returns the answer."""
        self._wait_for(lambda: self._now_ns >= question.time_ns or self.processes.finished())
        asked_ns = max(self._now_ns, question.time_ns)
        self.result.asked_late_s.append((asked_ns - question.time_ns) / SECOND_NS)
        row = self._answer(question, asked_ns)
        self.result.rows[row.id] = row
        return row

    def _answer(self, question: TimedQuestion, asked_ns: int) -> AnswerRow:
        self._moved_s = time.monotonic()
        try:
            # The node's own timeout; if it does not keep to that, the stall ends the wait.
            response = self.client.ask(question.question, max_new_tokens=self._options.max_new_tokens, timeout_s=0)
        except AskError as error:
            text = f"{error.code.name}: {error}"
            return AnswerRow(question.id, question.question, question.answer, None, error=text)
        self.result.model = response.model
        self.result.behind_s.append((asked_ns - stamp_nanoseconds(response.memory_end)) / SECOND_NS)
        return AnswerRow(
            id=question.id,
            question=question.question,
            answer=question.answer,
            response=response.answer,
            first_token_s=response.first_token_s,
            total_s=response.total_s,
            memory_version=response.memory_version,
            memory_steps=response.memory_steps,
            moments=tuple(map(placeless_moment, response.moments)),
            prefilled=False,
        )

    def watch_to_the_end(self) -> None:
        """Waits for the recording's end."""
        self._wait_for(self.processes.finished)
        self._playing = False

    def settle(self, before: FrameCounters) -> None:
        """Waits until no frame is on its way any more, and takes what was counted since `before`."""
        deadline = time.monotonic() + _SETTLE_TIMEOUT_S
        after = stream_statistics(self.client.next_statistics())
        while after.waiting and time.monotonic() < deadline:
            after = stream_statistics(self.client.next_statistics())
        self.result.statistics = _difference(after, before)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        """Without a time limit, as long as anything moves."""
        self._moved_s = time.monotonic()
        self.client.wait_for(condition, "the recording", math.inf)

    def _check(self) -> None:
        self.processes.check()
        if self._problem and not self._recording:
            raise RefusedError(f"{self._options.node} cannot become active: {self._problem}")
        if self._playing and time.monotonic() > self._moved_s + max(_STALL_TIMEOUT_S, self._options.start_timeout_s):
            raise TimeoutError("neither the recording nor the memory moves any more; look into the node's log")

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f"{self._options.node.lstrip('/')}: stream":
                self._problem = status.message if status.level == DiagnosticStatus.ERROR else ""

    def _on_clock(self, message: Clock) -> None:
        self._now_ns = stamp_nanoseconds(message.clock)
        self._moved_s = time.monotonic()
        self._on_time(max(0.0, (self._now_ns - self._start_ns) / SECOND_NS))

    def _on_memory(self, message: MemoryState) -> None:
        self._moved_s = time.monotonic()
        if self._recording and message.steps:
            time_s = (stamp_nanoseconds(message.end) - self._start_ns) / SECOND_NS
            self.result.memory.append(
                MemoryPoint(time_s, message.steps, message.csm_slots, message.dam_slots, message.bytes)
            )


def _difference(after: FrameCounters, before: FrameCounters) -> StreamStatistics:
    """The frames that were counted in between."""
    names = ("received", "skipped", "late", "dropped", "discarded", "ingested", "waiting", "episodes")
    counts = {name: getattr(after, name) - getattr(before, name) for name in names}
    return StreamStatistics(**counts, rejected=Counter(after.rejected) - Counter(before.rejected))
