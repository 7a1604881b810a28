"""The protocol between the engine and a model: the engine runs with any model that has these methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures


class StepMemory(Protocol):
    """A memory of grid steps that the engine fills: `StreamingFlashMemory`, or a substitute."""

    @property
    def steps(self) -> int:
        """Complete grid steps in memory."""

    @property
    def bytes(self) -> int:
        """Bytes that the memory holds on its device."""

    def candidate_steps(self) -> Tensor:
        """See `StreamingFlashMemory.candidate_steps`."""

    def append(self, high: Tensor, low: Tensor, start_ns: Sequence[int], end_ns: Sequence[int]) -> None:
        """See `StreamingFlashMemory.append`."""

    def append_run(self, high: Tensor, low: Tensor, start_ns: int, end_ns: int, keyframe_ns: int, weight: int) -> None:
        """See `StreamingFlashMemory.append_run`."""

    def snapshot(self, provisional: tuple[Tensor, Tensor, int] | None = None) -> MemorySnapshot:
        """See `StreamingFlashMemory.snapshot`."""

    def state_dict(self) -> dict[str, Tensor]:
        """See `StreamingFlashMemory.state_dict`."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `StreamingFlashMemory.load_state_dict`."""


class StreamConstraint(Protocol):
    """What one answer of a model is held to, see `StreamModel.json_constraint`; for the model alone."""

    @property
    def complete(self) -> bool:
        """Whether nothing but the answer's end can follow."""

    @property
    def problem(self) -> str:
        """Why it cannot say any more what may follow; empty while it can."""

    def allowed(self) -> Tensor:
        """A bit for each token that may follow, int32 on the CPU, the lowest first."""

    def take(self, token: int) -> None:
        """Goes on by the token that was chosen."""


class StreamGeneration(Protocol):
    """An answer that is being decoded."""

    @property
    def text(self) -> str:
        """The answer so far; it only grows."""

    @property
    def done(self) -> bool:
        """Whether it is complete."""

    @property
    def relevance(self) -> Sequence[float] | None:
        """Of a complete answer: the probability that it rests on each slot, ordered as `MemorySnapshot.slot_tokens`.

        None where the model gives none.
        """

    @property
    def confidence(self) -> float:
        """Of a complete answer: from 0 to 1, how sure the model is of it."""

    @property
    def calibrated(self) -> bool:
        """Whether confidence is the share of such answers that are right; else it is the model's own probability."""

    @property
    def not_seen(self) -> bool:
        """Of a complete answer: whether it says that what was asked for was not seen."""

    @property
    def choice_probabilities(self) -> Sequence[float] | None:
        """Of a complete answer that is one of given texts: the probability of each, given that it is one of them."""

    @property
    def truncated(self) -> bool:
        """Of a complete answer: whether its longest length ended it, so that something may be missing."""

    @property
    def problem(self) -> str:
        """Of a complete answer: why it could not be held to its constraint to the end; empty if it was."""

    def close(self) -> None:
        """Frees its cache row, whether the answer is complete or given up; closing again does nothing."""


class StreamScoring(Protocol):
    """Texts that are scored as answers to questions about one memory; giving it up takes no call."""

    @property
    def done(self) -> bool:
        """Whether all are scored."""

    @property
    def log_probabilities(self) -> Sequence[Sequence[float]]:
        """Once all are scored: of each question's texts, that the model's whole answer is this one.

        A softmax over a question's texts is their distribution, given that the answer is one of them.
        """

    def step(self) -> bool:
        """Scores a batch more, in bounded time; returns `done`."""


class StreamPrefilledMemory(Protocol):
    """One memory in the model: prefilled in chunks, then asked about."""

    def prefill_chunk(self) -> bool:
        """Prefills the next chunk, in bounded time; returns whether the prefill is complete now.

        Once it is complete, further calls do nothing.
        """

    def start(
        self,
        question: str,
        max_new_tokens: int,
        answer_prefix: str = "",
        constraint: StreamConstraint | None = None,
        turns: Sequence[tuple[str, str]] = (),
    ) -> StreamGeneration:
        """Processes a question, once the prefill is complete, and decodes the first token of its answer.

        The answer is forced to begin with `answer_prefix`, which is not part of its text, and held to `constraint`,
        which is its own from here on. Each of `turns` is an earlier question of the conversation with its answer, which
        the model reads first.

        Raises:
            RuntimeError: the prefill is not complete.
        """

    def start_choice(
        self, question: str, choices: Sequence[str], answer_prefix: str = "", turns: Sequence[tuple[str, str]] = ()
    ) -> StreamGeneration:
        """Begins an answer that is the likeliest of given texts, none of which is empty; else like `start`.

        Its text comes at once. Control tokens in the choices are read letter by letter.
        """

    def score(self, questions: Sequence[str], texts: Sequence[Sequence[str]], answer_prefix: str = "") -> StreamScoring:
        """Scores texts as answers to questions, each question by itself, beside answers that are being decoded.

        Args:
            questions: none of them sees another.
            texts: those of each question, none empty; control tokens in them are read letter by letter.
            answer_prefix: what all answers are forced to begin with.

        Raises:
            RuntimeError: the prefill is not complete.
        """

    def decode_step(self) -> None:
        """Decodes the next token, or scores more choices, of each answer that is neither complete nor closed."""

    def close(self) -> None:
        """Frees its buffer for another memory. All its answers must be complete or closed."""


class StreamPrefixCache(Protocol):
    """Buffers for two memories: one answers questions while the next is prefilled."""

    def allocate(self, snapshot: MemorySnapshot) -> StreamPrefilledMemory:
        """Takes a free buffer for a memory, whose prefill may begin.

        Raises:
            RuntimeError: both buffers are taken.
        """

    def close(self) -> None:
        """Frees the buffers. All memories must be closed."""


class SegmentRecaller(Protocol):
    """Finds the segments of a long stream that a question is about. n segments of t tokens, keys of d values.

    One thread may make keys while another holds questions against them.
    """

    def segment_keys(self, low: Tensor, grid: PatchGrid) -> Tensor:
        """Keys [n, t, d] float16 on the CPU, of features [n, P / 4, D] on any device."""

    def scores(
        self, question: str, keys: Tensor, start_ns: Tensor, end_ns: Tensor, first_ns: int, now_ns: int
    ) -> Tensor:
        """How much each segment matters to a question, [n] float32 on the CPU.

        Args:
            question: as asked.
            keys: [n, t, d], of `segment_keys`.
            start_ns: [n] int64, stamps of the segments' first frames.
            end_ns: [n] int64, of their last.
            first_ns: of the stream's first frame.
            now_ns: of its newest.
        """


class StreamConditionCheck(Protocol):
    """A condition as a model is asked about it."""

    @property
    def questions(self) -> Sequence[str]:
        """What is asked, each by itself; the first stands for all where one is shown."""

    @property
    def texts(self) -> Sequence[Sequence[str]]:
        """Of each question: the answers that are scored."""

    def probability(self, log_probabilities: Sequence[Sequence[float]]) -> float:
        """That it is true, from 0 to 1; of each question's texts `StreamScoring.log_probabilities`."""


class StreamModel(Protocol):
    """A vision-language model with a Flash Memory.

    One thread calls `frame_grid`, `new_memory` and `encode_steps` while another uses a prefix cache, and any thread
    calls `control_tokens_in`, `condition_check` and `json_constraint`; the model must be safe for that. An
    exception from any method is counted, logged and reported, and ends neither thread.
    """

    @property
    def name(self) -> str:
        """The model's name in answers."""

    @property
    def device(self) -> torch.device:
        """Where the model computes and its memories are."""

    @property
    def memory_config(self) -> FlashMemoryConfig:
        """Sizes of the memory."""

    @property
    def recaller(self) -> SegmentRecaller | None:
        """Finds segments for questions; None where the model was not trained for it."""

    def fingerprint(self) -> str:
        """A short hash of all that features depend on, weights and preprocessing. Takes a look at every weight."""

    def frame_grid(self, height: int, width: int, min_pixels: int, max_pixels: int) -> PatchGrid:
        """The patch grid of frames of `height` x `width` pixels, resized to an area within the bounds."""

    def new_memory(self, grid: PatchGrid) -> StepMemory:
        """An empty memory of frames on `grid`, on the model's device."""

    def encode_steps(self, frames: Sequence[np.ndarray], grid: PatchGrid) -> StepFeatures:
        """Features of n grid steps from their 2n frames, RGB uint8 [height, width, 3] of any size, in time order.

        Raises:
            ValueError: no frames, or an odd number of them.
        """

    def control_tokens_in(self, text: str) -> list[str]:
        """The control tokens, such as ``<|im_end|>``, that `text` spells out."""

    def condition_check(self, text: str) -> StreamConditionCheck:
        """How to ask whether something is true now: a statement, or a question with its question mark."""

    def json_constraint(self, schema: str) -> StreamConstraint:
        """Holds one answer to a JSON schema.

        Raises:
            ValueError: no answer of this model can be held to it; the message says why, and what to do.
        """

    def new_prefix_cache(self) -> StreamPrefixCache:
        """A prefix cache for one engine's questions; created, used and closed by one thread."""
