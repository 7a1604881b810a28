"""Every setting of the stream, with its default and its check."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fvs_ros.memory.geometry import LEAST_PIXELS

# More than any camera delivers, and low enough for exact slot numbers on a stream of years.
HIGHEST_FPS = 1_000.0
# As of the images that are decoded.
HIGHEST_PIXELS = 2**26
# As many as the model has positions.
HIGHEST_TOKENS = 32_768
# Longest timeout of a question: a day.
LONGEST_TIMEOUT_S = 86_400.0


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

    fps: float = 1.0
    max_pixels: int = 200_704
    min_pixels: int = 100_352
    frame_queue: int = 16
    batch_steps: int = 4
    static_tolerance: float = 0.0
    late_tolerance_s: float = 1.0
    prefill_share: float = 0.5
    parallel_questions: int = 4
    question_queue: int = 256
    question_characters: int = 2_000
    max_new_tokens: int = 128
    max_new_tokens_limit: int = 1_024
    timeout_s: float = 60.0
    model_timeout_s: float = 120.0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("fps", 0, HIGHEST_FPS),
            ("min_pixels", LEAST_PIXELS, HIGHEST_PIXELS),
            ("max_pixels", LEAST_PIXELS, HIGHEST_PIXELS),
            ("frame_queue", 2, math.inf),
            ("batch_steps", 1, math.inf),
            ("static_tolerance", 0, 255),
            ("late_tolerance_s", 0, math.inf),
            ("prefill_share", 0, 1),
            ("parallel_questions", 1, math.inf),
            ("question_queue", 1, math.inf),
            ("question_characters", 1, math.inf),
            ("max_new_tokens", 1, HIGHEST_TOKENS),
            ("max_new_tokens_limit", 1, HIGHEST_TOKENS),
            ("timeout_s", 0.1, LONGEST_TIMEOUT_S),
            ("model_timeout_s", 0, LONGEST_TIMEOUT_S),
        ):
            value = getattr(self, name)
            if not least <= value < math.inf:
                raise ValueError(f"{name} is {value}; it must be at least {least}, and finite")
            if value > most:
                raise ValueError(f"{name} is {value}; it must be at most {most:g}")
        if self.max_pixels < self.min_pixels:
            raise ValueError(
                f"max_pixels is {self.max_pixels}, min_pixels {self.min_pixels}; raise max_pixels or lower min_pixels"
            )
        if self.max_new_tokens > self.max_new_tokens_limit:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens}, its limit {self.max_new_tokens_limit}; raise the limit"
            )
