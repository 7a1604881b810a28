"""How long ago and how far away something was, in words that people use. They stand on screens and on maps."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fvs_ros.sources.frame import Pose
from fvs_ros.stream.types import Moment


def age_text(seconds: float) -> str:
    """How long ago something was, in words."""
    if seconds < 2:
        return "now"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def newest_pose(moments: Iterable[Moment]) -> Pose | None:
    """Where the camera is: its pose at the newest of these moments that has one."""
    placed = [moment for moment in moments if moment.pose is not None]
    return max(placed, key=lambda moment: moment.stamp_ns).pose if placed else None


def distance_text(pose: Pose | None, here: Pose | None) -> str:
    """How far away something was seen from, in words; empty where it is unknown or the two are in different frames.

    Args:
        pose: where it was seen from.
        here: where the robot is.
    """
    if pose is None or here is None or pose.frame_id != here.frame_id:
        return ""
    metres = math.dist(pose.position, here.position)
    return "from here" if metres < 0.1 else f"{metres:.1f} m from here" if metres < 100 else f"{metres:.0f} m from here"
