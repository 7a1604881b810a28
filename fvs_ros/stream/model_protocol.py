"""What the engine needs of a model, so that it runs with any that has these methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
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


class StreamModel(Protocol):
    """A vision-language model with a Flash Memory.

    One thread calls `frame_grid`, `new_memory` and `encode_steps` while another calls `answer`, and any thread calls
    `control_tokens_in`: the model must allow for that. Whatever a method raises is counted, logged and reported,
    and ends neither thread.
    """

    @property
    def name(self) -> str:
        """What the model is called in answers."""

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

    def answer(
        self,
        snapshot: MemorySnapshot,
        question: str,
        *,
        max_new_tokens: int,
        on_token: Callable[[str], None],
        should_stop: Callable[[], bool],
        answer_prefix: str = "",
    ) -> str:
        """Answers from `snapshot`, passing each piece of text to `on_token` as it comes.

        `should_stop` is asked before each token; once true, the text so far is returned. `answer_prefix` is what the
        answer is made to begin with; it is no part of the text that comes back.
        """
