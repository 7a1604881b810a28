"""A segment: a run of grid steps that show one scene, and what a model makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fvs_ros.sources.frame import Pose

_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class PoseSpread:
    """How far the camera moved during a segment: root mean square distance from the pose at the keyframe."""

    metres: float
    radians: float


@dataclass(frozen=True)
class Segment:
    """A run of grid steps that show one scene. Its keyframe's JPEG is kept beside it, its features apart.

    Attributes:
        start_ns, end_ns: stamps of its first and last frame.
        weight: grid steps in it.
        keyframe_ns: stamp of the keyframe.
        camera: name of the camera, for instance its topic.
        width, height: of the keyframe in pixels.
        frame_id: the camera's coordinate frame.
        pose: where the camera was at the keyframe; None where that is unknown.
        map_id: names the map in which `pose` holds; poses of two maps are never compared.
        spread: how far the camera moved; None where that is unknown.

    Raises:
        ValueError: the stamps are not in order, a count is below 1, or a number is not finite.
    """

    start_ns: int
    end_ns: int
    weight: int
    keyframe_ns: int
    camera: str
    width: int
    height: int
    frame_id: str = ""
    pose: Pose | None = None
    map_id: str = ""
    spread: PoseSpread | None = None

    def __post_init__(self) -> None:
        if not -_LARGEST <= self.start_ns <= self.keyframe_ns <= self.end_ns <= _LARGEST:
            raise ValueError(
                f"a segment from {self.start_ns} to {self.end_ns} ns with its keyframe at {self.keyframe_ns} ns; "
                "its stamps must be in order and fit 64 bits"
            )
        if min(self.weight, self.width, self.height) < 1 or max(self.weight, self.width, self.height) > _LARGEST:
            raise ValueError(
                f"a segment of {self.weight} grid steps, {self.width} x {self.height} pixels; all must be at least 1"
            )
        numbers = [*self.pose.position, *self.pose.orientation] if self.pose else []
        numbers += [self.spread.metres, self.spread.radians] if self.spread else []
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"the pose {self.pose} with the spread {self.spread}; all numbers must be finite")


@dataclass(frozen=True)
class StoredSegment:
    """A segment as the store gives it.

    Attributes:
        id: unique in the store for ever, ascending; an evicted or forgotten one is not used again.
        episode: number of its episode.
        segment: as it was appended; without the pose where that is of another map than the opener's.
    """

    id: int
    episode: int
    segment: Segment


@dataclass(frozen=True)
class Appended:
    """What an append did.

    Attributes:
        id: of the segment.
        episode: number of the episode that it belongs to.
        evicted: ids of the segments that made room for it.
    """

    id: int
    episode: int
    evicted: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SegmentFeatures:
    """What one model makes of a segment: a cache, made anew where another model opens the store.

    Attributes:
        fingerprint: of the model's weights and preprocessing.
        mean: float16 [H, W, D], mean low-resolution features of its steps.
        keys: float16 of any shape, the keys by which questions find it.

    Raises:
        ValueError: another dtype, another number of dimensions, or a number that is not finite.
    """

    fingerprint: str
    mean: np.ndarray
    keys: np.ndarray

    def __post_init__(self) -> None:
        if self.mean.ndim != 3:
            raise ValueError(f"the mean features have the shape {self.mean.shape}; [H, W, D] is needed")
        for name, array in (("mean features", self.mean), ("keys", self.keys)):
            if array.dtype != np.float16:
                raise ValueError(f"the {name} are {array.dtype}; float16 is needed")
            if not np.isfinite(array).all():
                raise ValueError(f"the {name} hold a number that is not finite")
