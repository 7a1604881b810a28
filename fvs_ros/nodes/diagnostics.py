"""The node's state on `/diagnostics` (REP 107), for people, with what to do where something is wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.nodes.episode_store import READ_ONLY
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.frame_queue import WRONG_STAMP
from fvs_ros.stream.recording import RecordingStatus
from fvs_ros.stream.types import MemoryStatus, ModelFaults, StreamStatistics
from fvs_ros.stream.watches import WatchingStatus

Level = bytes

# A look at what is watched that was due for longer is late.
LATE_LOOK_S = 2.0
# How long a clock that was set stays a warning.
CLOCK_WARNING_S = 60.0


@dataclass(frozen=True)
class Observation:
    """The state of the node at one moment.

    Attributes:
        now_s: steady clock.
        state: label of the lifecycle state, or "loading the model".
        progress: what loading does now, empty where that is not known.
        problem: why the last transition failed, such as a model that cannot be loaded; empty if none did.
        active: whether images are subscribed to.
        paused: whether frames are skipped.
        topic: the images' resolved name.
        publishers: how many publish there.
        silence: what is wrong where no image has arrived for too long, and what to do; empty if one has.
        image_age_s: seconds since the last image arrived, or since the subscription if none has; None if inactive.
        stamp_age_s: the node's clock minus the last image's stamp; None before the first image.
        last_rejection: what was wrong with the last bad image and what to do.
        device: where the model is, empty while there is none.
        statistics: all counters; images without a stamp, which never reach the engine, are received and rejected too.
        faults: of the model's calls.
        memory: of the engine.
        capacity: of the memory; None while there is no engine.
        recording: what is stored of the stream.
        store: where, as `store_name` calls it.
        watching: how the watches fare.
    """

    now_s: float
    state: str
    progress: str = ""
    problem: str = ""
    active: bool = False
    paused: bool = False
    topic: str = ""
    publishers: int = 0
    silence: str = ""
    image_age_s: float | None = None
    stamp_age_s: float | None = None
    last_rejection: str = ""
    device: str = ""
    statistics: StreamStatistics = field(default_factory=StreamStatistics)
    faults: ModelFaults = field(default_factory=ModelFaults)
    memory: MemoryStatus = field(default_factory=MemoryStatus)
    capacity: FlashMemoryConfig | None = None
    recording: RecordingStatus = field(default_factory=RecordingStatus)
    store: str = ""
    watching: WatchingStatus = field(default_factory=WatchingStatus)


class StreamDiagnostics:
    """Turns observations into statuses, and two that follow each other into rates.

    Args:
        node_name: what the statuses' names begin with.
    """

    def __init__(self, node_name: str) -> None:
        self._node_name = node_name
        self._before: Observation | None = None
        self._clock_warned_s = -math.inf

    def statuses(self, now: Observation) -> list[DiagnosticStatus]:
        """The statuses "stream", "memory", "answers", "episodes" and "watches"."""
        before = self._before or now
        self._before = now
        return [
            self._stream(before, now),
            self._memory(now),
            self._answers(before, now),
            self._episodes(before, now),
            self._watches(before, now),
        ]

    def _stream(self, before: Observation, now: Observation) -> DiagnosticStatus:
        if now.statistics.episodes > before.statistics.episodes:
            self._clock_warned_s = now.now_s
        level, message = _stream_health(before, now)
        # A memory was lost: worth more than the one second between two reports, and less than what is wrong now.
        if level == DiagnosticStatus.OK and now.now_s - self._clock_warned_s < CLOCK_WARNING_S:
            level, message = DiagnosticStatus.WARN, f"{now.statistics.clock_move}; the memory began anew"
        counts = now.statistics
        values = {
            "state": now.state,
            "topic": now.topic,
            "publishers": now.publishers,
            "rate (images/s)": f"{_rate(before, now, 'received'):.2f}",
            "rate in memory (frames/s)": f"{_rate(before, now, 'ingested'):.2f}",
            "since last image (s)": _seconds(now.image_age_s),
            "age of last stamp (s)": _seconds(now.stamp_age_s),
            "received": counts.received,
            "ingested": counts.ingested,
            "static scene (not encoded)": counts.static_frames,
            "waiting": counts.waiting,
            "skipped (not due or paused)": counts.skipped,
            "late": counts.late,
            "dropped (model too slow)": counts.dropped,
            "discarded (reset or new episode)": counts.discarded,
            "rejected": sum(counts.rejected.values()),
            **{f"rejected: {reason}": count for reason, count in sorted(counts.rejected.items())},
            "last rejection": now.last_rejection,
            "episodes begun by the clock": counts.episodes,
            "clock": str(counts.clock_move or ""),
            "last wrong stamp": counts.wrong_stamp,
            "last batch (s)": f"{counts.ingest_s:.3f}",
            "last model error": counts.ingest_error,
            "last hung call": now.faults.last,
            "out of device memory": now.faults.out_of_memory,
        }
        return self._status("stream", level, message, now, values)

    def _memory(self, now: Observation) -> DiagnosticStatus:
        memory, capacity = now.memory, now.capacity
        if capacity is None:
            return self._status("memory", DiagnosticStatus.OK, "no memory: the node is not configured", now, {})
        values = {
            "version": memory.version,
            "episode": memory.episode,
            "steps": memory.steps,
            "csm slots": f"{memory.csm_slots} of {capacity.csm_slots}",
            "dam slots": f"{memory.dam_slots} of {capacity.dam_slots}",
            "span (s)": f"{(memory.end_ns - memory.start_ns) / SECOND_NS:.3f}",
            "size (MB)": f"{memory.bytes / 1e6:.2f}",
        }
        message = (
            f"{memory.steps} steps in {memory.csm_slots} of {capacity.csm_slots} slots" if memory.steps else "empty"
        )
        return self._status("memory", DiagnosticStatus.OK, message, now, values)

    def _answers(self, before: Observation, now: Observation) -> DiagnosticStatus:
        counts = now.statistics
        values = {
            "questions": counts.questions,
            "answers": counts.answers,
            "from recalled segments": counts.recalls,
            **{f"failed: {code}": count for code, count in sorted(counts.failed.items())},
            "last first token (s)": f"{counts.last_first_token_s:.3f}",
            "last answer (s)": f"{counts.last_answer_s:.3f}",
            "memories prefilled": counts.prefills,
            "last prefill (s)": f"{counts.prefill_s:.3f}",
        }
        level, message = DiagnosticStatus.OK, f"{counts.answers} of {counts.questions} questions answered"
        if now.faults.answers:
            level, message = DiagnosticStatus.ERROR, now.faults.answers
        elif _grown(before.statistics.failed, counts.failed).get("MODEL_ERROR"):
            level, message = DiagnosticStatus.ERROR, "the model failed on a question; the node's log has the details"
        elif _grown(before.statistics.failed, counts.failed).get("BUSY"):
            level, message = (
                DiagnosticStatus.WARN,
                "questions were refused as busy; ask less often or raise question_queue",
            )
        return self._status("answers", level, message, now, values)

    def _episodes(self, before: Observation, now: Observation) -> DiagnosticStatus:
        if now.capacity is None:
            return self._status("episodes", DiagnosticStatus.OK, "no store: the node is not configured", now, {})
        stored = now.recording
        values = {
            "store": now.store,
            "segments": stored.segments,
            "size (MB)": f"{stored.bytes / 1e6:.2f} of {stored.limit_bytes / 1e6:.2f}",
            "segments evicted": stored.evicted,
            "grid steps not recorded": stored.unrecorded_steps,
            "resumed": stored.resumed,
            "restoring": stored.restoring,
            "features to be made": stored.remaking,
            "problem": stored.problem,
        }
        lost = stored.unrecorded_steps - before.recording.unrecorded_steps
        level, message = DiagnosticStatus.OK, stored.restoring or stored.remaking or f"{stored.segments} segments"
        # Who gave a folder that can only be read was warned; steps that are lost elsewhere are an error.
        if lost > 0 and not now.store.endswith(READ_ONLY):
            reason = stored.problem or "the disk is slower than the stream"
            level, message = DiagnosticStatus.ERROR, f"{lost} grid steps were not recorded: {reason}"
        elif stored.problem:
            level, message = DiagnosticStatus.WARN, stored.problem
        return self._status("episodes", level, message, now, values)

    def _watches(self, before: Observation, now: Observation) -> DiagnosticStatus:
        watching = now.watching
        values = {
            "watches": watching.watches,
            "looks": watching.looks,
            "changes": watching.changes,
            "failed looks": watching.failed,
            "longest wait for a look (s)": f"{watching.lag_s:.3f}",
            "last error": watching.error,
        }
        level, message = DiagnosticStatus.OK, f"watches: {watching.watches}"
        if watching.failed > before.watching.failed:
            level, message = DiagnosticStatus.ERROR, f"the model fails on what is watched: {watching.error}"
        elif watching.lag_s > LATE_LOOK_S:
            level, message = (
                DiagnosticStatus.WARN,
                f"{watching.watches} watches are looked at up to {watching.lag_s:.1f} s late; raise watch_share or "
                "their period_s, or watch less",
            )
        return self._status("watches", level, message, now, values)

    def _status(
        self, part: str, level: Level, message: str, now: Observation, values: Mapping[str, object]
    ) -> DiagnosticStatus:
        return DiagnosticStatus(
            name=f"{self._node_name}: {part}",
            level=level,
            message=message,
            hardware_id=now.device,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )


def _stream_health(before: Observation, now: Observation) -> tuple[Level, str]:
    """The worst that happened since the observation before, and what to do about it."""
    if not now.active and now.problem:
        return DiagnosticStatus.ERROR, f"{now.state}: {now.problem}"
    if not now.active:
        progress = f" ({now.progress})" if now.progress else ""
        return DiagnosticStatus.OK, f"not subscribed: {now.state}{progress}"
    if now.faults.ingest:
        return DiagnosticStatus.ERROR, now.faults.ingest
    bad = _grown(before.statistics.rejected, now.statistics.rejected)
    if bad.pop("model_error", 0):
        return DiagnosticStatus.ERROR, f"the model fails on frames: {now.statistics.ingest_error}"
    if now.faults.out_of_memory != before.faults.out_of_memory:
        return DiagnosticStatus.WARN, now.faults.out_of_memory
    if bad:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(bad.items()))
        why = now.statistics.wrong_stamp if set(bad) == {WRONG_STAMP} else now.last_rejection
        return DiagnosticStatus.WARN, f"bad images: {reasons}. {why}"
    if now.silence:
        return DiagnosticStatus.WARN, now.silence
    if now.statistics.dropped > before.statistics.dropped:
        return DiagnosticStatus.WARN, "the model is slower than the stream; lower fps or max_pixels"
    return DiagnosticStatus.OK, "paused" if now.paused else "receiving"


def _rate(before: Observation, now: Observation, counter: str) -> float:
    elapsed_s = now.now_s - before.now_s
    change = getattr(now.statistics, counter) - getattr(before.statistics, counter)
    # An engine made anew counts from zero.
    return max(0, change) / elapsed_s if elapsed_s > 0 else 0.0


def _grown(before: Mapping[str, int], now: Mapping[str, int]) -> Counter[str]:
    """What was counted since, by kind; nothing where an engine made anew counts from zero."""
    return Counter(now) - Counter(before)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
