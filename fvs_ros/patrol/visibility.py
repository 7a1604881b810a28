"""Which pixels show which object to a camera: outlines, nearest first, on the 56 x 56 grid of the low resolution.

Geometry alone, so that questions do not depend on a renderer. A test compares it with MuJoCo's own segmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fvs_ros.patrol.shapes import outline_points, rotation_z
from fvs_ros.patrol.world import SceneObject

GRID = 56
"""Pixels along each side of the picture that the memory's low resolution sees."""
FIELD_OF_VIEW = np.deg2rad(60.0)
"""Of the camera, vertical and (the picture being square) horizontal."""
CAMERA_FORWARD_M = 0.15
CAMERA_HEIGHT_M = 0.85
CAMERA_PITCH = np.deg2rad(8.0)
"""How far the camera looks down."""

SEEN_PX = 36
"""An object counts as in view from this number of the 56 x 56 pixels on: about 6 by 6, the smallest reliably named."""
FAINT_PX = 4
"""Up to this number of pixels it counts as not in view; in between, no question is asked about it."""

_NEAR_M = 0.05
# Farther than this to the side of the field of view, an object's foot has nothing of it inside: none reaches as wide.
_REACH_M = 1.5
_COS_HALF, _SIN_HALF = np.cos(FIELD_OF_VIEW / 2), np.sin(FIELD_OF_VIEW / 2)


@dataclass(frozen=True)
class CameraPose:
    """A camera in the world.

    Attributes:
        position: metres, float64 [3].
        rotation: columns are the camera's axes in the world, x right, y down, z ahead (REP 103's optical frame),
            float64 [3, 3].
    """

    position: np.ndarray
    rotation: np.ndarray


def camera_in_base() -> CameraPose:
    """The camera's optical frame in `base_link`."""
    c, s = np.cos(CAMERA_PITCH), np.sin(CAMERA_PITCH)
    right, ahead = np.array([0.0, -1.0, 0.0]), np.array([c, 0.0, -s])
    down = np.cross(ahead, right)
    return CameraPose(np.array([CAMERA_FORWARD_M, 0.0, CAMERA_HEIGHT_M]), np.stack([right, down, ahead], axis=1))


def camera_pose(x: float, y: float, yaw: float) -> CameraPose:
    """The camera's optical frame in the world for a robot at x, y that looks along `yaw`."""
    mounted, turn = camera_in_base(), rotation_z(yaw)
    return CameraPose(np.array([x, y, 0.0]) + turn @ mounted.position, turn @ mounted.rotation)


Standing = Sequence[tuple[SceneObject, tuple[float, float], float]]
"""Objects with the x and y at which they stand and their yaw in the world."""


def visible_pixels(camera: CameraPose, standing: Standing, grid: int = GRID) -> np.ndarray:
    """Counts the pixels whose centre shows each object, int64 [len(standing)]; the arguments are those of `owners`."""
    owner = owners(camera, standing, grid)
    return np.bincount(owner[owner >= 0], minlength=len(standing))


def owners(camera: CameraPose, standing: Standing, grid: int = GRID) -> np.ndarray:
    """The object that each pixel's centre shows.

    Args:
        camera: the camera's optical frame.
        standing: what there is to see.
        grid: pixels along each side.

    Returns:
        Indices into `standing`, -1 for none of it, int64 [grid, grid].
    """
    owner = np.full((grid, grid), -1, np.int64)
    depth = np.array([np.hypot(at[0] - camera.position[0], at[1] - camera.position[1]) for _, at, _ in standing])
    # Objects stand apart, so the nearer axis hides the farther object.
    for index in np.argsort(-depth, kind="stable"):
        scene_object, at, yaw = standing[index]
        turn = rotation_z(yaw) * scene_object.scale
        offset = np.array([at[0], at[1], 0.0]) - camera.position
        right, _, ahead = offset @ camera.rotation
        if abs(right) * _COS_HALF - ahead * _SIN_HALF > _REACH_M:
            continue
        for points in outline_points(scene_object.kind):
            seen = (points @ turn.T + offset) @ camera.rotation
            _fill(owner, seen, int(index))
    return owner


def _fill(owner: np.ndarray, points: np.ndarray, value: int) -> None:
    """Writes `value` on every pixel whose centre lies in the outline of `points` (camera frame, [N, 3])."""
    # What reaches behind the camera is no closer than the robot's own body; nothing stands there.
    if points[:, 2].min() < _NEAR_M:
        return
    grid = len(owner)
    focal = grid / 2 / np.tan(FIELD_OF_VIEW / 2)
    pixels = points[:, :2] / points[:, 2:] * focal + grid / 2
    low = np.clip(np.floor(pixels.min(axis=0)).astype(int), 0, grid)
    high = np.clip(np.ceil(pixels.max(axis=0)).astype(int), 0, grid)
    if (low >= high).any():
        return
    hull = cv2.convexHull(pixels.astype(np.float32))[:, 0].astype(np.float64)
    edge = np.roll(hull, -1, axis=0) - hull
    columns, rows = np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5
    # cross(edge, centre - corner) has one sign for every edge of an outline around the centre.
    cross = edge[:, 0, None, None] * (rows[None, :, None] - hull[:, 1, None, None]) - edge[:, 1, None, None] * (
        columns[None, None, :] - hull[:, 0, None, None]
    )
    inside = (cross >= 0).all(axis=0) | (cross <= 0).all(axis=0)
    owner[low[1] : high[1], low[0] : high[0]][inside] = value
