"""What is certain about an episode up to a frame: sightings of objects, visits to rooms, and what stays doubtful.

An object is *sighted* where at least `SEEN_PX` pixels show it for `STEADY_S` seconds on end within one visit. What
shows fewer pixels, or for a shorter time, but more than `FAINT_PX`, is *doubtful*: no question is asked whose answer
depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fvs_ros.patrol.config import STEP_S
from fvs_ros.patrol.episode import Episode
from fvs_ros.patrol.motion import NOWHERE
from fvs_ros.patrol.visibility import FAINT_PX, SEEN_PX

STEADY_S = STEP_S
"""As long as one grid step, so that at least one frame pair shows it."""

_LENGTHWISE = 0.3
"""Largest sine of the angle to the corridor at which the view is along it."""

NEVER = 2**62
"""A frame index after every episode."""


@dataclass(frozen=True)
class Sighting:
    """An object in view without a break.

    Attributes:
        object_id: index of the object.
        visit, room: indices of the visit and its room.
        start, end: first and last frame.
    """

    object_id: int
    visit: int
    room: int
    start: int
    end: int


@dataclass(frozen=True)
class Stay:
    """The robot in one room.

    Attributes:
        visit, room: indices of the visit and its room.
        start, end: first and last frame in the room.
        complete: whether each of the room's views has been inspected for `STEADY_S`.
        objects: those sighted, in the order of the views inspected, left before right.
        clean: whether no object is doubtful here.
    """

    visit: int
    room: int
    start: int
    end: int
    complete: bool
    objects: tuple[int, ...]
    clean: bool


class EpisodeRecord:
    """Everything that an episode shows, from its first frame to its last. `until` gives what is known by a frame.

    Attributes:
        sightings: by start, then object.
        first_glimpse: first frame in which more than `FAINT_PX` pixels show an object during a visit, or `NEVER`,
            int64 [visits, objects].
        confirmed: the frame from which an object counts as sighted during a visit, or `NEVER`, same shape.
        glimpsed: whether more than `FAINT_PX` pixels show an object, bool [N, objects], a column contiguous.
    """

    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        self.steady = STEADY_S * episode.config.frame_rate
        self.sightings: list[Sighting] = []
        visits, objects = int(episode.visits.max()) + 1, len(episode.objects)
        self.first_glimpse = np.full((visits, objects), NEVER)
        self.confirmed = np.full((visits, objects), NEVER)
        self.glimpsed = np.asfortranarray(episode.pixels > FAINT_PX)
        frames, shown = np.nonzero(self.glimpsed)
        np.minimum.at(self.first_glimpse, (episode.visits[frames], shown), frames)
        for object_id in range(objects):
            for start, end in _runs(episode.pixels[:, object_id] >= SEEN_PX, episode.visits):
                if end - start + 1 >= self.steady:
                    visit, sure = int(episode.visits[start]), start + self.steady - 1
                    self.sightings.append(Sighting(object_id, visit, int(episode.rooms[start]), start, end))
                    self.confirmed[visit, object_id] = min(self.confirmed[visit, object_id], sure)
        self.sightings.sort(key=lambda sighting: (sighting.start, sighting.object_id))
        self._truths: dict[int, EpisodeTruth] = {}

    def until(self, frame: int) -> EpisodeTruth:
        """What is known once frame `frame` has been seen."""
        if frame not in self._truths:
            self._truths[frame] = EpisodeTruth(self, frame)
        return self._truths[frame]


def _runs(mask: np.ndarray, visits: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each stretch of True that lies in one visit."""
    kept = np.flatnonzero(mask)
    if not len(kept):
        return []
    breaks = np.flatnonzero((np.diff(kept) > 1) | (np.diff(visits[kept]) != 0))
    starts, ends = np.r_[kept[0], kept[breaks + 1]], np.r_[kept[breaks], kept[-1]]
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


class EpisodeTruth:
    """What the frames up to `frame`, this one included, show. Made by `EpisodeRecord.until`.

    Attributes:
        episode: the episode.
        frame: index of the newest frame.
        sightings: those that were steady by now, ends cut to `frame`, by start.
        doubtful: objects glimpsed but never sighted so far.
    """

    def __init__(self, record: EpisodeRecord, frame: int) -> None:
        self.episode = record.episode
        self.frame = frame
        self._record = record
        self.sightings = [
            Sighting(s.object_id, s.visit, s.room, s.start, min(s.end, frame))
            for s in record.sightings
            if s.start + record.steady - 1 <= frame
        ]
        self.unsure = (record.first_glimpse <= frame) & (record.confirmed > frame)
        sighted = (record.confirmed <= frame).any(axis=0)
        glimpsed = (record.first_glimpse <= frame).any(axis=0)
        self.doubtful = frozenset(np.flatnonzero(glimpsed & ~sighted).tolist())

    @cached_property
    def seen(self) -> dict[int, list[Sighting]]:
        """The sightings of each object sighted so far, by its first sighting."""
        by_thing: dict[int, list[Sighting]] = {}
        for sighting in self.sightings:
            by_thing.setdefault(sighting.object_id, []).append(sighting)
        return by_thing

    @cached_property
    def stays(self) -> list[Stay]:
        """The robot's stays in rooms, in order; the newest may still go on."""
        episode = self.episode
        rooms, visits = episode.rooms[: self.frame + 1], episode.visits[: self.frame + 1]
        return [self._stay(start, end) for start, end in _runs(rooms != NOWHERE, visits)]

    @cached_property
    def first_stays(self) -> dict[int, Stay]:
        """The first stay in each room visited so far, rooms in the order of their first visit."""
        first: dict[int, Stay] = {}
        for stay in self.stays:
            first.setdefault(stay.room, stay)
        return first

    @cached_property
    def last_stays(self) -> dict[int, Stay]:
        """The last stay in each room visited so far, rooms in the order of their first visit."""
        return {stay.room: stay for stay in self.stays}

    @cached_property
    def _sighted_by_visit(self) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for sighting in self.sightings:
            found.setdefault(sighting.visit, set()).add(sighting.object_id)
        return found

    def _stay(self, start: int, end: int) -> Stay:
        episode = self.episode
        visit, room = int(episode.visits[start]), int(episode.rooms[start])
        plan = episode.world.visits[visit]
        views = episode.views[start : end + 1]
        complete = all(np.count_nonzero(views == view) >= self._record.steady for view in plan.views)
        places = [
            (plan.views.index(plan.placements[object_id].view), plan.placements[object_id].place, object_id)
            for object_id in self._sighted_by_visit.get(visit, ())
        ]
        objects = tuple(object_id for *_, object_id in sorted(places))
        return Stay(visit, room, start, end, complete, objects, not self.unsure[visit].any())

    def first_glimpse(self, object_id: int) -> int:
        """First frame in which more than `FAINT_PX` pixels show the object, `NEVER` if none so far."""
        first = int(self._record.first_glimpse[:, object_id].min())
        return first if first <= self.frame else NEVER

    def last_glimpse(self, object_id: int) -> int:
        """Last frame in which more than `FAINT_PX` pixels show the object, -1 if none so far."""
        shown = np.flatnonzero(self._record.glimpsed[: self.frame + 1, object_id])
        return int(shown[-1]) if len(shown) else -1

    def glimpsed(self, start: int, end: int, room: int | None = None) -> frozenset[int]:
        """Objects of which more than `FAINT_PX` pixels are to be seen.

        Args:
            start: the first frame.
            end: the last one, at most `frame`.
            room: only while the robot is in this one.
        """
        shown = self._record.glimpsed[start : end + 1]
        if room is not None:
            shown = shown[self.episode.rooms[start : end + 1] == room]
        return frozenset(np.flatnonzero(shown.any(axis=0)).tolist())

    @cached_property
    def calm(self) -> bool:
        """Whether the newest grid step shows one unchanging view, or the corridor lengthwise, and nothing doubtful.

        A robot on its way through a room may look at nothing but a door.
        """
        episode, before = self.episode, self.frame - self.episode.config.frame_rate
        if before < 0:
            return False
        rooms, views = episode.rooms[before : self.frame + 1], episode.views[before : self.frame + 1]
        lengthwise = np.abs(np.sin(episode.poses[before : self.frame + 1, 2])) < _LENGTHWISE
        settled = (views != NOWHERE).all() or ((rooms == NOWHERE) & lengthwise).all()
        if not settled or (rooms != rooms[0]).any() or (views != views[0]).any():
            return False
        span = episode.pixels[before : self.frame + 1]
        shown = span >= SEEN_PX
        doubtful = (span > FAINT_PX) & ~shown
        return not doubtful.any() and bool((shown == shown[-1]).all())

    @cached_property
    def in_view(self) -> list[int]:
        """Objects in the newest frame, from left to right."""
        objects = np.flatnonzero(self.episode.pixels[self.frame] >= SEEN_PX).tolist()
        return sorted(objects, key=lambda object_id: (self._across(object_id), object_id))

    def _across(self, object_id: int) -> float:
        camera = self.episode.camera(self.frame)
        (x, y), _ = self.episode.stand(self.frame, object_id)
        right, _, ahead = (np.array([x, y, 0.0]) - camera.position) @ camera.rotation
        return float(right / ahead)

    def name(self, object_id: int) -> str:
        """Colour and kind of an object."""
        return self.episode.objects[object_id].name

    def room(self, room: int) -> str:
        """Name of a room."""
        return self.episode.world.rooms[room].name
