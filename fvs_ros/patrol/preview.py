"""A contact sheet of an episode: frames with time, room and the objects in view."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from fvs_ros.patrol.episode import Episode
from fvs_ros.patrol.errors import PatrolError
from fvs_ros.patrol.visibility import SEEN_PX

TILES = 40
_COLUMNS = 8
_TILE_PX = 168
_LINE_PX = 13


def chosen_frames(episode: Episode, tiles: int = TILES) -> list[int]:
    """Frames spread evenly over the episode."""
    return np.unique(np.linspace(0, len(episode) - 1, tiles).round().astype(int)).tolist()


def write_preview(path: Path, episode: Episode, indices: Sequence[int], frames: Sequence[np.ndarray]) -> None:
    """Writes the contact sheet.

    Args:
        path: a PNG file.
        episode: what is shown.
        indices: which frames.
        frames: the frames of `indices`, uint8 [H, W, 3], RGB.

    Raises:
        PatrolError: if the file cannot be written.
    """
    tiles = [_tile(episode, index, frame) for index, frame in zip(indices, frames, strict=True)]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % _COLUMNS)
    rows = [np.hstack(tiles[start : start + _COLUMNS]) for start in range(0, len(tiles), _COLUMNS)]
    try:
        written = cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])
    except cv2.error as error:
        raise PatrolError(f"cannot write the preview {path}: {error}; its name must end in .png or .jpg") from error
    if not written:
        raise PatrolError(f"cannot write the preview {path}: does its folder exist?")


def _tile(episode: Episode, index: int, frame: np.ndarray) -> np.ndarray:
    picture = cv2.resize(frame, (_TILE_PX, _TILE_PX), interpolation=cv2.INTER_AREA)
    names = [episode.objects[object_id].name for object_id in np.flatnonzero(episode.pixels[index] >= SEEN_PX)]
    seconds = index / episode.config.frame_rate
    lines = [f"{seconds:.0f} s {episode.room_name(index)}", *names[:2]]
    label = np.zeros((3 * _LINE_PX + 4, _TILE_PX, 3), np.uint8)
    for number, line in enumerate(lines):
        at = (3, (number + 1) * _LINE_PX - 2)
        cv2.putText(label, line, at, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([picture, label])
