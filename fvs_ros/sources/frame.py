"""A camera frame and where it was taken: what every source gives and the engine takes. No ROS, no tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from fvs_ros.errors import ReadableError

if TYPE_CHECKING:
    import numpy as np

SECOND_NS = 1_000_000_000
"""Nanoseconds a second: stamps and spans are whole nanoseconds everywhere."""


class ImageError(ReadableError, ValueError):
    """An image that cannot be decoded.

    Attributes:
        reason: a short snake_case word to count it by, for instance ``"unknown_encoding"``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Pose:
    """Where the camera was: metres and a unit quaternion, in `frame_id` (REP-103)."""

    frame_id: str
    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float]  # x, y, z, w


@dataclass(frozen=True)
class Area:
    """Within `radius_m` metres of a point of the ground, in `frame_id`, whatever the height."""

    frame_id: str
    x: float
    y: float
    radius_m: float

    def distance_m(self, pose: Pose | None) -> float:
        """Horizontal distance of a pose from the point, in metres; infinite where it is unknown or in another frame."""
        if pose is None or pose.frame_id != self.frame_id:
            return math.inf
        return math.hypot(pose.position[0] - self.x, pose.position[1] - self.y)

    def holds(self, pose: Pose | None) -> bool:
        """Whether a pose lies in it."""
        return self.distance_m(pose) <= self.radius_m


@dataclass(frozen=True)
class Frame:
    """One camera frame, not decoded yet, so that a frame that is not kept costs nothing.

    Attributes:
        stamp_ns: capture time, nanoseconds, from the image's header.
        image: decodes to RGB, uint8 [height, width, 3]; called on the ingest thread, and again on others to show it.
            Raises ImageError.
        frame_id: the camera's coordinate frame.
        pose: looks up the camera's pose at `stamp_ns`; called on the ingest thread after `image`,
            None where it is unknown.
        received_ns: when it arrived, or was recorded, nanoseconds on any steady clock; None for a frame whose stamp
            needs no second opinion, as in a video.
        held_bytes: what the frame holds while it waits to be decoded; 0 where that is little.
    """

    stamp_ns: int
    image: Callable[[], np.ndarray]
    frame_id: str = ""
    pose: Callable[[], Pose | None] = lambda: None
    received_ns: int | None = None
    held_bytes: int = 0


def refused(stamp_ns: int, error: ImageError, received_ns: int) -> Frame:
    """A frame in the place of an image that must not be kept: decoding it raises `error`, so that it is counted."""

    def image() -> NoReturn:
        raise error

    return Frame(stamp_ns, image, received_ns=received_ns)
