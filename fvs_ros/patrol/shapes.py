"""What each kind of object is made of: a few convex primitives around an upright axis, in metres.

One table serves the picture (`render`) and the truth about what can be seen (`visibility`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache

import numpy as np

from fvs_ros.patrol.vocabulary import KINDS


class Primitive(Enum):
    """A convex body; `Part.size` means half lengths for BOX, radii for ELLIPSOID.

    CYLINDER, CONE: radius across, the same again, half the height; the cone's tip is up.
    """

    BOX = "box"
    ELLIPSOID = "ellipsoid"
    CYLINDER = "cylinder"
    CONE = "cone"


@dataclass(frozen=True)
class Part:
    """One primitive of an object of unit scale that stands at the origin, z up.

    Attributes:
        centre: x, y, z in metres.
        size: three half extents, see `Primitive`.
        rgb: its own colour, or None for the object's.
        tilt: rotation about x, radians.
    """

    primitive: Primitive
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    rgb: tuple[float, float, float] | None = None
    tilt: float = 0.0


_DARK = (0.13, 0.13, 0.14)
_POT = (0.62, 0.58, 0.52)
_METAL = (0.45, 0.46, 0.48)
_BOX, _ELLIPSOID, _CYLINDER, _CONE = Primitive.BOX, Primitive.ELLIPSOID, Primitive.CYLINDER, Primitive.CONE


def _legs(x: float, y: float, height: float, thickness: float) -> tuple[Part, ...]:
    size = (thickness, thickness, height / 2)
    return tuple(Part(_BOX, (sx * x, sy * y, height / 2), size) for sx in (-1, 1) for sy in (-1, 1))


# Outlines differ even at 56 x 56 pixels, where an object is about 15 pixels high: wide or slim, pointed or round,
# legs or none.
PARTS: dict[str, tuple[Part, ...]] = {
    "box": (Part(_BOX, (0, 0, 0.28), (0.3, 0.3, 0.28)),),
    "ball": (Part(_ELLIPSOID, (0, 0, 0.33), (0.33, 0.33, 0.33)),),
    "cone": (
        Part(_BOX, (0, 0, 0.03), (0.32, 0.32, 0.03), _DARK),
        Part(_CONE, (0, 0, 0.46), (0.27, 0.27, 0.42)),
    ),
    "chair": (
        Part(_BOX, (0, 0, 0.4), (0.26, 0.26, 0.04)),
        Part(_BOX, (0, 0.24, 0.72), (0.26, 0.035, 0.3)),
        *_legs(0.21, 0.21, 0.38, 0.035),
    ),
    "table": (
        Part(_BOX, (0, 0, 0.5), (0.42, 0.3, 0.05)),
        *_legs(0.35, 0.23, 0.46, 0.04),
    ),
    "lamp": (
        Part(_CYLINDER, (0, 0, 0.03), (0.2, 0.2, 0.03), _DARK),
        Part(_CYLINDER, (0, 0, 0.4), (0.035, 0.035, 0.4), _DARK),
        Part(_CONE, (0, 0, 0.95), (0.33, 0.33, 0.25)),
    ),
    "bottle": (
        Part(_CYLINDER, (0, 0, 0.28), (0.2, 0.2, 0.28)),
        Part(_CONE, (0, 0, 0.66), (0.2, 0.2, 0.11)),
        Part(_CYLINDER, (0, 0, 0.74), (0.075, 0.075, 0.2)),
    ),
    "ladder": (
        Part(_BOX, (-0.24, 0, 0.6), (0.045, 0.04, 0.6)),
        Part(_BOX, (0.24, 0, 0.6), (0.045, 0.04, 0.6)),
        *(Part(_BOX, (0, 0, 1.2 * (rung + 0.6) / 4), (0.22, 0.03, 0.035)) for rung in range(4)),
    ),
    "plant": (
        Part(_CYLINDER, (0, 0, 0.16), (0.18, 0.18, 0.16), _POT),
        Part(_ELLIPSOID, (0, 0, 0.62), (0.09, 0.09, 0.36)),
        Part(_ELLIPSOID, (-0.19, 0, 0.55), (0.07, 0.1, 0.3), None, 0.0),
        Part(_ELLIPSOID, (0.19, 0, 0.55), (0.07, 0.1, 0.3), None, 0.0),
        Part(_ELLIPSOID, (0, 0.17, 0.55), (0.1, 0.07, 0.3), None, -0.5),
        Part(_ELLIPSOID, (0, -0.17, 0.5), (0.1, 0.07, 0.26), None, 0.5),
    ),
    "barrel": (
        Part(_CYLINDER, (0, 0, 0.36), (0.28, 0.28, 0.36)),
        Part(_CYLINDER, (0, 0, 0.2), (0.295, 0.295, 0.04), _METAL),
        Part(_CYLINDER, (0, 0, 0.52), (0.295, 0.295, 0.04), _METAL),
    ),
}
assert tuple(PARTS) == KINDS


def rotation_z(angle: float) -> np.ndarray:
    """Rotation about z, float64 [3, 3]."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def rotation_x(angle: float) -> np.ndarray:
    """Rotation about x, float64 [3, 3]."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


@cache
def outline_points(kind: str) -> tuple[np.ndarray, ...]:
    """For each part of `kind`, points in its object's frame whose convex hull is the part, float64 [N, 3].

    Exact for boxes; rounded bodies are drawn with 14 edges by `render` too.
    """
    return tuple(_points(part) for part in PARTS[kind])


def _points(part: Part) -> np.ndarray:
    size = np.array(part.size, np.float64)
    turn = np.arange(14) * (2 * np.pi / 14)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    if part.primitive is Primitive.BOX:
        unit = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    elif part.primitive is Primitive.CYLINDER:
        unit = np.concatenate([np.column_stack([circle, np.full(14, z)]) for z in (-1.0, 1.0)])
    elif part.primitive is Primitive.CONE:
        unit = np.concatenate([np.column_stack([circle, np.full(14, -1.0)]), [[0.0, 0.0, 1.0]]])
    else:
        rings = np.arange(1, 8) * (np.pi / 8)
        unit = np.concatenate([np.column_stack([circle * np.sin(a), np.full(14, np.cos(a))]) for a in rings])
        unit = np.concatenate([unit, [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]])
    return unit * size @ rotation_x(part.tilt).T + np.array(part.centre, np.float64)
