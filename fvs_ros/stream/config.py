"""Every setting of the stream, with its default, its meaning and its check."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from fvs_ros.memory.geometry import LEAST_PIXELS
from fvs_ros.sources import MAX_PIXELS

# More than any camera delivers, and low enough for exact slot numbers on a stream of years.
HIGHEST_FPS = 1_000.0
# As many as the model has positions.
HIGHEST_TOKENS = 32_768
# Longest timeout of a question: a day.
LONGEST_TIMEOUT_S = 86_400.0


def _setting(default: float, description: str, least: float, most: float = math.inf) -> Any:
    return field(default=default, metadata={"description": description, "least": least, "most": most})


@dataclass(frozen=True)
class StreamConfig:
    """Settings of the stream engine, each described beside its default, as the node describes its parameter."""

    fps: float = _setting(
        1.0, "Frames kept per second of stamp time; 0 keeps all. The published model was trained at 1", 0, HIGHEST_FPS
    )
    max_pixels: int = _setting(
        200_704,
        "Largest area, in pixels, of a frame that the model sees; the published model had 4 * 224 * 224",
        LEAST_PIXELS,
        MAX_PIXELS,
    )
    min_pixels: int = _setting(
        100_352, "Smallest area, in pixels, of a frame that the model sees", LEAST_PIXELS, MAX_PIXELS
    )
    frame_queue: int = _setting(16, "Kept frames that may wait for the model; when full, the oldest is dropped", 2)
    batch_steps: int = _setting(4, "Most grid steps (pairs of frames) encoded at once, when frames wait", 1)
    static_tolerance: float = _setting(
        0.0,
        "A step is not encoded, but adds weight to the last encoded one, if no mean of an image block differs from "
        "that one's by more than this (0 to 255); 0 encodes all",
        0,
        255,
    )
    late_tolerance_s: float = _setting(
        1.0,
        "Seconds that a stamp may lie behind the newest and be dropped as late; beyond, its neighbours decide",
        0,
    )
    prefill_share: float = _setting(
        0.5,
        "Share of the answering thread's time for prefilling the newest memory ahead; 0 prefills when a question needs "
        "it, which then waits, 1 does so without pause",
        0,
        1,
    )
    watch_share: float = _setting(
        0.25,
        "Share of the answering thread's time for looking at what is watched, while no question waits; 0 refuses "
        "watches, 1 looks without pause",
        0,
        1,
    )
    watch_true_from: float = _setting(
        0.8,
        "Probability from which on a watched condition is found true; between this and the next nothing changes",
        0,
        1,
    )
    watch_false_below: float = _setting(0.2, "Probability below which it is found false", 0, 1)
    parallel_questions: int = _setting(4, "Questions answered at once, from one prefilled memory", 1)
    question_queue: int = _setting(256, "Questions that may wait; when full, the next is refused as BUSY", 1)
    question_characters: int = _setting(2_000, "Longest question, in characters", 1)
    max_new_tokens: int = _setting(128, "Longest answer, in tokens, where the question sets none", 1, HIGHEST_TOKENS)
    max_new_tokens_limit: int = _setting(
        1_024, "Longest answer, in tokens, that a question may ask for", 1, HIGHEST_TOKENS
    )
    timeout_s: float = _setting(
        60.0, "Seconds from a question to its complete answer, where the question sets none", 0.1, LONGEST_TIMEOUT_S
    )
    moments_limit: int = _setting(
        5, "Most moments that come with an answer, those first that it rests on most; 0 gives none", 0, 10_000
    )
    recall_segments: int = _setting(
        40,
        "Stored segments that a question about a stream too long for the Flash Memory recalls, with models trained for "
        "it; 0 answers from the Flash Memory alone",
        0,
        1_000,
    )
    model_timeout_s: float = _setting(
        120.0,
        "Seconds after which one call of the model counts as hung and a new worker takes over; 0 never",
        0,
        LONGEST_TIMEOUT_S,
    )

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
        if self.watch_false_below > self.watch_true_from:
            raise ValueError(
                f"watch_false_below is {self.watch_false_below}, watch_true_from {self.watch_true_from}; raise "
                "watch_true_from or lower watch_false_below"
            )
        if self.max_new_tokens > self.max_new_tokens_limit:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens}, max_new_tokens_limit {self.max_new_tokens_limit}; raise the "
                "limit, or lower max_new_tokens"
            )
