"""Timed questions to the running node, over DDS, while a recording plays: the answers that a robot would have got."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import qos_profile_sensor_data
from rich.console import Console
from rosgraph_msgs.msg import Clock

from fvs_ros.evaluation.answers import AnswerFile, AnswerRow, claim_folder
from fvs_ros.evaluation.progress import RunProgress
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.timed.controls import MEMORY
from fvs_ros.evaluation.timed.replay import MemoryPoint, ReplayResult, answer_path
from fvs_ros.msg import MemoryState
from fvs_ros.nodes.messages import placeless_moment, stamp_nanoseconds, stream_statistics
from fvs_ros.nodes.qos import latched_qos
from fvs_ros.ros_tools.client import FlashVStreamClient, RefusedError
from fvs_ros.ros_tools.processes import Processes, ros_arguments
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.sources.recordings import FrameSource
from fvs_ros.stream.types import AskError, FrameCounters, StreamStatistics

# What the progress bar counts.
PROGRESS = "seconds of stream"
_SETTLE_TIMEOUT_S = 30.0
_STALL_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class LiveOptions:
    """How the running node is driven.

    Attributes:
        recording: played by `replay_node` in a process of its own.
        start_ns: stamp of its first frame.
        rate: recorded seconds per wall-clock second.
        node: the stream node's full name.
        max_new_tokens: the answers' longest length.
        start_timeout_s: longest wait for the node to be active, and to be subscribed to the recording's images.
    """

    recording: Path
    start_ns: int
    rate: float
    node: str
    max_new_tokens: int
    start_timeout_s: float


def replay_live(
    options: LiveOptions,
    source: FrameSource,
    questions: Sequence[TimedQuestion],
    settings: Mapping[str, object],
    out: Path,
    console: Console,
) -> ReplayResult:
    """Resets the node's memory, plays a recording to it and asks each question when its time comes.

    Only one question is open at a time, so none is refused as busy; the next ones wait for it. Each run is a new one,
    so that none continues where another ended.

    Args:
        options: what is played to whom.
        source: the recording, for its length.
        questions: with stamps on the recording's clock.
        settings: what answers depend on, for JSON.
        out: a folder, made where it is missing.
        console: shows progress.

    Raises:
        ValueError: `out` holds a run already.
        DataError: it holds one of other settings.
        TimeoutError: the node is not active in time, or nothing moves any more.
        RefusedError: the node cannot become active, as with a model that cannot be loaded, or cannot reset its memory.
        ProcessError: the replay fails.
    """
    config = claim_folder(out, settings)
    begin = time.perf_counter()
    progress = RunProgress({PROGRESS: source.duration_ns / SECOND_NS}, console)
    with AnswerFile(answer_path(out, MEMORY.name), config) as file:
        if file.rows:
            raise ValueError(f"{out} holds a live run already; choose another folder")
        with progress, tempfile.TemporaryDirectory(prefix="fvs_live_") as folder:
            run = _LiveRun(options, Processes(Path(folder), os.environ), progress)
            run.play_and_ask(questions, file)
    wall_s = time.perf_counter() - begin
    return ReplayResult(
        settings={**settings, "weights": run.model},
        start_ns=options.start_ns,
        end_ns=options.start_ns + source.duration_ns,
        questions=tuple(questions),
        answers={MEMORY.name: dict(file.rows)},
        memory=tuple(run.memory),
        statistics=run.statistics,
        timings={"wall_s": wall_s, "asked_late_s": run.asked_late_s, "behind_s": run.behind_s},
        notes=run.notes(source.frame_count),
    )


class _LiveRun:
    """Watches the node and asks it; knows nothing of it but its public interface.

    Attributes:
        asked_late_s: how late each question was asked, in seconds of the recording; it waits for the answer before it.
        behind_s: how far the memory of each answer was behind the moment of asking, in seconds of the recording.
        memory: as it grew.
        statistics: of the frames of this run.
        model: as the node calls it.
    """

    def __init__(self, options: LiveOptions, processes: Processes, progress: RunProgress) -> None:
        self.asked_late_s: list[float] = []
        self.behind_s: list[float] = []
        self.memory: list[MemoryPoint] = []
        self.statistics = StreamStatistics()
        self.model = ""
        self._processes = processes
        self._options = options
        self._progress = progress
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

    def play_and_ask(self, questions: Iterable[TimedQuestion], file: AnswerFile) -> None:
        """Runs from the first wait for the node to the last frame in its memory."""
        with self.client:
            before = self._prepare()
            try:
                self._play()
                for question in sorted(questions, key=lambda one: one.time_ns):
                    self._wait_for(partial(self._is_time_for, question))
                    file.append(self._ask(question))
                self._wait_for(self._processes.finished)
                self._playing = False
            finally:
                self._processes.stop()
            self._settle(before)

    def notes(self, frames: int) -> tuple[str, ...]:
        """What a reader of the scores must know, of a recording of that many frames; 0 if unknown."""
        counts = self.statistics
        late, behind = (np.quantile(some or [0.0], [0.5, 0.95]).tolist() for some in (self.asked_late_s, self.behind_s))
        return (
            f"Live at rate {self._options.rate:g}: {counts.received} of {frames or 'the'} frames arrived at the node, "
            f"{counts.dropped} were dropped because the model was too slow, {counts.late} late.",
            f"Questions were asked {late[0]:.2f} s late (median; p95 {late[1]:.2f} s of the recording), from a memory "
            f"that was {behind[0]:.2f} s behind (p95 {behind[1]:.2f} s).",
        )

    def _prepare(self) -> FrameCounters:
        """Waits for the node and empties its memory; returns what it has counted so far."""
        try:
            self.client.wait_until_active(self._options.start_timeout_s)
        except TimeoutError as error:
            raise TimeoutError(
                f"{error}; start it (ros2 launch fvs_ros stream.launch.py use_sim_time:=true), or name it with --node"
            ) from error
        self.client.reset()
        return stream_statistics(self.client.next_statistics())

    def _play(self) -> None:
        """Starts the recording; from now on something must move."""
        self._recording = self._playing = True
        parameters = {
            "bag": self._options.recording.resolve(),
            "rate": float(self._options.rate),
            "wait_for_subscriber": float(self._options.start_timeout_s),
        }
        self._processes.start(
            "fvs_ros.nodes.replay_node",
            ros_arguments(parameters, remap={"__node": "fvs_evaluate_replay"}),
            may_finish=True,
        )

    def _is_time_for(self, question: TimedQuestion) -> bool:
        return self._now_ns >= question.time_ns or self._processes.finished()

    def _ask(self, question: TimedQuestion) -> AnswerRow:
        asked_ns = max(self._now_ns, question.time_ns)
        self.asked_late_s.append((asked_ns - question.time_ns) / SECOND_NS)
        self._moved_s = time.monotonic()
        try:
            # The node's own timeout; if it does not keep to that, the stall ends the wait.
            response = self.client.ask(question.question, max_new_tokens=self._options.max_new_tokens, timeout_s=0)
        except AskError as error:
            text = f"{error.code.name}: {error}"
            return AnswerRow(question.id, question.question, question.answer, None, error=text)
        self.model = response.model
        self.behind_s.append((asked_ns - stamp_nanoseconds(response.memory_end)) / SECOND_NS)
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
            confidence=response.confidence,
            calibrated=response.confidence_calibrated,
            not_seen=response.not_seen,
        )

    def _settle(self, before: FrameCounters) -> None:
        """Waits until no frame is on its way any more, and takes what was counted since `before`."""
        deadline = time.monotonic() + _SETTLE_TIMEOUT_S
        after = stream_statistics(self.client.next_statistics())
        while after.waiting and time.monotonic() < deadline:
            after = stream_statistics(self.client.next_statistics())
        self.statistics = _difference(after, before)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        """Without a time limit, as long as anything moves."""
        self._moved_s = time.monotonic()
        self.client.wait_for(condition, "the recording", math.inf)

    def _check(self) -> None:
        self._processes.check()
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
        self._progress.reach(PROGRESS, max(0.0, (self._now_ns - self._options.start_ns) / SECOND_NS))

    def _on_memory(self, message: MemoryState) -> None:
        self._moved_s = time.monotonic()
        if self._recording and message.steps:
            time_s = (stamp_nanoseconds(message.end) - self._options.start_ns) / SECOND_NS
            self.memory.append(MemoryPoint(time_s, message.steps, message.csm_slots, message.dam_slots, message.bytes))


def _difference(after: FrameCounters, before: FrameCounters) -> StreamStatistics:
    """The frames that were counted in between."""
    names = ("received", "skipped", "late", "dropped", "discarded", "ingested", "waiting", "episodes")
    counts = {name: getattr(after, name) - getattr(before, name) for name in names}
    return StreamStatistics(**counts, rejected=Counter(after.rejected) - Counter(before.rejected))
