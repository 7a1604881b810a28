"""Every setting of the stream, with its default and its check."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from fvs_ros.memory.geometry import LEAST_PIXELS

# More than any camera delivers, and low enough for exact slot numbers on a stream of years.
HIGHEST_FPS = 1_000.0
# As of the images that are decoded.
HIGHEST_PIXELS = 2**26
# As many as the model has positions.
HIGHEST_TOKENS = 32_768
# Longest timeout of a question: a day.
LONGEST_TIMEOUT_S = 86_400.0


def _bounded(default: float, least: float, most: float = math.inf) -> Any:
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True)
class StreamConfig:
    """Settings of the stream engine.

    Attributes:
        fps: camera frames kept per second of stamp time; the published model was trained at 1. 0 keeps all.
        max_pixels, min_pixels: bounds on the area of a processed frame; the published model used 4 * 224 * 224.
        frame_queue: kept frames that may wait for the model; when the queue is full, the oldest is dropped.
        batch_steps: most grid steps encoded at once, when frames wait.
        static_tolerance: a step is not encoded, but adds weight to the last encoded step, if no mean of an image block
            differs from that step's by more than this, on a scale of 0 to 255; 0 encodes every step.
        late_tolerance_s: a frame at most this many seconds behind the newest is dropped as late; `StampGuard`
            judges one further back.
        prefill_share: share of the answer thread's time for prefilling the newest memory before a question comes;
            0 prefills when a question needs it, which then waits, 1 does so without pause.
        parallel_questions: questions answered at once, from one prefill of the memory.
        question_queue: questions that may wait; when the queue is full, the next is refused as BUSY.
        question_characters: most characters in a question.
        max_new_tokens: default length limit of an answer, in tokens.
        max_new_tokens_limit: highest length limit that a question may set.
        timeout_s: default limit in seconds from a question to its complete answer.
        model_timeout_s: seconds after which one call of the model counts as hung; 0 never.
    """

    fps: float = _bounded(1.0, 0, HIGHEST_FPS)
    max_pixels: int = _bounded(200_704, LEAST_PIXELS, HIGHEST_PIXELS)
    min_pixels: int = _bounded(100_352, LEAST_PIXELS, HIGHEST_PIXELS)
    frame_queue: int = _bounded(16, 2)
    batch_steps: int = _bounded(4, 1)
    static_tolerance: float = _bounded(0.0, 0, 255)
    late_tolerance_s: float = _bounded(1.0, 0)
    prefill_share: float = _bounded(0.5, 0, 1)
    parallel_questions: int = _bounded(4, 1)
    question_queue: int = _bounded(256, 1)
    question_characters: int = _bounded(2_000, 1)
    max_new_tokens: int = _bounded(128, 1, HIGHEST_TOKENS)
    max_new_tokens_limit: int = _bounded(1_024, 1, HIGHEST_TOKENS)
    timeout_s: float = _bounded(60.0, 0.1, LONGEST_TIMEOUT_S)
    model_timeout_s: float = _bounded(120.0, 0, LONGEST_TIMEOUT_S)

    def __post_init__(self) -> None:
        for item in fields(self):
            value, least, most = getattr(self, item.name), item.metadata["least"], item.metadata["most"]
            if not least <= value < math.inf:
                raise ValueError(f"{item.name} is {value}; it must be at least {least}, and finite")
            if value > most:
                raise ValueError(f"{item.name} is {value}; it must be at most {most:g}")
        if self.max_pixels < self.min_pixels:
            raise ValueError(
                f"max_pixels is {self.max_pixels}, min_pixels {self.min_pixels}; raise max_pixels or lower min_pixels"
            )
        if self.max_new_tokens > self.max_new_tokens_limit:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens}, its limit {self.max_new_tokens_limit}; raise the limit"
            )
