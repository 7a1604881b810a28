"""What goes into the engine and what comes out of it. Plain data, no ROS, no tensors."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from fvs_ros.sources.frame import Pose


class ErrorCode(enum.IntEnum):
    """Why a question got no answer. The values are those of `srv/Ask.srv`."""

    NONE = 0
    NO_FRAMES = 1
    BUSY = 2
    TIMEOUT = 3
    CANCELLED = 4
    INVALID_QUESTION = 5
    MODEL_ERROR = 6
    NOT_ACTIVE = 7


class AskError(Exception):
    """A question that got no answer.

    Attributes:
        code: which kind of failure it was.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Moment:
    """One detail slot of the memory that the model had in front of it.

    Attributes:
        stamp_ns: when the keyframe was taken.
        start_ns, end_ns: first and last frame of the cluster that the keyframe stands for.
        weight: grid steps in that cluster.
        frame_id: the camera's coordinate frame.
        pose: where the camera was at the keyframe, None where unknown.
        relevance: in [0, 1] where moments were ranked against the question, None where not.
    """

    stamp_ns: int
    start_ns: int
    end_ns: int
    weight: float
    frame_id: str = ""
    pose: Pose | None = None
    relevance: float | None = None


@dataclass(frozen=True)
class AskOptions:
    """How to answer. None means the engine's default (`StreamConfig`).

    Attributes:
        max_new_tokens: the answer's longest length.
        timeout_s: seconds from the question to its complete answer.
        fresh: answer from a memory that holds every frame that was submitted before the question, as soon as there is
            one and the model has read it; otherwise from the newest that it has read already.
    """

    max_new_tokens: int | None = None
    timeout_s: float | None = None
    fresh: bool = False


@dataclass(frozen=True)
class Answer:
    """An answer and the memory that it was given from.

    Attributes:
        moments: in time order.
        memory_version: `MemoryStatus.version` of the memory that was read.
        start_ns, end_ns: the first and the last frame in that memory.
        steps: grid steps that it had seen.
        first_token_s, total_s: seconds from the question's arrival, waiting included.
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


@dataclass(frozen=True)
class MemoryStatus:
    """The newest memory, as told on `~/memory`.

    Attributes:
        version: counts published memories; never goes back, also not over a reset.
        episode: counts memories started anew (a reset, or a stamp that jumped back).
        steps: grid steps seen in this episode.
        csm_slots, dam_slots: slots filled.
        bytes: host or device memory held by the stream's state, constant once all slots are full.
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


@dataclass(frozen=True)
class StreamStatistics:
    """Counters since the engine was made.

    Every received frame is counted once more: as skipped (not due at the kept rate, or paused), late, dropped
    (the queue was full), discarded, rejected or ingested, or it is still waiting.

    Attributes:
        rejected: frames without a usable image, by reason; ``"model_error"`` counts those on which the model failed.
        discarded: frames thrown away, before they were in memory, by a reset, a new episode or the engine's end.
        waiting: frames in the queue or being encoded.
        episodes: memories started anew because a stamp jumped back.
        static_frames: of the ingested frames, those not encoded because they showed the same scene as the last step.
        ingest_s: seconds that the last batch took from dequeuing to its published memory.
        ingest_error: the last failure of the model while ingesting, empty if none.
        questions, answers, failed: asked; answered; ended with an `AskError`, by code name.
        last_first_token_s, last_answer_s: of the last answer, 0 before one.
        prefills: memories that the model has prefilled.
        prefill_s: seconds of model time that the last prefill took.
    """

    received: int = 0
    skipped: int = 0
    late: int = 0
    dropped: int = 0
    discarded: int = 0
    ingested: int = 0
    waiting: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    episodes: int = 0
    ingest_s: float = 0.0
    ingest_error: str = ""
    questions: int = 0
    answers: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    last_first_token_s: float = 0.0
    last_answer_s: float = 0.0
    static_frames: int = 0
    prefills: int = 0
    prefill_s: float = 0.0
