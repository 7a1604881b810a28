"""What each cell of a patrol's frames shows, in words: the ground truth for training a vision tower.

Shapes: n frames, C x C cells of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fvs_ros.patrol.episode import Episode
from fvs_ros.patrol.templates import NOTHING
from fvs_ros.patrol.visibility import GRID
from fvs_ros.patrol.vocabulary import COLOURS, CORRIDOR, KINDS, ROOMS

GROUPS: tuple[tuple[str, ...], ...] = ((*KINDS, NOTHING), (*COLOURS, NOTHING), (*ROOMS, CORRIDOR))
"""The words to choose from: the kind and the colour of what a cell shows, and the room."""

_SMALLEST_SHARE = 0.03
"""Share of a cell's pixels that an object must cover to be what the cell shows."""


def cell_labels(episode: Episode, frames: Sequence[int], cells: int) -> np.ndarray:
    """Indices into each of `GROUPS` for each cell of some frames, row by row, int64 [n, C * C, 3].

    Args:
        episode: what the frames are of.
        frames: their indices.
        cells: C, which divides 56.
    """
    words = [{word: index for index, word in enumerate(group)} for group in GROUPS]
    named = [(words[0][scene_object.kind], words[1][scene_object.colour]) for scene_object in episode.objects]
    table = np.array([*named, (words[0][NOTHING], words[1][NOTHING])])
    rooms = np.array([words[2][episode.room_name(frame)] for frame in frames])
    objects = cell_objects(episode, frames, cells)
    return np.concatenate([table[objects], np.broadcast_to(rooms[:, None, None], (*objects.shape, 1))], axis=2)


def cell_objects(episode: Episode, frames: Sequence[int], cells: int) -> np.ndarray:
    """Index of the object that each cell of some frames shows, row by row, -1 for none, int64 [n, C * C]."""
    size = GRID // cells
    objects = np.empty((len(frames), cells * cells), np.int64)
    for number, frame in enumerate(frames):
        blocks = episode.owners(frame).reshape(cells, size, cells, size).swapaxes(1, 2).reshape(cells * cells, -1)
        objects[number] = [_most_seen(block) for block in blocks]
    return objects


def _most_seen(block: np.ndarray) -> int:
    """The object with the most pixels, -1 if none has enough of them."""
    shown = block[block >= 0]
    if not len(shown):
        return -1
    counts = np.bincount(shown)
    best = int(counts.argmax())
    return best if counts[best] >= _SMALLEST_SHARE * len(block) else -1
