"""One model, several views of its stream: each frame is encoded once, and every view is made of the same features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fvs_ros.evaluation.timed.controls import MEMORY, StepHistory, View, check_views, show
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.stream.model_protocol import (
    StepMemory,
    StreamGeneration,
    StreamModel,
    StreamPrefilledMemory,
    StreamPrefixCache,
)


class FanOutModel:
    """A `StreamModel` that answers from whichever view is asked for.

    The engine around it knows the Flash Memory alone. It must have no frames on their way while it answers, since
    views of the newest steps are made when they are asked for.

    Args:
        model: what encodes and answers.
        views: that will be asked for.

    Attributes:
        view: what the next answers are given from.
        answer_prefix: what the next answers are made to begin with.

    Raises:
        ValueError: a view that the model's memory cannot hold.
    """

    def __init__(self, model: StreamModel, views: Sequence[View]) -> None:
        check_views(views, model.memory_config)
        self.view = MEMORY
        self.answer_prefix = ""
        self._model = model
        self._views = tuple(views)
        self._history: StepHistory | None = None
        self._memory: MemorySnapshot | None = None
        # The same object for all questions at a moment, because the model keeps what it computed of the last one.
        self._shown: dict[View, MemorySnapshot] = {}

    @property
    def name(self) -> str:
        """See `StreamModel.name`."""
        return self._model.name

    @property
    def memory_config(self) -> FlashMemoryConfig:
        """See `StreamModel.memory_config`."""
        return self._model.memory_config

    @property
    def device(self) -> torch.device:
        """See `StreamModel.device`."""
        return self._model.device

    @property
    def shown(self) -> MemorySnapshot | None:
        """What the newest answer was given from; None before the first."""
        return self._shown.get(self.view)

    def frame_grid(self, height: int, width: int, min_pixels: int, max_pixels: int) -> PatchGrid:
        """See `StreamModel.frame_grid`."""
        return self._model.frame_grid(height, width, min_pixels, max_pixels)

    def new_memory(self, grid: PatchGrid) -> StepMemory:
        """See `StreamModel.new_memory`."""
        self._history = StepHistory(self._views, grid, self.memory_config)
        return _FanOutMemory(self._model.new_memory(grid), self._history)

    def encode_steps(self, frames: Sequence[np.ndarray], grid: PatchGrid) -> StepFeatures:
        """See `StreamModel.encode_steps`."""
        return self._model.encode_steps(frames, grid)

    def control_tokens_in(self, text: str) -> list[str]:
        """See `StreamModel.control_tokens_in`."""
        return self._model.control_tokens_in(text)

    def new_prefix_cache(self) -> StreamPrefixCache:
        """See `StreamModel.new_prefix_cache`."""
        return _FanOutCache(self, self._model.new_prefix_cache())

    def show(self, snapshot: MemorySnapshot) -> MemorySnapshot:
        """What `view` shows in place of a Flash Memory."""
        if self._history is None:
            raise RuntimeError("asked before a memory was made")
        if self._memory is not snapshot:
            self._memory = snapshot
            self._shown = {}
        if self.view not in self._shown:
            self._shown[self.view] = show(self.view, snapshot, self._history)
        return self._shown[self.view]


class _FanOutCache:
    """Reads whichever view is asked for."""

    def __init__(self, model: FanOutModel, cache: StreamPrefixCache) -> None:
        self._model = model
        self._cache = cache

    def allocate(self, snapshot: MemorySnapshot) -> StreamPrefilledMemory:
        return _FanOutPrefilled(self._model, self._cache, snapshot)

    def close(self) -> None:
        self._cache.close()


class _FanOutPrefilled:
    """One Flash Memory, of which one view at a time is read: the one that the newest question was about."""

    def __init__(self, model: FanOutModel, cache: StreamPrefixCache, snapshot: MemorySnapshot) -> None:
        self._model = model
        self._cache = cache
        self._snapshot = snapshot
        self._view: View | None = None
        self._prefilled: StreamPrefilledMemory | None = None

    def prefill_chunk(self) -> bool:
        # Which view will be asked about is not known yet.
        return True

    def start(self, question: str, max_new_tokens: int, answer_prefix: str = "") -> StreamGeneration:
        shown = self._model.show(self._snapshot)
        if self._prefilled is None or self._view != self._model.view:
            self.close()
            self._view, self._prefilled = self._model.view, self._cache.allocate(shown)
            while not self._prefilled.prefill_chunk():
                pass
        return self._prefilled.start(question, max_new_tokens, answer_prefix or self._model.answer_prefix)

    def decode_step(self) -> None:
        if self._prefilled is not None:
            self._prefilled.decode_step()

    def close(self) -> None:
        if self._prefilled is not None:
            self._prefilled.close()
            self._prefilled = None


class _FanOutMemory:
    """A memory that tells the history of each step that it takes."""

    def __init__(self, memory: StepMemory, history: StepHistory) -> None:
        self._memory = memory
        self._history = history

    @property
    def steps(self) -> int:
        return self._memory.steps

    @property
    def bytes(self) -> int:
        return self._memory.bytes

    def candidate_steps(self) -> Tensor:
        return self._memory.candidate_steps()

    def append(self, high: Tensor, low: Tensor, start_ns: Sequence[int], end_ns: Sequence[int]) -> None:
        self._memory.append(high, low, start_ns, end_ns)
        for step in zip(high, low, start_ns, end_ns, strict=True):
            self._history.add(*step)

    def snapshot(self, provisional: tuple[Tensor, Tensor, int] | None = None) -> MemorySnapshot:
        if provisional is not None:
            self._history.provide(*provisional)
        return self._memory.snapshot(provisional)
