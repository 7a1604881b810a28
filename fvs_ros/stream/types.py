"""What goes into the engine and what comes out of it. Plain data, no ROS, no tensors."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from fvs_ros.errors import ReadableError
from fvs_ros.sources.frame import Area, Pose
from fvs_ros.sources.stamp_guard import ClockMove


class ErrorCode(enum.IntEnum):
    """Why a question got no answer; the values of `srv/Ask.srv`."""

    NONE = 0
    NO_FRAMES = 1
    BUSY = 2
    TIMEOUT = 3
    CANCELLED = 4
    INVALID_QUESTION = 5
    MODEL_ERROR = 6
    NOT_ACTIVE = 7


class AskError(ReadableError):
    """A question that got no answer.

    Attributes:
        code: the kind of failure.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Picture:
    """What a scene looked like: the one picture that is kept of it.

    Attributes:
        stamp_ns: when it was taken.
        jpeg: of at most `pictures.LONGEST_SIDE` pixels on its longer side.
        frame_id: the camera's coordinate frame.
        pose: of the camera then, None if unknown.
    """

    stamp_ns: int
    jpeg: bytes
    frame_id: str = ""
    pose: Pose | None = None


class Kept(enum.IntFlag):
    """How a memory shows a moment; the values of `msg/Moment.msg`.

    Attributes:
        NOTHING: it is not known how.
        SYNOPSIS: as a slot of the CSM.
        DETAIL: as a keyframe of the DAM.
        WINDOW: as one of the newest steps.
        RECALLED: as a stored segment that the question recalled.
    """

    NOTHING = 0
    SYNOPSIS = 1
    DETAIL = 2
    WINDOW = 4
    RECALLED = 8


@dataclass(frozen=True)
class Moment:
    """Something that the model had in front of it: a keyframe, and the interval that it stands for.

    Attributes:
        stamp_ns: when the keyframe was taken.
        start_ns, end_ns: first and last frame of the interval, which is a cluster's or a segment's; the keyframe lies
            within it.
        weight: grid steps in that interval.
        frame_id: the camera's coordinate frame.
        pose: of the camera at the keyframe, None if unknown.
        relevance: the probability that the answer rests on this moment; None where the model gives none.
        picture: of its scene; None where it was not asked for or none is kept.
        kept: how the memory shows it.
    """

    stamp_ns: int
    start_ns: int
    end_ns: int
    weight: float
    frame_id: str = ""
    pose: Pose | None = None
    relevance: float | None = None
    picture: Picture | None = None
    kept: Kept = Kept.NOTHING


@dataclass(frozen=True)
class ChatMessage:
    """One message of a conversation.

    Attributes:
        role: "user" for a question, "assistant" for its answer.
    """

    role: str
    text: str


@dataclass(frozen=True)
class AskOptions:
    """How to answer. None means the engine's default (`StreamConfig`).

    Attributes:
        max_new_tokens: length limit of the answer.
        timeout_s: most seconds from the question to its complete answer.
        fresh: wait for a memory that holds every frame submitted before the question, and for its prefill; otherwise
            answer from the newest memory that is prefilled already.
        since_ns, until_ns: answer from what was seen in this closed range of stamps alone, as it would have been at its
            end; None leaves that side open. It takes a memory of its own, made of the stored segments.
        near: answer from what was seen from this area alone; what was seen without a pose is not near. As above.
        recall: whether a question about a long stream recalls segments, see `StreamConfig.recall_segments`.
        with_images: each moment that the answer rests on brings its picture, out of the stored segments.
        history: earlier questions of the conversation and their answers, oldest first; see `history.check_history`.
        choices: the answer is one of these texts, whichever the model finds likeliest; empty for one in free words.
        json_schema: the answer is JSON that follows this schema; empty for one in free words.
    """

    max_new_tokens: int | None = None
    timeout_s: float | None = None
    fresh: bool = False
    since_ns: int | None = None
    until_ns: int | None = None
    near: Area | None = None
    recall: bool = True
    with_images: bool = False
    choices: tuple[str, ...] = ()
    json_schema: str = ""
    history: tuple[ChatMessage, ...] = ()

    @property
    def ranged(self) -> bool:
        """Whether the answer is to be given from a range of stamps, or from an area, alone."""
        return not (self.since_ns is None and self.until_ns is None and self.near is None)


@dataclass(frozen=True)
class Answer:
    """An answer and the memory it was given from.

    Attributes:
        moments: those that the answer rests on, the most relevant first; at most `StreamConfig.moments_limit`.
        memory_version: `MemoryStatus.version` of that memory; 0 for one of a range of stamps.
        start_ns, end_ns: stamps of the first and last frame in that memory.
        steps: grid steps seen by that memory.
        first_token_s, total_s: seconds from the question's arrival, waiting included.
        recalled: stored segments that it was given from; 0 for one from the Flash Memory or of a range of stamps.
        all_moments: everything that the model had in front of it, in order of time.
        confidence: from 0 to 1, how sure the model is of this answer; of one among choices, that choice's probability.
        calibrated: whether that is the share of such answers that are right; else it is the model's own probability.
        not_seen: whether the answer says that what was asked for was not seen.
        choice_probabilities: of each of `AskOptions.choices`, given that the answer is one of them; empty without any.
        truncated: whether `max_new_tokens` ended it, so that something may be missing; one with a `json_schema` is no
            whole JSON then.
    """

    text: str
    moments: tuple[Moment, ...]
    memory_version: int
    start_ns: int
    end_ns: int
    steps: int
    first_token_s: float
    total_s: float
    model_name: str
    recalled: int = 0
    all_moments: tuple[Moment, ...] = ()
    confidence: float = 0.0
    calibrated: bool = False
    not_seen: bool = False
    choice_probabilities: tuple[float, ...] = ()
    truncated: bool = False


@dataclass(frozen=True)
class MemoryStatus:
    """The newest memory, as published on `~/memory`.

    Attributes:
        version: counts published memories; a reset counts too, so it never decreases.
        episode: counts new memories (after a reset, or a stamp that jumped back).
        steps: grid steps seen in this episode.
        csm_slots, dam_slots: slots filled.
        bytes: host or device memory of the stream's state; constant within an episode, 0 without a memory.
        frame_id: the camera's coordinate frame, of the newest frame in memory.
    """

    version: int = 0
    episode: int = 0
    steps: int = 0
    csm_slots: int = 0
    dam_slots: int = 0
    start_ns: int = 0
    end_ns: int = 0
    bytes: int = 0
    frame_id: str = ""


@dataclass
class FrameCounters:
    """What became of the frames, counted since the engine was made.

    Each received frame is in exactly one of the counters up to `waiting`.

    Attributes:
        received: frames submitted.
        skipped: not due at the kept rate, or submitted while paused.
        late: at most `late_tolerance_s` behind the newest.
        dropped: kept, then pushed out of the full queue by newer ones.
        discarded: kept, then thrown away by a reset, a new episode or the engine's end.
        rejected: without a usable image or stamp, by reason; ``"model_error"`` counts those on which the model failed.
        ingested: taken into memory.
        waiting: in the queue, being encoded, or held back until the next frames tell whether their stamps are right.
        episodes: new episodes because the stream's clock was set, or a recording began anew.
        wrong_stamp: the last frames rejected as ``"wrong_stamp"``, in words; empty if there are none.
        clock_move: the last time that the clock was set, None if it never was.
    """

    received: int = 0
    skipped: int = 0
    late: int = 0
    dropped: int = 0
    discarded: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    ingested: int = 0
    waiting: int = 0
    episodes: int = 0
    wrong_stamp: str = ""
    clock_move: ClockMove | None = None

    @property
    def lost(self) -> int:
        """Frames that were due or could have been, and never came into memory."""
        return self.dropped + self.late + sum(self.rejected.values())

    def describe_lost(self) -> str:
        """The lost frames in a sentence, by what became of them."""
        rejected = "".join(f", {count} {reason}" for reason, count in sorted(self.rejected.items()))
        return (
            f"{self.lost} of {self.received} frames never came into memory: {self.dropped} dropped, {self.late} "
            f"late{rejected}."
        )


@dataclass
class QuestionCounters:
    """What became of the questions, counted since the engine was made.

    Attributes:
        questions: asked.
        answers: answered.
        recalls: of these, from segments that they recalled.
        failed: ended with an `AskError`, by the code's name.
        last_first_token_s, last_answer_s: latencies of the last answer, 0 before the first.
    """

    questions: int = 0
    answers: int = 0
    recalls: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    last_first_token_s: float = 0.0
    last_answer_s: float = 0.0


@dataclass
class StreamStatistics(FrameCounters, QuestionCounters):
    """All counters of the engine, and what its two threads measured.

    Attributes:
        static_frames: of the ingested frames, those not encoded because they showed the same scene as the last step.
        ingest_s: seconds from dequeuing the last batch to publishing its memory.
        ingest_error: the model's last failure on frames, empty if none.
        prefills: memories that the model has prefilled.
        prefill_s: seconds of model time that the last prefill took.
    """

    static_frames: int = 0
    ingest_s: float = 0.0
    ingest_error: str = ""
    prefills: int = 0
    prefill_s: float = 0.0


@dataclass(frozen=True)
class ModelFaults:
    """What is wrong with the model's calls, in words; each is empty if nothing is.

    Attributes:
        ingest, answers: calls for frames, and for questions, that have not returned and were given up.
        last: why a worker was last replaced.
        out_of_memory: the last time that the device's memory did not suffice, and what to do.
    """

    ingest: str = ""
    answers: str = ""
    last: str = ""
    out_of_memory: str = ""
