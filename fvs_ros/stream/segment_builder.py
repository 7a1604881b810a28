"""From grid steps to segments as the store takes them: cut, with a keyframe, its pose and the mean features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fvs_ros.episodic.segment import PoseSpread, Segment, SegmentFeatures
from fvs_ros.episodic.segmenter import Cut, Segmenter
from fvs_ros.memory.geometry import MERGE, POOL
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.sources.frame import Pose
from fvs_ros.stream.origins import StepOrigin
from fvs_ros.stream.pictures import at_model_size, encode_jpeg, sharpness

NO_KEYS = np.zeros(0, np.float16)
"""Retrieval keys of a segment where none are made."""
KeysOf = Callable[[Tensor, PatchGrid], np.ndarray]
"""Makes retrieval keys, float16, of a segment's features [P / 4, D] and the grid of its frames."""

_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True, eq=False)
class RecordedStep:
    """A complete grid step on its way to the recorder.

    Attributes:
        grid: patches of its frames.
        low: [P / 4, D] on the host, of the model's dtype; on CUDA still being copied until `ready`.
        start_ns, end_ns: stamps of its two frames.
        image: the last frame, RGB, uint8 [height, width, 3] of any size.
        origin: of that frame.
        ready: recorded on CUDA once `low` is there.
    """

    grid: PatchGrid
    low: Tensor
    start_ns: int
    end_ns: int
    image: np.ndarray
    origin: StepOrigin
    ready: torch.cuda.Event | None = None


@dataclass(frozen=True)
class SeenStep:
    """What is kept of each step since the last cut: the stamps of its two frames, and the origin of the last."""

    start_ns: int
    end_ns: int
    origin: StepOrigin


@dataclass(frozen=True, eq=False)
class OpenPicture:
    """A picture of a step that is in no segment yet.

    Attributes:
        step: it shows the last frame of this one.
        image: RGB, uint8 [height, width, 3], at the model's size.
    """

    step: SeenStep
    image: np.ndarray


@dataclass(frozen=True, eq=False)
class OpenScene:
    """What is in no segment yet, and what it looks like.

    Attributes:
        start_ns, end_ns: stamps of its first and its last frame.
        pictures: in order of time, the newest step's at the end; at least that one.
    """

    start_ns: int
    end_ns: int
    pictures: tuple[OpenPicture, ...]


@dataclass(frozen=True, eq=False)
class BuiltSegment:
    """A segment that has ended, ready to be stored."""

    segment: Segment
    keyframe: bytes
    features: SegmentFeatures


def no_keys(low: Tensor, grid: PatchGrid) -> np.ndarray:
    """Of a model that recalls nothing."""
    return NO_KEYS


class SegmentBuilder:
    """Cuts a stream of grid steps, in constant memory but for about 100 bytes a step of the open segment.

    Args:
        camera, map_id: of the segments.
        fingerprint: of the model that made the features.
        keys_of: makes the keys by which questions find a segment, from its features [P / 4, D] and their grid.
    """

    def __init__(
        self,
        camera: str,
        map_id: str,
        fingerprint: str,
        keys_of: KeysOf = no_keys,
    ) -> None:
        self._camera = camera
        self._map_id = map_id
        self._fingerprint = fingerprint
        self._keys_of = keys_of
        self._segmenter = Segmenter()
        self._taken = 0
        self._grid: PatchGrid | None = None
        # Pictures at the model's size of the newest step and of those that can become a keyframe, by their index.
        self._pictures: dict[int, np.ndarray] = {}
        # In their order.
        self._seen: list[SeenStep] = []

    @property
    def open_steps(self) -> int:
        """Steps that are in no segment yet."""
        return len(self._seen)

    @property
    def open_scene(self) -> OpenScene | None:
        """What is in no segment yet; None where nothing is."""
        if not self._seen:
            return None
        first = self._taken - len(self._seen)
        pictures = tuple(
            OpenPicture(self._seen[index - first], self._pictures[index]) for index in sorted(self._pictures)
        )
        return OpenScene(self._seen[0].start_ns, self._seen[-1].end_ns, pictures)

    def append(self, step: RecordedStep) -> list[BuiltSegment]:
        """Takes a step; returns the segments that have turned out to be over.

        A step that does not go on from the last one, in time or in size, ends what is open.

        Raises:
            ValueError: its features are not finite. It is left out.
        """
        if step.ready is not None:
            step.ready.synchronize()
        over = []
        if self._seen and (step.start_ns < self._seen[-1].end_ns or step.grid != self._grid):
            over = self.close()
        self._grid = step.grid
        picture = at_model_size(step.image, step.grid)
        cut = self._segmenter.append(step.low, step.start_ns, step.end_ns, sharpness(picture))
        self._pictures[self._taken] = picture
        self._taken += 1
        self._seen.append(SeenStep(step.start_ns, step.end_ns, step.origin))
        if cut is not None:
            over.append(self._build(cut))
        keep = {*self._segmenter.candidates, self._taken - 1}
        self._pictures = {index: kept for index, kept in self._pictures.items() if index in keep}
        return over

    def close(self) -> list[BuiltSegment]:
        """Ends the open segment; what follows may have any stamps and another size."""
        over = [self._build(cut) for cut in self._segmenter.close()]
        self._pictures.clear()
        self._seen.clear()
        return over

    def _build(self, cut: Cut) -> BuiltSegment:
        """A segment out of its steps, which are then dropped."""
        assert self._grid is not None
        own = [seen.origin for seen in self._seen if seen.end_ns <= cut.end_ns]
        keyframe = next(seen.origin for seen in self._seen if seen.end_ns >= cut.keyframe_ns)
        self._seen = self._seen[len(own) :]
        picture = self._pictures[cut.keyframe]
        segment = Segment(
            start_ns=cut.start_ns,
            end_ns=cut.end_ns,
            weight=cut.steps,
            keyframe_ns=cut.keyframe_ns,
            camera=self._camera,
            width=picture.shape[1],
            height=picture.shape[0],
            frame_id=keyframe.frame_id,
            pose=keyframe.pose,
            map_id=self._map_id,
            spread=pose_spread(keyframe.pose, [origin.pose for origin in own]),
        )
        return BuiltSegment(
            segment,
            encode_jpeg(picture),
            SegmentFeatures(
                self._fingerprint, rows_and_columns(cut.mean, self._grid), self._keys_of(cut.mean, self._grid)
            ),
        )


def pose_spread(keyframe: Pose | None, poses: Iterable[Pose | None]) -> PoseSpread | None:
    """How far these poses are from the keyframe's: root mean square distance, and angle by its sine's half.

    Poses in another frame do not count. None where the keyframe's is unknown.
    """
    if keyframe is None:
        return None
    known = [pose for pose in poses if pose is not None and pose.frame_id == keyframe.frame_id]
    if not known:
        return None
    offsets = np.array([pose.position for pose in known]) - np.array(keyframe.position)
    # The cosine of half the angle between two unit quaternions is their product.
    cosines = np.array([pose.orientation for pose in known]) @ np.array(keyframe.orientation)
    angles = 2 * np.arccos(np.clip(np.abs(cosines), 0, 1))
    return PoseSpread(
        metres=math.sqrt(float(np.square(offsets).sum(1).mean())), radians=math.sqrt(float(np.square(angles).mean()))
    )


def rows_and_columns(low: Tensor, grid: PatchGrid) -> np.ndarray:
    """Low-resolution features [P / 4, D], in merge-block order, as float16 [H, W, D]."""
    height, width = rows_and_columns_of(grid)
    ordered = low.reshape(height // MERGE, width // MERGE, MERGE, MERGE, -1).transpose(1, 2)
    bounded = ordered.clamp(-_LARGEST_FLOAT16, _LARGEST_FLOAT16).to(torch.float16)
    return bounded.reshape(height, width, -1).cpu().numpy()


def rows_and_columns_of(grid: PatchGrid) -> tuple[int, int]:
    """H and W of `rows_and_columns`."""
    block = POOL * MERGE
    return grid.height // block * MERGE, grid.width // block * MERGE


def merge_blocks(mean: np.ndarray) -> Tensor:
    """The inverse of `rows_and_columns`: float16 [P / 4, D] of features [H, W, D]."""
    height, width, dim = mean.shape
    blocks = torch.from_numpy(mean.copy()).reshape(height // MERGE, MERGE, width // MERGE, MERGE, dim)
    return blocks.transpose(1, 2).reshape(height * width, dim)
