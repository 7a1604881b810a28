"""What a model is shown of a stream: its Flash Memory, a part of it, or a control in the same layout.

A control that beats the memory shows that the memory does not pay. To be fair it must not fail for another reason:
its tokens come from the same features, in the layout that the weights were trained with, at their true times.

Shapes: T grid steps seen, n chosen ones, P patches of a frame, D width of a patch feature.
"""

from __future__ import annotations

import enum
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fvs_ros.evaluation.timed.chosen_steps import evenly_spaced
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.geometry import FRAMES_PER_STEP
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.recalled import recalled_memory
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures

# Host memory for the steps that uniform sampling may yet choose. A 112 x 112 step of the embedded model takes 0.1 MB,
# so that hours fit; of a step of 448 x 448 in bfloat16 (3.3 MB) 650 do, 22 minutes at 1 frame per second.
UNIFORM_BYTES = 2 * 1024**3
# However large steps are, this many times the slots are kept, so that the nearest kept step is at most an eighth of
# the spacing away from the wanted one.
UNIFORM_PER_SLOT = 4


class ConditionKind(enum.Enum):
    """Kinds of conditions, by what they are called on the command line."""

    MEMORY = "memory"
    LAST = "last"
    UNIFORM = "uniform"
    QUESTION_ONLY = "question-only"
    CSM_ONLY = "csm-only"
    DAM_ONLY = "dam-only"
    NEWEST = "newest"
    RANDOM = "random"
    ORACLE = "oracle"
    RECALL = "recall"


TOLD = (ConditionKind.RANDOM, ConditionKind.ORACLE)
"""Conditions that show the steps which come with a question (`StreamQuestion.steps`)."""


@dataclass(frozen=True)
class Condition:
    """What a model is shown of a stream.

    - ``memory``: the Flash Memory, as the node answers from it without recall.
    - ``lastN``: the newest N frames alone, at most as many as fill the CSM.
    - ``uniform``: as many steps as the memory has CSM slots, evenly spaced from the first to the newest: the memory's
      token budget, without its clustering. The DAM holds what the published rule chooses among them; a window of the
      newest steps stays where the memory has one.
    - ``csm-only``, ``dam-only``: the tokens of that part of the memory alone.
    - ``question-only``: nothing. What is right then can be guessed.
    - ``recall``: the segments that the question recalls, as the node answers with `recall_segments`; the Flash Memory
      where that holds all segments apart.
    - ``newest``: the newest steps, as many as the memory has CSM slots.
    - ``random``: as many steps drawn at random.
    - ``oracle``: the newest steps and those of the question's proof, see `chosen_steps.oracle_steps`. What is wrong
      then was not missed but misread.

    Steps that come with a question are laid out as recalled ones are, for weights that were trained to read that.

    Attributes:
        frames: N of ``lastN``, 0 for others.

    Raises:
        ValueError: for an N that is odd or below 2.
    """

    kind: ConditionKind
    frames: int = 0

    def __post_init__(self) -> None:
        if (self.kind is ConditionKind.LAST) != bool(self.frames) or self.frames < 0 or self.frames % FRAMES_PER_STEP:
            raise ValueError(
                f"a condition of the last {self.frames} frames; a grid step is {FRAMES_PER_STEP} frames, so choose an "
                "even number above 0, as in last4"
            )

    @classmethod
    def parse(cls, name: str) -> Condition:
        """The condition of that name.

        Raises:
            ValueError: if there is none.
        """
        if found := re.fullmatch(r"last(\d+)", name):
            return cls(ConditionKind.LAST, int(found[1]))
        kinds = {kind.value: kind for kind in ConditionKind if kind is not ConditionKind.LAST}
        if name not in kinds:
            raise ValueError(f"{name!r} is no condition; choose from {', '.join(kinds)} and lastN, such as last4")
        return cls(kinds[name])

    @property
    def name(self) -> str:
        """What it is called on the command line and in reports."""
        return f"{self.kind.value}{self.frames or ''}"


MEMORY, RECALL = Condition(ConditionKind.MEMORY), Condition(ConditionKind.RECALL)


@dataclass(frozen=True)
class Step:
    """A grid step with its features.

    Attributes:
        index: its number from the stream's beginning.
        high: [P, D].
        low: [P / 4, D].
        start_ns, end_ns: stamps of its two frames.
    """

    index: int
    high: Tensor
    low: Tensor
    start_ns: int
    end_ns: int


class StepHistory:
    """The steps of a stream that controls are made of: the newest ones, and evenly spaced ones. Bounded.

    Args:
        conditions: for which steps are kept; without a control that needs them, none are.
        grid: patches of a frame.
        config: the memory's sizes.
        uniform_bytes: of steps kept for uniform sampling. When they are full every second one is let go, and the
            nearest kept step stands for a wanted one.
        told: the steps that questions name, each with the stamp of the last question that does. They are kept until
            that has been asked, and nothing is kept for uniform sampling, whose steps are among them.
        recalled: whether told steps are laid out as recalled ones, see `memory.recalled`.

    Raises:
        ValueError: a condition of more frames than the CSM holds.
    """

    def __init__(
        self,
        conditions: Iterable[Condition],
        grid: PatchGrid,
        config: FlashMemoryConfig,
        uniform_bytes: int = UNIFORM_BYTES,
        told: Mapping[int, int] | None = None,
        recalled: bool = False,
    ) -> None:
        conditions = tuple(conditions)
        check_conditions(conditions, config)
        self._grid = grid
        self._config = config
        kinds = {condition.kind for condition in conditions}
        self._windowed = bool(kinds & {ConditionKind.UNIFORM, *TOLD})
        self._uniform = ConditionKind.UNIFORM in kinds and not told
        window = config.window_slots if self._windowed else 0
        newest = config.csm_slots if ConditionKind.NEWEST in kinds else 0
        self._newest: deque[Step] = deque(
            maxlen=max(window, newest, *(condition.frames // FRAMES_PER_STEP for condition in conditions), 0)
        )
        self._told = dict(told or {})
        self._recalled = recalled
        self._asked_ns = sorted(set(self._told.values()), reverse=True)
        self._kept: dict[int, Step] = {}
        self._uniform_bytes = uniform_bytes
        self._spaced: list[Step] = []
        self._stride = 1
        self._steps = 0
        self._unpaired: list[Step] = []
        self._device = torch.device("cpu")

    def add(self, high: Tensor, low: Tensor, start_ns: int, end_ns: int) -> None:
        """Adds the next complete step: `high` [P, D], `low` [P / 4, D]."""
        self._unpaired = []
        self._device = high.device
        index, self._steps = self._steps, self._steps + 1
        if self._newest.maxlen:
            self._newest.append(Step(index, high, low, start_ns, end_ns))
        if self._uniform and index % self._stride == 0:
            # On the host, where there is room; the GPU belongs to the memory that is measured.
            self._spaced.append(Step(index, high.cpu(), low.cpu(), start_ns, end_ns))
            self._thin()
        if index in self._told:
            # A copy: what is handed in is a part of a whole batch, which would stay with it.
            self._kept[index] = Step(index, high.to("cpu", copy=True), low.to("cpu", copy=True), start_ns, end_ns)
        self._forget(start_ns)

    def _forget(self, now_ns: int) -> None:
        """Lets those told steps go whose last question has been asked."""
        if not self._asked_ns or now_ns <= self._asked_ns[-1]:
            return
        while self._asked_ns and now_ns > self._asked_ns[-1]:
            self._asked_ns.pop()
        self._kept = {index: step for index, step in self._kept.items() if self._told[index] >= now_ns}

    def provide(self, high: Tensor, low: Tensor, stamp_ns: int) -> None:
        """An unpaired newest frame, doubled into a step; it counts until the next step is added."""
        self._device = high.device
        self._unpaired = [Step(self._steps, high, low, stamp_ns, stamp_ns)]

    def _thin(self) -> None:
        step = self._spaced[0]
        fitting = self._uniform_bytes // (step.high.nbytes + step.low.nbytes)
        if len(self._spaced) <= max(UNIFORM_PER_SLOT * self._config.csm_slots, fitting):
            return
        self._stride *= 2
        self._spaced = [step for step in self._spaced if step.index % self._stride == 0]

    def last(self, frames: int) -> MemorySnapshot:
        """A memory of the newest `frames` frames, or as many as there are."""
        return self._memory(self._last_steps(frames // FRAMES_PER_STEP))

    def newest(self) -> MemorySnapshot:
        """A memory of as many of the newest steps as the CSM has slots."""
        return self.last(FRAMES_PER_STEP * self._config.csm_slots)

    def chosen(self, steps: Sequence[int]) -> MemorySnapshot:
        """A memory of told steps, in order.

        Raises:
            KeyError: a step that was not told, is yet to come, or is no longer needed.
            ValueError: more steps than the CSM has slots.
        """
        if len(steps) > self._config.csm_slots:
            raise ValueError(f"{len(steps)} steps are to be shown; the memory has {self._config.csm_slots} slots")
        chosen = [self._kept[index] for index in steps]
        return self._as_recalled(chosen) if self._recalled else self._memory(chosen)

    def uniform(self) -> MemorySnapshot:
        """A memory of evenly spaced steps, as many as the CSM has slots; of all steps while they fit."""
        steps = [*self._spaced, *self._unpaired]
        total, slots = self._steps + len(self._unpaired), self._config.csm_slots
        if total <= slots:
            return self._memory(steps)
        indices = torch.tensor([step.index for step in steps])
        wanted = torch.tensor(evenly_spaced(total, slots))
        nearest = (indices[None, :] - wanted[:, None]).abs().argmin(1)
        return self._memory([steps[place] for place in nearest.tolist()])

    def _last_steps(self, count: int) -> list[Step]:
        newest = [*self._newest, *self._unpaired]
        return newest[max(0, len(newest) - count) :]

    def _as_recalled(self, steps: Sequence[Step]) -> MemorySnapshot:
        device, window = self._device, self._last_steps(self._config.window_slots)
        nothing = steps[0].high[None, ...][:0].to(device)
        return recalled_memory(
            torch.stack([step.low.to(device) for step in steps]),
            torch.stack([step.high.to(device) for step in window]) if window else nothing,
            self._grid,
            steps=self._steps + len(self._unpaired),
            times=torch.tensor([float(step.index) for step in steps], device=device),
            start_ns=torch.tensor([step.start_ns for step in steps], device=device),
            end_ns=torch.tensor([step.end_ns for step in steps], device=device),
            window_stamps_ns=torch.tensor([step.start_ns for step in window], dtype=torch.int64, device=device),
        )

    def _memory(self, steps: Sequence[Step]) -> MemorySnapshot:
        """A memory of chosen steps alone, in the published layout, at their places in the whole stream."""
        device = self._device
        index = torch.tensor([step.index for step in steps], device=device)
        memory = build_memory(
            StepFeatures(
                torch.stack([step.high.to(device) for step in steps]),
                torch.stack([step.low.to(device) for step in steps]),
            ),
            self._grid,
            self._config,
            start_ns=torch.tensor([step.start_ns for step in steps], device=device),
            end_ns=torch.tensor([step.end_ns for step in steps], device=device),
        )
        total = self._steps + len(self._unpaired)
        # The window holds the newest steps of the stream, not of the choice; they are the same unless it is spaced.
        newest = self._last_steps(memory.window.shape[0]) if self._windowed else []
        if newest:
            stamps_ns = torch.tensor([step.start_ns for step in newest], device=device)
            window = torch.stack([step.high.to(device) for step in newest])
            memory = replace(memory, window=window, window_stamps_ns=stamps_ns)
        return replace(memory, steps=total, csm_times=index.float(), csm_steps=index, dam_steps=index[memory.dam_steps])


def check_conditions(conditions: Iterable[Condition], config: FlashMemoryConfig) -> None:
    """Refuses conditions that a memory of these sizes cannot hold.

    Raises:
        ValueError: a condition of more frames than the CSM holds, or one that fills it where there is none.
    """
    most = FRAMES_PER_STEP * config.csm_slots
    for condition in conditions:
        if most == 0 and condition.kind in (*TOLD, ConditionKind.UNIFORM, ConditionKind.LAST, ConditionKind.NEWEST):
            raise ValueError(
                f"{condition.name} fills the CSM's slots, and this memory has none; leave {condition.name} out"
            )
        if condition.frames > most:
            raise ValueError(
                f"{condition.name} shows {condition.frames} frames; the memory's {config.csm_slots} slots hold {most}, "
                f"so choose last{most} or less"
            )


def show(
    condition: Condition, memory: MemorySnapshot, history: StepHistory, steps: Sequence[int] = ()
) -> MemorySnapshot:
    """What the model is shown of a stream under a condition.

    Args:
        condition: which.
        memory: the Flash Memory.
        history: fed with the same steps as `memory`, for conditions that include theirs.
        steps: those that the question names for the condition; they go before what the condition would show.
    """
    if steps:
        return history.chosen(steps)
    if condition.kind is ConditionKind.NEWEST:
        return history.newest()
    if condition.kind is ConditionKind.LAST:
        return history.last(condition.frames)
    if condition.kind is ConditionKind.UNIFORM:
        return history.uniform()
    if condition.kind not in (ConditionKind.MEMORY, ConditionKind.RECALL):
        memory = replace(memory, window=memory.window[:0], window_stamps_ns=memory.window_stamps_ns[:0])
    if condition.kind in (ConditionKind.QUESTION_ONLY, ConditionKind.DAM_ONLY):
        memory = replace(memory, csm=memory.csm[:0], csm_times=memory.csm_times[:0])
    if condition.kind in (ConditionKind.QUESTION_ONLY, ConditionKind.CSM_ONLY):
        memory = replace(
            memory,
            dam=memory.dam[:0],
            dam_steps=memory.dam_steps[:0],
            dam_slots=memory.dam_slots[:0],
            dam_stamps_ns=memory.dam_stamps_ns[:0],
        )
    return memory
