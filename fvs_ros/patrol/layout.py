"""Rooms: where they lie, how they look, where the robot stops to look. Pure numbers from a seed.

What tests hold out. Names of rooms, kinds and colours are shared, and so is the style of each room name (hue of the
walls, pattern family of walls and floor). An episode whose seed is at least `config.TEST_SEED` is laid out only from

* order of the rooms along the corridor: odd permutations of `vocabulary.ROOMS`' order (training: even ones);
* textures: the two pattern variants of `TEST_VARIANTS` (training: the four of `TRAINING_VARIANTS`);
* room width and depth: the cells of a 5 x 5 grid of sizes whose two indices add to an odd number (training: even);
* order of the views along the walls: see `_pick_slots`; the chosen places and the shade of the walls come from
  the seed, so they are new as well.

With one room there is no order to hold out; the other three still hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fvs_ros.patrol.config import TEST_SEED, PatrolConfig
from fvs_ros.patrol.vocabulary import ROOMS

TRAINING_VARIANTS = (0, 1, 2, 3)
TEST_VARIANTS = (4, 5)
SIZES_M = (6.4, 6.8, 7.2, 7.6, 8.0)
"""Widths and depths that a room can have, metres."""

COLUMN_M = 8.4
CORRIDOR_M = 2.4
HEIGHT_M = 2.7
VIEW_DISTANCE_M = 2.15
"""From the robot's stop to the objects."""
OBJECT_TO_WALL_M = 0.75

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Style:
    """The look that all rooms of one name share: base colours and pattern families of `textures`."""

    wall: RGB
    wall_pattern: str
    floor: RGB
    floor_pattern: str


# Walls are pale or muted so that the objects' saturated colours stand out; no two rooms share hue and patterns.
STYLES: dict[str, Style] = {
    "kitchen": Style((0.96, 0.88, 0.62), "tiles", (0.9, 0.9, 0.88), "checker"),
    "office": Style((0.66, 0.78, 0.92), "plain", (0.5, 0.52, 0.56), "carpet"),
    "workshop": Style((0.74, 0.45, 0.34), "bricks", (0.62, 0.6, 0.56), "concrete"),
    "library": Style((0.4, 0.56, 0.42), "stripes", (0.72, 0.5, 0.3), "planks"),
    "laboratory": Style((0.72, 0.9, 0.88), "tiles", (0.5, 0.74, 0.76), "tiles"),
    "garage": Style((0.58, 0.58, 0.58), "bricks", (0.32, 0.32, 0.35), "stripes"),
    "canteen": Style((0.9, 0.68, 0.76), "bands", (0.78, 0.46, 0.36), "tiles"),
    "storeroom": Style((0.62, 0.46, 0.32), "planks", (0.26, 0.3, 0.46), "concrete"),
    "corridor": Style((0.86, 0.84, 0.78), "bands", (0.46, 0.2, 0.22), "carpet"),
}


@dataclass(frozen=True)
class View:
    """An inspection point, in its room's frame (origin in the door, x along the door's wall, y into the room).

    Attributes:
        stop: where the robot stands, x and y.
        heading: which way it looks there, radians from x.
        places: where up to two objects can stand, x and y each; left and right as the robot sees them.
        panel: offset along the wall, half width, half height and height above the floor of a panel on the wall.
        panel_rgb: its colour.
    """

    stop: tuple[float, float]
    heading: float
    places: tuple[tuple[float, float], tuple[float, float]]
    panel: tuple[float, float, float, float]
    panel_rgb: RGB


@dataclass(frozen=True)
class Room:
    """One room.

    Attributes:
        origin: its door in the world, x and y in metres.
        yaw: rotation of its frame in the world, 0 or pi.
        width: along the door's wall, metres; the door is in the middle.
        depth: from the door to the far wall.
        wall_rgb, floor_rgb: this room's shade of the style.
        wall_variant, floor_variant: which variant of the pattern.
        light: brightness, 1 is usual.
    """

    name: str
    origin: tuple[float, float]
    yaw: float
    width: float
    depth: float
    wall_rgb: RGB
    floor_rgb: RGB
    wall_variant: int
    floor_variant: int
    light: float
    views: tuple[View, ...]

    def to_world(self, x: float, y: float) -> tuple[float, float]:
        """A point of the room's frame in the world."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return float(self.origin[0] + c * x - s * y), float(self.origin[1] + s * x + c * y)


def is_test_seed(seed: int) -> bool:
    """Whether this seed is reserved for tests."""
    return seed >= TEST_SEED


def is_odd(names: Sequence[str]) -> bool:
    """Whether an order of rooms is an odd permutation of their order in `ROOMS`."""
    ranks = [ROOMS.index(name) for name in names]
    return sum(a > b for index, a in enumerate(ranks) for b in ranks[index + 1 :]) % 2 == 1


def make_rooms(seed: int, config: PatrolConfig, random: np.random.Generator) -> tuple[Room, ...]:
    """The rooms along the corridor, alternately on its two sides."""
    test = is_test_seed(seed)
    names = [ROOMS[index] for index in random.permutation(len(ROOMS))[: config.rooms]]
    if config.rooms > 1 and is_odd(names) != test:
        names[-2:] = names[:-3:-1]
    return tuple(_make_room(name, place, test, config.views, random) for place, name in enumerate(names))


def _make_room(name: str, place: int, test: bool, views: int, random: np.random.Generator) -> Room:
    style = STYLES[name]
    variants = TEST_VARIANTS if test else TRAINING_VARIANTS
    cells = [(a, b) for a in range(len(SIZES_M)) for b in range(len(SIZES_M)) if (a + b) % 2 == int(test)]
    across, along = cells[random.integers(len(cells))]
    width, depth = SIZES_M[across], SIZES_M[along]
    column, side = divmod(place, 2)
    wall_rgb = _shade(style.wall, random)
    return Room(
        name=name,
        origin=(column * COLUMN_M, (CORRIDOR_M / 2) * (1 if side == 0 else -1)),
        yaw=0.0 if side == 0 else float(np.pi),
        width=width,
        depth=depth,
        wall_rgb=wall_rgb,
        floor_rgb=_shade(style.floor, random),
        wall_variant=int(variants[random.integers(len(variants))]),
        floor_variant=int(variants[random.integers(len(variants))]),
        light=float(random.uniform(0.85, 1.1)),
        views=tuple(
            _make_view(wall, offset, width, depth, random) for wall, offset in _pick_slots(views, test, random)
        ),
    )


def _shade(rgb: RGB, random: np.random.Generator) -> RGB:
    values = np.clip(np.array(rgb) * random.uniform(0.9, 1.08) + random.uniform(-0.035, 0.035, 3), 0.03, 1.0)
    return tuple(values.tolist())


# Wall (left, back, right as one enters) and place along it as a share of its length. Clockwise, far enough apart that
# one view does not show another's objects.
_SLOTS = (("left", 0.36), ("left", 0.72), ("back", 0.27), ("back", 0.73), ("right", 0.72), ("right", 0.36))
_CHOICES: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((0,), (1,), (2,), (3,), (4,), (5,)),
    2: ((0, 2), (0, 3), (1, 4), (2, 5), (3, 5), (0, 5)),
    3: ((0, 2, 4), (0, 2, 5), (0, 3, 5), (1, 3, 5), (0, 2, 3), (2, 3, 5)),
    4: ((0, 2, 3, 5), (0, 1, 4, 5), (0, 1, 3, 5), (0, 2, 4, 5)),
}


def _pick_slots(views: int, test: bool, random: np.random.Generator) -> list[tuple[str, float]]:
    """Places of the views along the walls: for tests the last two choices of `_CHOICES`, for training the others."""
    choices = _CHOICES[views][-2:] if test else _CHOICES[views][:-2]
    return [_SLOTS[index] for index in choices[random.integers(len(choices))]]


def _make_view(wall: str, share: float, width: float, depth: float, random: np.random.Generator) -> View:
    share += random.uniform(-0.02, 0.02)
    if wall == "back":
        foot, heading = (width * (share - 0.5), depth), np.pi / 2
    elif wall == "left":
        foot, heading = (-width / 2, depth * share), np.pi
    else:
        foot, heading = (width / 2, depth * share), 0.0
    ahead = np.array([np.cos(heading), np.sin(heading)])
    left = np.array([-np.sin(heading), np.cos(heading)])
    target = np.array(foot) - ahead * OBJECT_TO_WALL_M
    stop = target - ahead * VIEW_DISTANCE_M
    places = [
        target + left * (sign * random.uniform(0.46, 0.52)) + ahead * random.uniform(-0.1, 0.1) for sign in (1, -1)
    ]
    panel_rgb = random.uniform(0.25, 0.85, 3) * 0.7 + 0.15
    panel = (random.uniform(-0.5, 0.5), random.uniform(0.25, 0.55), random.uniform(0.2, 0.4), random.uniform(1.35, 1.6))
    return View(
        stop=tuple(stop.tolist()),
        heading=heading,
        places=(tuple(places[0].tolist()), tuple(places[1].tolist())),
        panel=panel,
        panel_rgb=tuple(panel_rgb.tolist()),
    )
