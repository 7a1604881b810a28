"""Timed questions to a recorded stream, through the engine that the node runs: deterministic, with no frame dropped.

For instance::

    run = StreamRun(model, RunOptions(conditions=(MEMORY, Condition.parse("last4"))))
    for reply in run.replies(source.frames(), questions):
        print(reply.question.id, reply.condition.name, reply.text)
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fvs_ros.episodic.information import Opener
from fvs_ros.episodic.store import EpisodeStore, Resume
from fvs_ros.evaluation.answers import Answer, AnswerRow
from fvs_ros.evaluation.timed.chosen_steps import last_needed
from fvs_ros.evaluation.timed.controls import MEMORY, TOLD, Condition, ConditionKind
from fvs_ros.evaluation.timed.fan_out import ConditionModel
from fvs_ros.memory.geometry import FRAMES_PER_STEP
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.sources.frame import Frame
from fvs_ros.stream.config import LONGEST_TIMEOUT_S, StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.evidence import most_relevant, shown_moments
from fvs_ros.stream.latest_memory import PublishedMemory
from fvs_ros.stream.model_protocol import StreamModel
from fvs_ros.stream.recording import Episodes, RecordingStatus
from fvs_ros.stream.types import Answer as EngineAnswer
from fvs_ros.stream.types import AskError, AskOptions, ChatMessage, Kept, MemoryStatus, Moment, StreamStatistics


@dataclass(frozen=True)
class StreamQuestion:
    """What is asked at a moment of a stream.

    Attributes:
        id: unique in its run.
        stamp_ns: when, nanoseconds on the stream's clock. Frames of this very stamp are seen, later ones are not.
        text: as asked.
        answer_prefix: what the answer is made to begin with, empty for nothing.
        steps: grid steps of the stream that are shown under a condition, by its name; conditions that need to be told
            them are in `controls.TOLD`.
        history: earlier turns of the conversation, which the model reads before it.
    """

    id: str
    stamp_ns: int
    text: str
    answer_prefix: str = ""
    steps: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    history: tuple[ChatMessage, ...] = ()


@dataclass(frozen=True)
class RunOptions:
    """How a stream is run.

    Attributes:
        stream: as for the node; queues and timeouts are the run's own, because nothing may be dropped or given up.
        conditions: each question is asked once under each.
        snapshot_always: whether a snapshot is made of the memory after each group of frames, as in the node, or only
            before questions. Answers are the same.

    Raises:
        ValueError: no condition, or one twice.
    """

    stream: StreamConfig = field(default_factory=StreamConfig)
    conditions: tuple[Condition, ...] = (MEMORY,)
    snapshot_always: bool = True

    def __post_init__(self) -> None:
        if not self.conditions or len(set(self.conditions)) < len(self.conditions):
            names = ", ".join(condition.name for condition in self.conditions) or "none"
            raise ValueError(f"the conditions are {names}; name at least one, and each once")


@dataclass(frozen=True)
class Reply:
    """What a model wrote to a question under one condition.

    Attributes:
        text: None where the engine gave no answer.
        error: why not, `NO_FRAMES: ...` or the like; empty if there is one.
        moments: those that the answer rests on, the most relevant first.
        memory: the Flash Memory at that moment, whatever the condition.
        tokens: of the condition, in front of the question.
        first_token_s, total_s: seconds from the question to its first token and to its last; None without an answer.
        prefilled: whether the condition had been read for the question before, so that the first token came sooner.
        confidence, calibrated, not_seen: see `stream.types.Answer`; None without an answer.
    """

    question: StreamQuestion
    condition: Condition
    text: str | None
    error: str
    moments: tuple[Moment, ...]
    memory: MemoryStatus
    tokens: int
    first_token_s: float | None
    total_s: float | None
    prefilled: bool
    confidence: float | None = None
    calibrated: bool | None = None
    not_seen: bool | None = None

    def row(self, identity: str, question: str, answer: Answer | None) -> AnswerRow:
        """The reply as it is kept beside a question's id, text and right answer.

        Where the camera was, and how the memory shows a moment, are not scored, and left out.
        """
        return AnswerRow(
            id=identity,
            question=question,
            answer=answer,
            response=self.text,
            first_token_s=self.first_token_s,
            total_s=self.total_s,
            error=self.error,
            memory_version=self.memory.version,
            memory_steps=self.memory.steps,
            moments=tuple(replace(moment, frame_id="", pose=None, kept=Kept.NOTHING) for moment in self.moments),
            prefilled=self.prefilled,
            confidence=self.confidence,
            calibrated=self.calibrated,
            not_seen=self.not_seen,
        )


class StreamRun:
    """Runs streams through one model, one after the other, each from an empty memory.

    Frames are handed to the engine in groups whose sizes follow from their stamps and those of the questions alone,
    so that equal input gives equal answers bit for bit, on a slow machine as on a fast one, and after an interruption
    as without. No frame is dropped for being slow: the run waits for the engine before its queue is full.

    Args:
        model: encodes and answers; it stays the caller's. Nothing else may use it meanwhile.
        options: how.
        on_frame: called on the caller's thread with each frame once it is submitted.
        on_memory: called on the engine's thread with each new memory.
        episodes: where the streams are kept, and what the first goes on with; None keeps nothing.

    Attributes:
        statistics: of the newest stream, complete once its replies are.
        recording: likewise, what is kept of it.

    Raises:
        ValueError: a condition that the model's memory cannot hold, or that needs a recaller where it has none.
    """

    def __init__(
        self,
        model: StreamModel,
        options: RunOptions,
        on_frame: Callable[[Frame], None] | None = None,
        on_memory: Callable[[MemoryStatus], None] | None = None,
        episodes: Episodes | None = None,
    ) -> None:
        self.statistics = StreamStatistics()
        self.recording: RecordingStatus | None = None
        self._episodes = episodes
        self._model = ConditionModel(model, options.conditions)
        self._conditions = options.conditions
        self._snapshot_always = options.snapshot_always
        self._on_frame = on_frame
        self._on_memory = on_memory
        self._group = FRAMES_PER_STEP * options.stream.batch_steps
        # Nothing is prefilled ahead: which condition is asked about is known with the question.
        self._config = replace(
            options.stream, frame_queue=max(2, self._group), timeout_s=LONGEST_TIMEOUT_S, prefill_share=0.0
        )

    @property
    def encode_s(self) -> float:
        """Seconds spent on encoding frames, of all streams so far."""
        return self._model.encode_s

    def replies(
        self,
        frames: Iterable[Frame],
        questions: Iterable[StreamQuestion],
        answered: Collection[tuple[str, str]] = (),
    ) -> Generator[Reply, None, None]:
        """Runs a stream; closing the generator ends it early.

        A question is asked once all frames up to its stamp are in memory, before the first later one: condition by
        condition, and question by question where several have one stamp, so that they share one prefill.

        Args:
            frames: in stamp order; read no further ahead than one group.
            questions: in any order.
            answered: pairs of a question's id and a condition's name that are left out: their replies are known.

        Returns:
            The replies in the order in which they are given.

        Raises:
            ValueError: two questions have one id, or one names no steps for a condition that needs them.
        """
        ordered = sorted(questions, key=lambda question: question.stamp_ns)
        if len({question.id for question in ordered}) < len(ordered):
            raise ValueError("two questions have one id; ids must differ")
        for condition in self._conditions:
            if condition.kind in TOLD and any(not question.steps.get(condition.name) for question in ordered):
                raise ValueError(
                    f"{condition.name} shows steps that questions name, and these name none; it is for patrols"
                )
        named = [(question.stamp_ns, steps) for question in ordered for steps in question.steps.values()]
        self._model.told = last_needed(named)
        moments = [list(same) for _, same in itertools.groupby(ordered, key=lambda question: question.stamp_ns)]
        upcoming = UpcomingFrames(frames)
        with (
            self._kept() as episodes,
            StreamEngine(self._model, self._config, self._on_memory, episodes) as engine,
        ):
            for asked in moments:
                self._feed(engine, upcoming.until(asked[0].stamp_ns))
                yield from self._ask(engine, asked, answered)
            self._feed(engine, upcoming.until(None))
        self.recording = engine.recording

    @contextlib.contextmanager
    def _kept(self) -> Iterator[Episodes | None]:
        """Where a stream is kept: as told, in RAM where questions recall from it, else nowhere."""
        recalls = any(condition.kind is ConditionKind.RECALL for condition in self._conditions)
        if self._episodes is not None or not recalls:
            yield self._episodes
            return
        with EpisodeStore.open(None, opener=Opener(fingerprint=self._model.fingerprint())) as store:
            yield Episodes(store, "", resume=Resume.NEVER, silence_s=math.inf)

    def _feed(self, engine: StreamEngine, frames: Iterator[Frame]) -> None:
        """Hands frames over, group by group, and waits until all of them are in memory."""
        newest_ns = 0
        frame = next(frames, None)
        while frame is not None:
            kept = 0
            # One place is taken by a frame that waits for its partner.
            room = self._group - engine.statistics.ingested % FRAMES_PER_STEP
            with engine.hold():
                # A stamp that jumps back begins a new episode, which discards what still waits of the old one.
                while frame is not None and kept < room and not (kept and frame.stamp_ns <= newest_ns):
                    newest_ns = frame.stamp_ns
                    kept += engine.submit(frame)
                    if self._on_frame is not None:
                        self._on_frame(frame)
                    frame = next(frames, None)
                self._model.unread = not self._snapshot_always and frame is not None
            if not engine.flush(LONGEST_TIMEOUT_S):
                raise RuntimeError(
                    f"the engine was closed, or took more than {LONGEST_TIMEOUT_S:g} s for {kept} frames"
                )
        self.statistics = engine.statistics

    def _ask(
        self, engine: StreamEngine, questions: Sequence[StreamQuestion], answered: Collection[tuple[str, str]]
    ) -> Iterator[Reply]:
        for condition in self._conditions:
            self._model.condition = condition
            read: MemorySnapshot | None = None
            for question in questions:
                if (question.id, condition.name) in answered:
                    continue
                self._model.steps = tuple(question.steps.get(condition.name, ()))
                yield self._reply(engine, question, condition, read)
                read = self._model.shown

    def _reply(
        self, engine: StreamEngine, question: StreamQuestion, condition: Condition, read: MemorySnapshot | None
    ) -> Reply:
        """Asks a question; `read` is what the one before was answered from, None without one."""
        self._model.answer_prefix = question.answer_prefix
        status = engine.status
        try:
            recall = condition.kind is ConditionKind.RECALL
            answer = engine.ask(question.text, AskOptions(recall=recall, history=question.history)).result()
        except AskError as error:
            return Reply(question, condition, None, f"{error.code.name}: {error}", (), status, 0, None, None, False)
        shown = self._model.shown
        assert shown is not None, "an answer was given from nothing"
        return Reply(
            question=question,
            condition=condition,
            text=answer.text,
            error="",
            moments=self._moments(condition, shown, answer),
            memory=status,
            tokens=shown.tokens,
            first_token_s=answer.first_token_s,
            total_s=answer.total_s,
            prefilled=shown is read,
            confidence=answer.confidence,
            calibrated=answer.calibrated,
            not_seen=answer.not_seen,
        )

    def _moments(self, condition: Condition, shown: MemorySnapshot, answer: EngineAnswer) -> tuple[Moment, ...]:
        """What an answer rests on; the engine knows the moments of the Flash Memory and of what was recalled alone."""
        if condition.kind in (ConditionKind.MEMORY, ConditionKind.RECALL):
            return answer.moments
        memory = PublishedMemory(shown, {}, MemoryStatus(end_ns=answer.end_ns))
        generation = self._model.generation
        relevance = None if generation is None else generation.relevance
        return most_relevant(shown_moments(memory).weighed(relevance), self._config.moments_limit)


class UpcomingFrames:
    """Frames that are read up to a stamp, and later further."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = iter(frames)
        self._next = next(self._frames, None)

    def until(self, stamp_ns: int | None) -> Iterator[Frame]:
        """The next frames, up to the first one that is stamped later; None for all."""
        while self._next is not None and (stamp_ns is None or self._next.stamp_ns <= stamp_ns):
            frame = self._next
            self._next = next(self._frames, None)
            yield frame
