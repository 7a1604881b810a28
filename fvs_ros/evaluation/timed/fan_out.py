"""One model, several conditions: each frame is encoded once, and every condition is made of the same features."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from fvs_ros.evaluation.timed.controls import MEMORY, RECALL, Condition, StepHistory, check_conditions, show
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.stream.model_protocol import (
    StepMemory,
    StreamConstraint,
    StreamGeneration,
    StreamModel,
    StreamPrefilledMemory,
    StreamPrefixCache,
    StreamScoring,
)


class ConditionModel:
    """A `StreamModel` that answers from whichever condition is asked for.

    The engine around it knows the Flash Memory alone. It must have no frames on their way while it answers, since
    conditions of the newest steps are made when they are asked for.

    Args:
        model: what encodes and answers.
        conditions: that will be asked for.

    Attributes:
        condition: what the next answers are given from.
        steps: what the next question names for the condition, see `controls.show`.
        told: the steps that questions of the next stream name, see `StepHistory`.
        answer_prefix: what the next answers are made to begin with.
        unread: while True nobody asks, so that the newest snapshot stands for those that would follow it.
        encode_s: seconds spent on encoding so far.
        generation: the newest answer, None before the first.

    What has nothing to do with conditions is the model's own.

    Raises:
        ValueError: a condition that the model's memory cannot hold, or that needs a recaller where it has none.
    """

    def __init__(self, model: StreamModel, conditions: Sequence[Condition]) -> None:
        check_conditions(conditions, model.memory_config)
        if model.recaller is None and RECALL in conditions:
            raise ValueError(f"{model.name} was not trained to recall; leave recall out")
        self.name, self.memory_config, self.device = model.name, model.memory_config, model.device
        self.frame_grid = model.frame_grid
        self.fingerprint = model.fingerprint
        self.recaller = model.recaller
        self.control_tokens_in = model.control_tokens_in
        self.condition_check = model.condition_check
        self.json_constraint = model.json_constraint
        self.condition = MEMORY
        self.steps: tuple[int, ...] = ()
        self.told: Mapping[int, int] = {}
        self.answer_prefix = ""
        self.unread = False
        self.encode_s = 0.0
        self.generation: StreamGeneration | None = None
        self._model = model
        self._conditions = tuple(conditions)
        self._history: StepHistory | None = None
        self._memory: MemorySnapshot | None = None
        # The same object for all questions at a moment, because the model keeps what it computed of the last one.
        self._shown: dict[tuple[Condition, tuple[int, ...]], MemorySnapshot] = {}

    @property
    def shown(self) -> MemorySnapshot | None:
        """What the newest answer was given from; None before the first."""
        return self._shown.get((self.condition, self.steps))

    def encode_steps(self, frames: Sequence[np.ndarray], grid: PatchGrid) -> StepFeatures:
        """See `StreamModel.encode_steps`."""
        begin = time.perf_counter()
        features = self._model.encode_steps(frames, grid)
        self.encode_s += time.perf_counter() - begin
        return features

    def new_memory(self, grid: PatchGrid) -> StepMemory:
        """See `StreamModel.new_memory`."""
        self._history = StepHistory(
            self._conditions, grid, self.memory_config, told=self.told, recalled=self.recaller is not None
        )
        return _ConditionMemory(self, self._model.new_memory(grid), self._history)

    def new_prefix_cache(self) -> StreamPrefixCache:
        """See `StreamModel.new_prefix_cache`."""
        return _ConditionCache(self, self._model.new_prefix_cache())

    def show(self, snapshot: MemorySnapshot) -> MemorySnapshot:
        """What `condition` shows in place of a Flash Memory."""
        if self._history is None:
            raise RuntimeError("asked before a memory was made")
        if self._memory is not snapshot:
            self._memory = snapshot
            self._shown = {}
        key = (self.condition, self.steps)
        if key not in self._shown:
            self._shown[key] = show(self.condition, snapshot, self._history, self.steps)
        return self._shown[key]


class _ConditionCache:
    """Reads whichever condition is asked for."""

    def __init__(self, model: ConditionModel, cache: StreamPrefixCache) -> None:
        self._model = model
        self._cache = cache

    def allocate(self, snapshot: MemorySnapshot) -> StreamPrefilledMemory:
        return _ConditionPrefilled(self._model, self._cache, snapshot)

    def close(self) -> None:
        self._cache.close()


class _ConditionPrefilled:
    """One Flash Memory, of which one condition at a time is read: the one that the newest question was about."""

    def __init__(self, model: ConditionModel, cache: StreamPrefixCache, snapshot: MemorySnapshot) -> None:
        self._model = model
        self._cache = cache
        self._snapshot = snapshot
        self._shown: MemorySnapshot | None = None
        self._prefilled: StreamPrefilledMemory | None = None

    def prefill_chunk(self) -> bool:
        # Which condition will be asked about is not known yet.
        return True

    def start(
        self,
        question: str,
        max_new_tokens: int,
        answer_prefix: str = "",
        constraint: StreamConstraint | None = None,
        turns: Sequence[tuple[str, str]] = (),
    ) -> StreamGeneration:
        prefix = answer_prefix or self._model.answer_prefix
        self._model.generation = self._condition().start(question, max_new_tokens, prefix, constraint, turns)
        return self._model.generation

    def start_choice(
        self, question: str, choices: Sequence[str], answer_prefix: str = "", turns: Sequence[tuple[str, str]] = ()
    ) -> StreamGeneration:
        prefix = answer_prefix or self._model.answer_prefix
        self._model.generation = self._condition().start_choice(question, choices, prefix, turns)
        return self._model.generation

    def score(self, questions: Sequence[str], texts: Sequence[Sequence[str]], answer_prefix: str = "") -> StreamScoring:
        return self._condition().score(questions, texts, answer_prefix or self._model.answer_prefix)

    def _condition(self) -> StreamPrefilledMemory:
        """What the condition shows, prefilled."""
        shown = self._model.show(self._snapshot)
        if self._prefilled is None or self._shown is not shown:
            self.close()
            self._shown, self._prefilled = shown, self._cache.allocate(shown)
            while not self._prefilled.prefill_chunk():
                pass
        return self._prefilled

    def decode_step(self) -> None:
        if self._prefilled is not None:
            self._prefilled.decode_step()

    def close(self) -> None:
        if self._prefilled is not None:
            self._prefilled.close()
            self._prefilled = None


class _ConditionMemory:
    """A memory that also adds each step to the history."""

    def __init__(self, model: ConditionModel, memory: StepMemory, history: StepHistory) -> None:
        self._model = model
        self._memory = memory
        self._history = history
        self._snapshot: MemorySnapshot | None = None

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

    def append_run(self, high: Tensor, low: Tensor, start_ns: int, end_ns: int, keyframe_ns: int, weight: int) -> None:
        """What an earlier run saw: no control knows of it."""
        self._memory.append_run(high, low, start_ns, end_ns, keyframe_ns, weight)

    def state_dict(self) -> dict[str, Tensor]:
        return self._memory.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._memory.load_state_dict(state)

    def snapshot(self, provisional: tuple[Tensor, Tensor, int] | None = None) -> MemorySnapshot:
        if provisional is not None:
            self._history.provide(*provisional)
        if self._snapshot is None or not self._model.unread:
            self._snapshot = self._memory.snapshot(provisional)
        return self._snapshot
