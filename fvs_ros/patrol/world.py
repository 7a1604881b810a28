"""What a patrol passes: rooms, objects, the order of visits, and what changes between them. Pure numbers from a seed.

Random numbers come from NumPy's PCG64 through `generator`, one independent stream per purpose, so that the same
seed and settings give the same world on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

import numpy as np

from fvs_ros.patrol.config import PatrolConfig
from fvs_ros.patrol.errors import PatrolError
from fvs_ros.patrol.layout import Room, make_rooms
from fvs_ros.patrol.vocabulary import COLOURS, KINDS

Option = TypeVar("Option")

PLACES = 2
"""Objects that a view can hold."""


class Stream(IntEnum):
    """Purposes that draw random numbers; each has its own stream so that one does not shift another."""

    LAYOUT = 0
    OBJECTS = 1
    TOUR = 2
    MOTION = 3
    LIGHT = 4
    SENSOR = 5
    QUESTIONS = 6
    CLOCK = 7


def generator(seed: int, stream: Stream, *index: int) -> np.random.Generator:
    """The random numbers of one purpose in one episode, and of one `index` (a frame, a stamp) within it."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, int(stream), *index])))


@dataclass(frozen=True)
class SceneObject:
    """One object. No two of an episode share both kind and colour, so `name` is unique.

    Attributes:
        scale: size as a factor of `shapes.PARTS`.
        yaw: rotation about the vertical, radians.
    """

    kind: str
    colour: str
    scale: float
    yaw: float

    @property
    def name(self) -> str:
        """Colour and kind, as questions call it."""
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True, order=True)
class Placement:
    """Where an object stands: indices of the room, of its view and of the place there."""

    room: int
    view: int
    place: int


@dataclass(frozen=True)
class Visit:
    """One visit of the robot to a room.

    Attributes:
        room: index of the room.
        views: its views in the order in which they are inspected.
        dwell_s: seconds at each of them.
        placements: where each object stands during the visit, by its index; some are not there yet, or any more.
        rest_s: seconds that the robot rests at the last of the views after that.
    """

    room: int
    views: tuple[int, ...]
    dwell_s: tuple[int, ...]
    placements: Mapping[int, Placement]
    rest_s: int = 0


@dataclass(frozen=True)
class World:
    """Everything about an episode that does not depend on how the robot moves.

    Attributes:
        visits: in order; more than the episode has time for.
    """

    seed: int
    config: PatrolConfig
    rooms: tuple[Room, ...]
    objects: tuple[SceneObject, ...]
    visits: tuple[Visit, ...]


def make_world(seed: int, config: PatrolConfig) -> World:
    """Lays out the rooms and what happens in them.

    Raises:
        PatrolError: for a negative seed.
    """
    if seed < 0:
        raise PatrolError(f"the seed is {seed}; it must be 0 or above")
    rooms = make_rooms(seed, config, generator(seed, Stream.LAYOUT))
    stock = _Stock(config, generator(seed, Stream.OBJECTS))
    visits = _plan_visits(config, stock, generator(seed, Stream.TOUR))
    return World(seed, config, rooms, tuple(stock.objects), tuple(visits))


class _Stock:
    """The objects and where they stand while the visits are planned; guests are objects that stand nowhere.

    Attributes:
        objects: every object so far.
        placements: where each stands now.
    """

    def __init__(self, config: PatrolConfig, random: np.random.Generator) -> None:
        self._config = config
        self._random = random
        names = [(kind, colour) for kind in KINDS for colour in COLOURS]
        drawn = [names[index] for index in random.permutation(len(names))[: config.names]]
        residents = len(drawn) // 2 if config.guests else len(drawn)
        # The next one to be used stands last, for residents as for guests.
        self._names, self._guest_names = drawn[:residents][::-1], drawn[residents:][::-1]
        self._gone: list[int] = []
        self._guests: list[int] = []
        self.objects: list[SceneObject] = []
        self.placements: dict[int, Placement] = {}
        for room in range(config.rooms):
            for view in range(config.views):
                draw = random.random()
                count = 0 if draw < config.empty else 2 if draw >= 1.0 - config.pairs else 1
                for place in random.permutation(PLACES)[:count]:
                    if self._names:
                        self._add(Placement(room, view, int(place)))

    def _add(self, placement: Placement) -> None:
        """Something new, or, by the chance of the settings, something that was taken away."""
        if self._gone and (not self._names or self._random.random() < self._config.returns):
            self.placements[self._gone.pop(int(self._random.integers(len(self._gone))))] = placement
        else:
            self.placements[self._make(self._names)] = placement

    def _make(self, names: list[tuple[str, str]]) -> int:
        """The index of a new object of the next of these names."""
        kind, colour = names.pop()
        scale, yaw = self._random.uniform(0.92, 1.14), self._random.uniform(-0.6, 0.6)
        self.objects.append(SceneObject(kind, colour, float(scale), float(yaw)))
        return len(self.objects) - 1

    def with_guest(self, room: int) -> dict[int, Placement]:
        """Where everything stands, and a guest in `room` if a place is free there."""
        taken = set(self.placements.values())
        places = (Placement(room, view, place) for view in range(self._config.views) for place in range(PLACES))
        free = [placement for placement in places if placement not in taken]
        if not free or not (self._guest_names or self._guests):
            return dict(self.placements)
        guest = self._make(self._guest_names) if self._guest_names else self._guests.pop(0)
        self._guests.append(guest)
        return {**self.placements, guest: self._one_of(free)}

    def change(self, room: int) -> None:
        """Adds, removes or moves one object so that `room` changes; nothing where none of these can be done."""
        taken = set(self.placements.values())
        free = [
            Placement(other, view, place)
            for other in range(self._config.rooms)
            for view in range(self._config.views)
            for place in range(PLACES)
            if Placement(other, view, place) not in taken
        ]
        here = [object_id for object_id, at in self.placements.items() if at.room == room]
        there = [object_id for object_id, at in self.placements.items() if at.room != room]
        free_here = [placement for placement in free if placement.room == room]
        free_there = [placement for placement in free if placement.room != room]
        shifts = [(one, at) for one in here for at in free_here if at.view != self.placements[one].view]
        kinds = {
            "add": bool(free_here) and bool(self._names or (self._gone and self._config.returns)),
            "remove": bool(here),
            "bring": bool(there and free_here),
            "take away": bool(here and free_there),
            "shift": bool(shifts),
        }
        possible = [kind for kind, can in kinds.items() if can]
        if not possible:
            return
        kind = possible[self._random.integers(len(possible))]
        if kind == "add":
            self._add(self._one_of(free_here))
        elif kind == "remove":
            removed = self._one_of(here)
            del self.placements[removed]
            if self._config.returns:
                self._gone.append(removed)
        elif kind == "bring":
            self.placements[self._one_of(there)] = self._one_of(free_here)
        elif kind == "take away":
            self.placements[self._one_of(here)] = self._one_of(free_there)
        else:
            self.placements.update([self._one_of(shifts)])

    def _one_of(self, options: Sequence[Option]) -> Option:
        return options[int(self._random.integers(len(options)))]


def _plan_visits(config: PatrolConfig, stock: _Stock, random: np.random.Generator) -> list[Visit]:
    shortest_s = config.views * config.dwell_s[0]
    visits: list[Visit] = []
    visited: set[int] = set()
    while len(visits) < math.ceil(config.duration_s / shortest_s):
        rooms = _round(config, visits, random)
        for position, room in enumerate(rooms):
            # Nothing is done on a first visit: there is nothing that the robot could compare with.
            if room in visited and random.random() < config.changes:
                stock.change(room)
            visited.add(room)
            views = list(range(config.views))
            if random.random() < 0.5:
                views.reverse()
            dwell = random.integers(config.dwell_s[0], config.dwell_s[1] + 1, len(views))
            rests = config.rest_s[1] > 0 and position == len(rooms) - 1
            rest_s = int(random.integers(config.rest_s[0], config.rest_s[1] + 1)) if rests else 0
            # Where the robot rests, a guest would be in view for minutes.
            guest = config.guests > 0.0 and not rests and random.random() < config.guests
            placements = stock.with_guest(room) if guest else dict(stock.placements)
            visits.append(Visit(room, tuple(views), tuple(dwell.tolist()), placements, rest_s))
    return visits


def _round(config: PatrolConfig, visits: list[Visit], random: np.random.Generator) -> list[int]:
    """The rooms of one round in a new order; each is passed by now and then, but not in the first round."""
    rooms: list[int] = random.permutation(config.rooms).tolist()
    if visits and config.rooms > 1:
        kept = [room for room in rooms if random.random() >= config.skips]
        rooms = kept or rooms[:1]
        if rooms[0] == visits[-1].room:
            rooms = [*rooms[1:], rooms[0]] if len(rooms) > 1 else [(rooms[0] + 1) % config.rooms]
    return rooms
