"""Made-up segments for tests of the episode store. Imports no torch, so that processes start fast."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from fvs_ros.episodic.segment import PoseSpread, Segment, SegmentFeatures
from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.sources.frame import SECOND_NS, Pose

LIMIT = 2**20
MODEL = "model-1"


def pose(x: float, frame: str = "map") -> Pose:
    return Pose(frame, (x, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def segment(second: float, *, x: float | None = None, camera: str = "front", map_id: str = "house") -> Segment:
    """Half a second from `second`, at x metres or nowhere."""
    start = round(second * SECOND_NS)
    return Segment(
        start_ns=start,
        end_ns=start + SECOND_NS // 2,
        weight=2,
        keyframe_ns=start + 7,
        camera=camera,
        width=64,
        height=48,
        frame_id="camera_link",
        pose=None if x is None else pose(x),
        map_id=map_id,
        spread=None if x is None else PoseSpread(0.25, 0.5),
    )


def mark(second: int) -> bytes:
    """16 bytes that are in the picture of a second every 16 bytes, and nowhere else."""
    return hashlib.blake2b(str(second).encode(), digest_size=16).digest()


def picture(second: int) -> bytes:
    """Of 1 to 9 kB, by the second alone."""
    return mark(second) * (64 + 37 * second % 500)


def features(look: float, model: str = MODEL) -> SegmentFeatures:
    """Features that point in a direction; two looks differ the more the farther apart, up to 90 degrees."""
    mean = np.zeros((2, 2, 4), np.float16)
    mean[0, 0, 0], mean[1, 1, 3] = np.cos(look), np.sin(look)
    return SegmentFeatures(model, mean, np.full((2, 3), look, np.float16))


def fill(store: EpisodeStore, seconds: range) -> list[int]:
    """Appends a segment a second, and returns their ids."""
    return [store.append(segment(second), picture(second)).id for second in seconds]


def ids(store: EpisodeStore) -> list[int]:
    return [stored.id for stored in store.segments()]


def folder_bytes(folder: Path) -> bytes:
    """Everything in all files of a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
