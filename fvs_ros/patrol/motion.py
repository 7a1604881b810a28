"""How the robot moves on its patrol: stays at views, turns on the spot, drives straight. Sampled at any time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fvs_ros.patrol.config import STEP_S
from fvs_ros.patrol.layout import Room
from fvs_ros.patrol.world import Stream, Visit, World, generator

# Brisk for a robot indoors: a second on the way costs the memory as much as one at a view, and shows nothing that is
# asked about. At 2.5 m/s and 180 degrees/s 38 percent of the steps were on the way.
SPEED_M_S = 3.5
TURN_RATE = np.deg2rad(240.0)
"""Radians per second."""
NOWHERE = -1
"""Room index of the corridor; view index of a robot on its way."""

_DOORSTEP_M = 0.35


@dataclass(frozen=True)
class RouteSegment:
    """A stretch of the way in which the robot stays, turns or drives straight.

    Attributes:
        start_s, end_s: when, seconds from the episode's beginning.
        start, end: x, y (metres, world) and yaw (radians) at these times; in between they change evenly.
        visit: index of the visit, also for the way to its room.
        room: index of the room it lies in, `NOWHERE` in the corridor.
        view: index of the view inspected, `NOWHERE` on the way.
        rest: whether the robot rests there, its motors off.
    """

    start_s: float
    end_s: float
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    visit: int
    room: int
    view: int
    rest: bool = False


class _Route:
    """Collects segments one after the other."""

    def __init__(self) -> None:
        self.segments: list[RouteSegment] = []
        self.time_s = 0.0
        self.pose = (0.0, 0.0, 0.0)

    def stay(self, seconds: float, visit: int, room: int, view: int, rest: bool = False) -> None:
        self._append(self.pose, seconds, visit, room, view, rest)

    def drive(self, x: float, y: float, visit: int, room: int) -> None:
        """Turns towards a point and drives there."""
        ahead = np.array([x - self.pose[0], y - self.pose[1]])
        distance = float(np.hypot(*ahead))
        if distance < 1e-6:
            return
        self.turn(float(np.arctan2(ahead[1], ahead[0])), visit, room)
        self._append((x, y, self.pose[2]), distance / SPEED_M_S, visit, room, NOWHERE)

    def turn(self, yaw: float, visit: int, room: int) -> None:
        """Turns on the spot, the short way round."""
        change = float((yaw - self.pose[2] + np.pi) % (2 * np.pi) - np.pi)
        end = (self.pose[0], self.pose[1], self.pose[2] + change)
        self._append(end, abs(change) / TURN_RATE, visit, room, NOWHERE)

    def _append(
        self, end: tuple[float, float, float], seconds: float, visit: int, room: int, view: int, rest: bool = False
    ) -> None:
        if seconds > 0.0:
            stop_s = self.time_s + seconds
            self.segments.append(RouteSegment(self.time_s, stop_s, self.pose, end, visit, room, view, rest))
            self.time_s = stop_s
        self.pose = end


def plan_route(world: World) -> list[RouteSegment]:
    """The segments of the patrol, without gaps, at least as long as the episode."""
    random = generator(world.seed, Stream.MOTION)
    route = _Route()
    for number, visit in enumerate(world.visits):
        if route.time_s >= world.config.duration_s:
            break
        room = world.rooms[visit.room]
        if number:
            _go_to_room(route, world, number, room)
        _inspect(route, world, number, visit, room, random)
    return route.segments


def _inspect(route: _Route, world: World, number: int, visit: Visit, room: Room, random: np.random.Generator) -> None:
    drive, noise = world.config.drive, world.config.noise
    for position, (view_index, dwell_s) in enumerate(zip(visit.views, visit.dwell_s, strict=True)):
        view = room.views[view_index]
        # Nobody stops twice at quite the same spot: 8 cm aside, 6 cm ahead, 1.2 degrees.
        aside, ahead, turn = random.normal(size=3).clip(-2, 2) * (0.08, 0.06, np.deg2rad(1.2)) * noise
        c, s = np.cos(view.heading), np.sin(view.heading)
        x, y = room.to_world(view.stop[0] + c * ahead - s * aside, view.stop[1] + s * ahead + c * aside)
        # Having stepped aside, it still faces the same spot.
        yaw = room.yaw + view.heading - 0.4 * aside + turn
        if drive and (number or position):
            route.drive(x, y, number, visit.room)
            route.turn(float(yaw), number, visit.room)
        route.pose = (x, y, float(yaw))
        route.stay(dwell_s, number, visit.room, view_index)
    route.stay(visit.rest_s, number, visit.room, visit.views[-1], rest=True)


def _go_to_room(route: _Route, world: World, number: int, room: Room) -> None:
    """Leaves the last visit's room through its door and enters `room`'s."""
    last_visit = world.visits[number - 1]
    last = world.rooms[last_visit.room]
    if not world.config.drive:
        # A cut from room to room; only between two visits to one room there must be something else.
        if last_visit.room == world.visits[number].room:
            route.pose = (last.origin[0], 0.0, 0.0)
            route.stay(STEP_S, number, NOWHERE, NOWHERE)
        return
    route.drive(*last.to_world(0.0, _DOORSTEP_M), number - 1, last_visit.room)
    route.drive(*last.to_world(0.0, 0.0), number - 1, last_visit.room)
    route.drive(last.origin[0], 0.0, number, NOWHERE)
    route.drive(room.origin[0], 0.0, number, NOWHERE)
    route.drive(*room.origin, number, NOWHERE)
    route.drive(*room.to_world(0.0, _DOORSTEP_M), number, world.visits[number].room)


def sample(segments: list[RouteSegment], times_s: np.ndarray) -> tuple[np.ndarray, list[RouteSegment]]:
    """The pose and the segment at each time.

    Args:
        segments: without gaps, from time 0.
        times_s: ascending, float64 [N].

    Returns:
        x, y, yaw as float64 [N, 3], and the N segments.
    """
    ends = np.array([segment.end_s for segment in segments])
    # A time on a border belongs to what begins there.
    at = [segments[index] for index in np.searchsorted(ends, times_s, side="right")]
    start, end = np.array([segment.start for segment in at]), np.array([segment.end for segment in at])
    bounds = np.array([(segment.start_s, segment.end_s) for segment in at])
    share = (times_s - bounds[:, 0]) / (bounds[:, 1] - bounds[:, 0])
    return start + (end - start) * share[:, None], at
