"""What the engine needs of a model, so that it runs with any that has these methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures


class StepMemory(Protocol):
    """A memory of grid steps, as the engine fills it: `StreamingFlashMemory`, or what stands in for one."""

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

    def snapshot(self, provisional: tuple[Tensor, Tensor, int] | None = None) -> MemorySnapshot:
        """See `StreamingFlashMemory.snapshot`."""


class StreamGeneration(Protocol):
    """An answer that is being given."""

    @property
    def text(self) -> str:
        """The answer so far; it only grows."""

    @property
    def done(self) -> bool:
        """Whether it is complete."""

    def close(self) -> None:
        """Gives its place to other questions: when it is complete, or before, to give it up. Again is no error."""


class StreamPrefilledMemory(Protocol):
    """One memory in the model: first read in pieces, then asked about."""

    def prefill_chunk(self) -> bool:
        """Reads a piece more, which takes a bounded time; True once the memory is read whole."""

    def start(self, question: str, max_new_tokens: int, answer_prefix: str = "") -> StreamGeneration:
        """Takes a question in, once the memory is read whole, and gives its answer's first token.

        The answer is made to begin with `answer_prefix`, which is no part of its text.
        """

    def decode_step(self) -> None:
        """Gives each answer that is neither complete nor closed its next token."""

    def close(self) -> None:
        """Frees its place for another memory. Its answers are complete or closed."""


class StreamPrefixCache(Protocol):
    """Where memories are read, two at a time: one is asked about while the next is read."""

    def allocate(self, snapshot: MemorySnapshot) -> StreamPrefilledMemory:
        """Begins to read a memory."""

    def close(self) -> None:
        """Frees everything, all readings being closed."""


class StreamModel(Protocol):
    """A vision-language model with a Flash Memory.

    One thread calls `frame_grid`, `new_memory` and `encode_steps` while another uses a reader, and any thread calls
    `control_tokens_in`: the model must allow for that. Whatever a method raises is counted, logged and reported,
    and ends neither thread.
    """

    @property
    def name(self) -> str:
        """What the model is called in answers."""

    @property
    def device(self) -> torch.device:
        """Where it computes, and where its memories are."""

    @property
    def memory_config(self) -> FlashMemoryConfig:
        """Sizes of the memory."""

    def frame_grid(self, height: int, width: int, min_pixels: int, max_pixels: int) -> PatchGrid:
        """The patch grid that frames of `height` x `width` pixels are resized to, its area within the bounds."""

    def new_memory(self, grid: PatchGrid) -> StepMemory:
        """An empty memory of frames on `grid`, on the model's device."""

    def encode_steps(self, frames: Sequence[np.ndarray], grid: PatchGrid) -> StepFeatures:
        """Features of n grid steps from their 2n frames, RGB uint8 [height, width, 3] of any size, in time order."""

    def control_tokens_in(self, text: str) -> list[str]:
        """The control tokens, such as ``<|im_end|>``, that are spelled out in `text`."""

    def new_prefix_cache(self) -> StreamPrefixCache:
        """Where an engine's questions are answered; made, used and closed by one thread."""
