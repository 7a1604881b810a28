"""The settings of a patrol, validated in one place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fvs_ros.patrol.errors import PatrolError
from fvs_ros.patrol.vocabulary import COLOURS, KINDS

TEST_SEED = 900_000
"""Seeds from here up are reserved for tests: never for training, never for tuning."""

STEP_S = 2
"""Seconds of one grid step: two frames at 1 frame per second, as the model is trained."""

LONGEST_STEPS = 43_200
"""Of an episode: 24 hours."""

FRAME_SIZE = 112
"""Pixels along each side of the frames that the shipped model is trained and evaluated on."""


class Wording(Enum):
    """Whose words questions are in."""

    ORIGINAL = "original"
    """The few phrasings that stand beside each template, as written."""
    TRAINED = "trained"
    """Constructions that training may see, and the original phrasings among them."""
    HELD_OUT = "held-out"
    """Constructions that no training sees."""


@dataclass(frozen=True)
class PatrolConfig:
    """How large, long and hard an episode is.

    The defaults fit a memory of 60 clusters and 30 key steps: 5 rooms of 3 views are 15 pictures to keep, and in 600
    steps changes add about as many again.
    A curriculum starts at `steps=2, drive=False, dwell_s=(2, 2)`, where every grid step shows another view.

    Attributes:
        steps: length in grid steps of 2 s, from 1 to `LONGEST_STEPS`.
        frame_rate: frames per second of the camera; 1 is what the model keeps.
        rooms: named rooms, from 1 to 8, along one corridor.
        views: inspection points per room, from 1 to 4.
        empty: share of views without an object at the start, 0 to 1.
        pairs: share of views with two objects instead of one at the start, 0 to 1.
        changes: chance that something is added, removed or moved in a room before it is visited again, 0 to 1.
        skips: chance that a later round passes a room by, so that what it holds grows old, 0 to below 1.
        dwell_s: shortest and longest stay at a view, whole seconds.
        drive: whether the robot drives between views; False cuts from view to view.
        noise: strength of pose jitter, lighting drift, exposure and sensor noise; 0 for none, 1 for a usual camera.
        clock: whether there is a time of day: it follows from the stamps in UTC, light follows it, and questions speak
            of it.
        names: how many names objects can have in the whole episode, from 1 to all 80. A name is one object: what has
            been taken away may come back, and there are never two of a name.
        returns: chance that what is added is something that was taken away before, 0 to 1.
        guests: chance that something is in a room during one visit and during none before or after, 0 to 1. Half of
            the names are for guests; once all of them have been, the one longest gone comes again.
        rest_s: shortest and longest rest at the last view of a round, whole seconds, from 0.

    Raises:
        PatrolError: for a value outside its range.
    """

    steps: int = 300
    frame_rate: int = 1
    rooms: int = 5
    views: int = 3
    empty: float = 0.15
    pairs: float = 0.35
    changes: float = 0.5
    skips: float = 0.25
    dwell_s: tuple[int, int] = (7, 15)
    drive: bool = True
    noise: float = 1.0
    clock: bool = False
    names: int = len(KINDS) * len(COLOURS)
    returns: float = 0.0
    guests: float = 0.0
    rest_s: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        _check("steps", self.steps, 1, LONGEST_STEPS)
        _check("frame_rate", self.frame_rate, 1, 60)
        _check("rooms", self.rooms, 1, 8)
        _check("views", self.views, 1, 4)
        _check("empty", self.empty, 0.0, 1.0)
        _check("pairs", self.pairs, 0.0, 1.0)
        _check("changes", self.changes, 0.0, 1.0)
        _check("skips", self.skips, 0.0, 0.9)
        _check("noise", self.noise, 0.0, 3.0)
        if self.empty + self.pairs > 1.0:
            raise PatrolError(f"empty and pairs are shares of the same views, {self.empty} + {self.pairs} is above 1")
        shortest, longest = self.dwell_s
        _check("dwell_s[0]", shortest, 1, longest)
        _check("dwell_s[1]", longest, shortest, 600)
        _check("names", self.names, 1, len(KINDS) * len(COLOURS))
        _check("returns", self.returns, 0.0, 1.0)
        _check("guests", self.guests, 0.0, 1.0)
        _check("rest_s[0]", self.rest_s[0], 0, self.rest_s[1])
        _check("rest_s[1]", self.rest_s[1], self.rest_s[0], 3600)

    @property
    def duration_s(self) -> int:
        """Length of the episode in seconds."""
        return self.steps * STEP_S

    @property
    def frames(self) -> int:
        """How many frames the camera takes."""
        return self.duration_s * self.frame_rate


def day_config(steps: int) -> PatrolConfig:
    """The settings of a patrol with a clock, for lengths of minutes to a day.

    About half of the time the robot rests. Some 40 visits an hour see about 20 changes. Guests are as many as there
    are names for, at most one in four visits, so that at every length most of them come just once.

    Args:
        steps: length in grid steps.
    """
    hours = steps * STEP_S / 3600
    guests = 0.8 / max(hours, 3.2)
    return PatrolConfig(steps=steps, clock=True, names=72, returns=0.5, guests=guests, rest_s=(60, 300))


def _check(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        raise PatrolError(f"{name} is {value}; it must be from {lowest} to {highest}")
