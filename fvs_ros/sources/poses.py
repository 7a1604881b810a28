"""Poses at any time, interpolated between measured ones."""

from __future__ import annotations

import bisect
import math
import threading

from fvs_ros.sources.frame import SECOND_NS, Pose

Quaternion = tuple[float, float, float, float]

# Odometry of 200 Hz for more than the 16 s that a full frame queue may lag behind the camera at 1 fps.
CAPACITY = 4096
# Below this angle (cosine above) a chord is as good as an arc, and the arc's formula divides by almost nothing.
PARALLEL = 0.9995


class PoseBuffer:
    """The newest poses of one moving body, by stamp. Any thread may add and look up.

    Args:
        tolerance_s: a pose is known at a stamp if one was measured within this time of it.
        capacity: most poses kept.
    """

    def __init__(self, tolerance_s: float, capacity: int = CAPACITY) -> None:
        self._tolerance_ns = round(tolerance_s * SECOND_NS)
        self._capacity = capacity
        self._lock = threading.Lock()
        self._stamps_ns: list[int] = []
        self._poses: list[Pose] = []

    def add(self, stamp_ns: int, pose: Pose) -> None:
        """Adds a pose. A stamp that jumps back, as in a looped recording, drops the poses before.

        Raises:
            ValueError: a value is not finite, or the quaternion is zero; the pose is not added.
        """
        pose = Pose(pose.frame_id, pose.position, _normalised(pose.orientation))
        if not all(map(math.isfinite, pose.position)):
            raise ValueError(f"the position is {pose.position}; it must be finite")
        with self._lock:
            if self._stamps_ns and stamp_ns <= self._stamps_ns[-1]:
                if self._stamps_ns[-1] - stamp_ns <= self._tolerance_ns:
                    return
                self._stamps_ns.clear()
                self._poses.clear()
            self._stamps_ns.append(stamp_ns)
            self._poses.append(pose)
            # Half as many again before the front is cut off, so that a cut is rare.
            if len(self._poses) > self._capacity * 3 // 2:
                del self._stamps_ns[: -self._capacity]
                del self._poses[: -self._capacity]

    def at(self, stamp_ns: int) -> Pose | None:
        """The pose at a stamp: interpolated between two within the tolerance, else the only one, else None."""
        with self._lock:
            index = bisect.bisect_left(self._stamps_ns, stamp_ns)
            near = [
                (self._stamps_ns[neighbour], self._poses[neighbour])
                for neighbour in (index - 1, index)
                if 0 <= neighbour < len(self._poses)
                and abs(self._stamps_ns[neighbour] - stamp_ns) <= self._tolerance_ns
            ]
        if len(near) < 2:
            return near[0][1] if near else None
        (before_ns, before), (after_ns, after) = near
        if before.frame_id != after.frame_id:
            return before
        return interpolate(before, after, (stamp_ns - before_ns) / (after_ns - before_ns))


def interpolate(before: Pose, after: Pose, share: float) -> Pose:
    """The pose at the fraction `share`, from 0 to 1, between two poses in one frame with unit quaternions."""
    position = tuple(a + share * (b - a) for a, b in zip(before.position, after.position, strict=True))
    orientation = _slerp(before.orientation, after.orientation, share)
    return Pose(before.frame_id, (position[0], position[1], position[2]), orientation)


def multiplied(first: Quaternion, second: Quaternion) -> Quaternion:
    """The rotation that turns by `second` and then by `first`: their Hamilton product."""
    ax, ay, az, aw = first
    bx, by, bz, bw = second
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def heading(orientation: Quaternion) -> float:
    """Where the x axis of a unit quaternion points on the ground: radians from the x axis, to the left."""
    x, y, z, w = orientation
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def _slerp(before: Quaternion, after: Quaternion, share: float) -> Quaternion:
    """Spherical linear interpolation along the shorter arc (Shoemake 1985)."""
    cosine = sum(a * b for a, b in zip(before, after, strict=True))
    # q and -q are the same rotation; the one nearer to the start is the shorter way.
    sign = 1.0 if cosine >= 0 else -1.0
    cosine = abs(cosine)
    if cosine > PARALLEL:
        first, second = 1.0 - share, share
    else:
        angle = math.acos(cosine)
        first = math.sin((1.0 - share) * angle) / math.sin(angle)
        second = math.sin(share * angle) / math.sin(angle)
    x, y, z, w = (first * a + sign * second * b for a, b in zip(before, after, strict=True))
    return _normalised((x, y, z, w))


def _normalised(quaternion: Quaternion) -> Quaternion:
    length = math.hypot(*quaternion)
    if not (length > 0 and math.isfinite(length)):
        raise ValueError(f"the quaternion is {quaternion}; it must be finite and not zero")
    x, y, z, w = quaternion
    return x / length, y / length, z / length, w / length
