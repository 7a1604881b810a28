"""Conditions that are watched for while a recorded stream plays, and how rightly and how soon that is told."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from statistics import median

from fvs_ros.sources.frame import Frame
from fvs_ros.stream.config import LONGEST_TIMEOUT_S, StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.model_protocol import StreamModel
from fvs_ros.stream.watch import WatchEvent
from fvs_ros.stream.watch_condition import Change

# Between two looks at whether the model failed.
LOOK_S = 0.5


@dataclass(frozen=True)
class WatchScore:
    """How rightly conditions were told to have become true.

    A *spell* is a run of steps in which a condition is true, with those beside it of which nobody can tell.

    Attributes:
        right: told within a spell.
        wrong: told at a step at which the condition is false.
        spells: that there were.
        found: spells that were told, within them or one step after.
        delays: steps from the first at which it is true for sure until it was told, of each spell that was found;
            negative where it was told on the way there.
    """

    right: int = 0
    wrong: int = 0
    spells: int = 0
    found: int = 0
    delays: tuple[int, ...] = field(default=())

    def __add__(self, other: WatchScore) -> WatchScore:
        return WatchScore(
            self.right + other.right,
            self.wrong + other.wrong,
            self.spells + other.spells,
            self.found + other.found,
            self.delays + other.delays,
        )

    @property
    def precision(self) -> float | None:
        """The share of what was told that is right; None where nothing was told."""
        told = self.right + self.wrong
        return self.right / told if told else None

    @property
    def recall(self) -> float | None:
        """The share of spells that were found; None where there were none."""
        return self.found / self.spells if self.spells else None

    @property
    def median_delay(self) -> float | None:
        """In steps; None where no spell was found."""
        return median(self.delays) if self.delays else None


def score_watch(truth: Sequence[bool | None], told: Sequence[int]) -> WatchScore:
    """Scores one condition.

    Args:
        truth: of each step; None where nobody can tell.
        told: steps at which it was told to have become true, in order.
    """
    spells, right = [], 0
    for is_false, steps in groupby(range(len(truth)), key=lambda step: truth[step] is False):
        spell = list(steps)
        if is_false or not any(truth[step] for step in spell):
            continue
        right += sum(step in spell for step in told)
        begin = next(step for step in spell if truth[step])
        spells.append(next((step - begin for step in told if spell[0] <= step <= spell[-1] + 1), None))
    delays = tuple(delay for delay in spells if delay is not None)
    return WatchScore(right, sum(truth[step] is False for step in told), len(spells), len(delays), delays)


def watch_steps(
    model: StreamModel,
    config: StreamConfig,
    steps: Iterable[Sequence[Frame]],
    conditions: Sequence[str],
    *,
    once: bool = False,
) -> list[list[int]]:
    """Watches for conditions while steps are fed to an engine one by one, each looked at before the next one comes.

    Args:
        model: that is asked.
        config: its `watch_share` must not be 0.
        steps: the frames of each, perhaps none.
        conditions: a statement or a question each.
        once: stop when one has become true.

    Returns:
        The steps at which each was told to have become true.

    Raises:
        RuntimeError: the model failed on a condition.
    """
    with StreamEngine(model, config) as engine:
        looks = _Looks(engine, conditions)
        for step, frames in enumerate(steps):
            looks.step = step
            with engine.hold():
                for frame in frames:
                    engine.submit(frame)
            engine.flush(LONGEST_TIMEOUT_S)
            looks.wait()
            if once and any(looks.told):
                break
    return looks.told


class _Looks:
    """What an engine tells of conditions.

    Attributes:
        step: that is being looked at.
        told: the steps at which each condition was told to have become true.
    """

    def __init__(self, engine: StreamEngine, conditions: Sequence[str]) -> None:
        self.step = 0
        self.told: list[list[int]] = [[] for _ in conditions]
        self._engine = engine
        self._latest_ns = [-1] * len(conditions)
        self._looked = threading.Condition()
        for number, condition in enumerate(conditions):
            engine.watches.add(condition, on_event=partial(self._take, number))

    def _take(self, number: int, event: WatchEvent) -> None:
        with self._looked:
            self._latest_ns[number] = event.stamp_ns
            if event.change is Change.BECAME_TRUE:
                self.told[number].append(self.step)
            self._looked.notify_all()

    def wait(self) -> None:
        """Waits until all have been looked at in the newest memory, if there is one."""
        status, counters = self._engine.status, self._engine.watches.counters
        with self._looked:
            # A look that fails notifies nobody.
            while status.version and set(self._latest_ns) != {status.end_ns} and not counters.failed:
                self._looked.wait(LOOK_S)
        if counters.failed:
            raise RuntimeError(f"the model failed on what is watched: {counters.error}")
