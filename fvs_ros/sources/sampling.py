"""Which frames stand for a rate: the first of each slot where frames are still to come, the nearest where they lie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from fvs_ros.sources.frame import SECOND_NS, Frame

# A frame may come this fraction of a period before its slot and still be taken for it: a camera that runs at the kept
# rate itself jitters around its period, and would otherwise lose every frame that is a little early.
EARLY = 0.1
# Containers round positions, most of them to milliseconds.
_ROUNDING_NS = 1_000_000


class RatePolicy:
    """Keeps `fps` frames per second of stamp time, without drift: what the node keeps of a camera.

    Stamp time is cut into slots of 1 / fps, counted from the first frame, and the first frame of each slot is kept.
    Since the slots never move, the kept frames are 1 / fps apart on average, however uneven the camera is.

    Args:
        fps: frames to keep per second; 0 keeps all.
    """

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._anchor_ns: int | None = None
        self._slot = -1

    def restart(self) -> None:
        """Forgets the slots; the next frame is kept and anchors them anew."""
        self._anchor_ns = None
        self._slot = -1

    def keep(self, stamp_ns: int) -> bool:
        """Whether the frame of `stamp_ns` is the first of its slot. Stamps must rise from call to call."""
        if self._fps == 0:
            return True
        if self._anchor_ns is None:
            self._anchor_ns = stamp_ns
        slot = math.floor((stamp_ns - self._anchor_ns) * self._fps / SECOND_NS + EARLY)
        if slot <= self._slot:
            return False
        self._slot = slot
        return True


class NearestSampler:
    """Picks the frame nearest to each k / `fps` seconds after the first, up to the last frame.

    The earlier of two equally near frames is picked. A recording slower than `fps` so repeats frames, and the k-th pick
    always stands for the same second.

    Args:
        fps: picks per second, above 0.
    """

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._previous: Frame | None = None
        self._start_ns = 0
        self._picked = 0

    def add(self, frame: Frame) -> Iterator[Frame]:
        """Takes the next frame, in stamp order, and yields the picks for each time that it reaches or passes."""
        if self._previous is None:
            self._start_ns = frame.stamp_ns
        while frame.stamp_ns + _ROUNDING_NS >= (due_ns := self._start_ns + round(self._picked / self._fps * SECOND_NS)):
            earlier = self._previous
            self._picked += 1
            yield earlier if earlier and due_ns - earlier.stamp_ns <= frame.stamp_ns - due_ns else frame
        self._previous = frame


def nearest_frames(frames: Iterable[Frame], fps: float) -> Iterator[Frame]:
    """The picks of a `NearestSampler` from `frames`, which come in stamp order."""
    sampler = NearestSampler(fps)
    for frame in frames:
        yield from sampler.add(frame)
