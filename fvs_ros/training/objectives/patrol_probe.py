"""Labels of the memory probe on patrols: what an observer could know at each step, for each cell of the frame.

A question asks for one fact, long after. These labels hold for every part of every step: whether an object is new, what
came before it, how many of its kind there were by then, whether it stood here on the last visit. Whatever depends on a
doubtful sighting has no label.

Shapes: n frames, C x C cells of a frame, G groups of labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fvs_ros.patrol.motion import NOWHERE
from fvs_ros.patrol.templates_story import newcomers
from fvs_ros.patrol.truth import NEVER, EpisodeRecord
from fvs_ros.patrol.vocabulary import COLOURS, KINDS, ROOMS
from fvs_ros.training.objectives.memory_probe import UNKNOWN
from fvs_ros.training.objectives.patrol_cells import cell_objects

MOST = 9
"""Larger counts share this label."""
LAST_RANK = 31
"""So do later ranks."""

PROBE_GROUPS: dict[str, int] = {
    "fresh": 2,
    "known": 2,
    "elsewhere": 2,
    "rank": LAST_RANK + 1,
    "kind_before": len(KINDS),
    "colour_before": len(COLOURS),
    "of_kind": MOST + 1,
    "of_colour": MOST + 1,
    "rooms": len(ROOMS) + 1,
    "room_before": len(ROOMS),
    "here_before": 4,
    "gone_kind": len(KINDS) + 1,
    "gone_colour": len(COLOURS) + 1,
}
"""How many labels each group has.

`fresh`: whether this step is the first that shows the object. `known`: whether it was seen on an earlier visit,
`elsewhere`: whether in another room. `rank`: how many objects had been seen before it was first seen. `kind_before`,
`colour_before`: of the object that came right before it when it was first seen. `of_kind`, `of_colour`: how many
objects of its kind and of its colour were seen by now. `rooms`: how many rooms were visited by now. `room_before`: the
room of the visit before this one. `here_before`: whether there was no visit to this room before (0), or it stood on
that visit in this view (1), in another view of the room (2), or not here (3). `gone_kind`, `gone_colour`: of what stood
in this room on the last visit and no longer does, known once all views were inspected; the last label is for nothing.
"""

PROBE_SETS: dict[str, int] = {"here": len(COLOURS) * len(KINDS), "here_last": len(COLOURS) * len(KINDS)}
"""Sets of objects by name, all colours of the first kind first: seen so far on this visit, and on the previous visit to
this room."""


def probe_labels(record: EpisodeRecord, frames: Sequence[int], cells: int) -> np.ndarray:
    """Labels of each cell of some frames, row by row, int64 [n, C * C, G], `UNKNOWN` where there is none.

    Args:
        record: of the episode.
        frames: their indices.
        cells: C, which divides 56.
    """
    objects = cell_objects(record.episode, frames, cells)
    labels = np.full((*objects.shape, len(PROBE_GROUPS)), UNKNOWN)
    columns = {group: labels[..., column] for column, group in enumerate(PROBE_GROUPS)}
    labeller = _Labeller(record)
    for number, frame in enumerate(frames):
        for group, label in labeller.room_labels(frame).items():
            columns[group][number] = label
        for object_id in np.unique(objects[number][objects[number] >= 0]):
            for group, label in labeller.object_labels(frame, int(object_id)).items():
                columns[group][number, objects[number] == object_id] = label
    return labels


def probe_sets(record: EpisodeRecord, frames: Sequence[int]) -> np.ndarray:
    """Which objects are in each of `PROBE_SETS` at some frames, int64 [n, sum of sizes]: 1, 0 or `UNKNOWN`."""
    labeller = _Labeller(record)
    return np.stack([np.concatenate(labeller.sets(frame)) for frame in frames])


class _Labeller:
    """Labels of single rooms and objects at single frames."""

    def __init__(self, record: EpisodeRecord) -> None:
        self._record = record
        self._episode = episode = record.episode
        self._first = record.confirmed.min(axis=0)
        self._kinds = np.array([KINDS.index(scene_object.kind) for scene_object in episode.objects], np.int64)
        colours = tuple(COLOURS)
        self._colours = np.array([colours.index(scene_object.colour) for scene_object in episode.objects], np.int64)
        story = newcomers(record.until(len(episode) - 1))
        self._before = {
            other.object_id: one.object_id for one, other in pairwise(story) if one is not None and other is not None
        }
        self._visits = sorted(set(episode.visits[episode.rooms != NOWHERE].tolist()))

    def room_labels(self, frame: int) -> dict[str, int]:
        """Labels of all cells by group."""
        episode = self._episode
        if episode.rooms[frame] == NOWHERE:
            return {}
        visit = int(episode.visits[frame])
        until = self._visits[: self._visits.index(visit) + 1]
        labels = {"rooms": len({self._room(number) for number in until}), **self._gone(frame, visit)}
        if len(until) > 1:
            labels["room_before"] = ROOMS.index(episode.world.rooms[self._room(until[-2])].name)
        return labels

    def object_labels(self, frame: int, object_id: int) -> dict[str, int]:
        """Labels of the cells that show an object, by group."""
        confirmed, first = self._record.confirmed, self._first[object_id]
        visit = int(self._episode.visits[frame])
        if confirmed[visit, object_id] > frame:
            return {}
        sightings, seen = self._record.until(frame).seen[object_id], self._first <= frame
        labels = {
            "fresh": int(first > frame - self._record.steady),
            "known": int(first < confirmed[visit, object_id]),
            "elsewhere": int(any(sighting.room != self._room(visit) for sighting in sightings)),
            "rank": min(int(np.count_nonzero(self._first < first)), LAST_RANK),
            "of_kind": min(int(np.count_nonzero(seen & (self._kinds == self._kinds[object_id]))), MOST),
            "of_colour": min(int(np.count_nonzero(seen & (self._colours == self._colours[object_id]))), MOST),
        }
        if object_id in self._before:
            labels["kind_before"] = self._kinds[self._before[object_id]]
            labels["colour_before"] = self._colours[self._before[object_id]]
        last = self._last_visit(visit)
        if last is None:
            labels["here_before"] = 0
        elif confirmed[last, object_id] != NEVER:
            then, now = (self._episode.world.visits[number].placements[object_id] for number in (last, visit))
            labels["here_before"] = 1 if then.view == now.view else 2
        elif self._record.first_glimpse[last, object_id] == NEVER:
            labels["here_before"] = 3
        return labels

    def sets(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Objects seen so far on this visit, and on the last visit to this room."""
        size = PROBE_SETS["here"]
        if self._episode.rooms[frame] == NOWHERE:
            return np.full(size, UNKNOWN), np.full(size, UNKNOWN)
        visit = int(self._episode.visits[frame])
        last = self._last_visit(visit)
        return self._seen_on(visit, frame), np.zeros(size, np.int64) if last is None else self._seen_on(last, frame)

    def _seen_on(self, visit: int, frame: int) -> np.ndarray:
        seen = np.zeros(PROBE_SETS["here"], np.int64)
        names = self._kinds * len(COLOURS) + self._colours
        seen[names[self._record.first_glimpse[visit] <= frame]] = UNKNOWN
        seen[names[self._record.confirmed[visit] <= frame]] = 1
        return seen

    def _room(self, visit: int) -> int:
        return self._episode.world.visits[visit].room

    def _last_visit(self, visit: int) -> int | None:
        same = [number for number in self._visits if number < visit and self._room(number) == self._room(visit)]
        return same[-1] if same else None

    def _gone(self, frame: int, visit: int) -> dict[str, int]:
        last, record, episode = self._last_visit(visit), self._record, self._episode
        # On the last of the visit's views, and long enough there to be sure of it.
        if last is None or episode.views[frame] != episode.world.visits[visit].views[-1]:
            return {}
        since = frame - record.steady + 1
        if since < 0 or (episode.views[since : frame + 1] != episode.views[frame]).any():
            return {}
        unsure = (record.first_glimpse[[last, visit]] != NEVER) & (record.confirmed[[last, visit]] == NEVER)
        gone = np.flatnonzero((record.confirmed[last] != NEVER) & (record.confirmed[visit] > frame))
        if unsure.any() or len(gone) > 1:
            return {}
        if not len(gone):
            return {"gone_kind": len(KINDS), "gone_colour": len(COLOURS)}
        return {"gone_kind": int(self._kinds[gone[0]]), "gone_colour": int(self._colours[gone[0]])}
