"""A patrol as the robot experiences it: stamps, poses, the room and the objects in view, frame by frame.

Frames (REP 103, REP 105): `odom` is the world, `base_link` the robot on the floor (x ahead, y left, z up),
`camera_optical_frame` the camera (z ahead, x right, y down). Odometry is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fvs_ros.patrol.config import PatrolConfig
from fvs_ros.patrol.errors import PatrolError
from fvs_ros.patrol.motion import NOWHERE, RouteSegment, plan_route, sample
from fvs_ros.patrol.visibility import CameraPose, Standing, camera_pose, owners, visible_pixels
from fvs_ros.patrol.vocabulary import CORRIDOR
from fvs_ros.patrol.world import SceneObject, Stream, World, generator, make_world
from fvs_ros.sources.frame import SECOND_NS

ODOM_FRAME, BASE_FRAME, CAMERA_FRAME = "odom", "base_link", "camera_optical_frame"

EPOCH_NS = 1_750_000_000_000_000_000
"""Stamp of the first frame of seed 0; each seed begins a day later, for 4000 days, then from the beginning again."""
_DAY_S = 86_400
_DAY_NS = _DAY_S * SECOND_NS
STILL_S = 60
"""Seconds for which the picture of a robot at rest stays the same."""
_LAMPS = np.array([0.72, 0.66, 0.54])
"""Factor on each colour channel at night; by day it is 1."""
_DUSK = 4.0
"""How fast the sun goes: from 90 to 10 percent of its light takes two hours."""
# The 32-bit seconds of builtin_interfaces/Time end 4600 days after the first seed, in 2038.
_DAYS = 4_000


@dataclass(frozen=True)
class Episode:
    """What happened, for N frames and O objects.

    Attributes:
        stamps_ns: when each frame was taken, int64 [N].
        poses: the robot's x, y (metres) and yaw (radians) in `odom`, float64 [N, 3].
        rooms: index of the room, `motion.NOWHERE` in the corridor, int64 [N].
        views: index of the view that the robot inspects, `motion.NOWHERE` on the way, int64 [N].
        visits: index into `World.visits`, int64 [N].
        pixels: how many of the 56 x 56 pixels show each object, int64 [N, O].
        gain: factor of light and exposure on each colour channel, float64 [N, 3].
        sensor_sigma: standard deviation of the sensor's noise in steps of 1/255.
        pictures: the frame whose picture each frame shows, int64 [N]: its own, but for a robot at rest, whose picture
            stays until its light changes.

    Raises:
        PatrolError: for fewer than two frames.
    """

    world: World
    stamps_ns: np.ndarray
    poses: np.ndarray
    rooms: np.ndarray
    views: np.ndarray
    visits: np.ndarray
    pixels: np.ndarray
    gain: np.ndarray
    sensor_sigma: float
    pictures: np.ndarray

    def __post_init__(self) -> None:
        if len(self.stamps_ns) < 2:
            raise PatrolError(
                f"the episode has {len(self.stamps_ns)} frame(s); a grid step takes two, so make it at least 2 s long"
            )

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def config(self) -> PatrolConfig:
        """The settings that it was made with."""
        return self.world.config

    @property
    def objects(self) -> tuple[SceneObject, ...]:
        """Every object that is somewhere at some time."""
        return self.world.objects

    def time_of_day_s(self, frame: int) -> float:
        """Seconds since midnight at a frame, in UTC."""
        return int(self.stamps_ns[frame]) % _DAY_NS / SECOND_NS

    def room_name(self, frame: int) -> str:
        """Name of the room in which a frame was taken."""
        room = int(self.rooms[frame])
        return CORRIDOR if room == NOWHERE else self.world.rooms[room].name

    def camera(self, frame: int) -> CameraPose:
        """The camera's optical frame in `odom` at a frame."""
        return camera_pose(*self.poses[frame])

    def standing(self, frame: int) -> list[int]:
        """Indices of the objects in the room in which a frame was taken."""
        room = int(self.rooms[frame])
        if room == NOWHERE:
            return []
        placements = self.world.visits[int(self.visits[frame])].placements
        return [object_id for object_id, at in placements.items() if at.room == room]

    def stand(self, frame: int, object_id: int) -> tuple[tuple[float, float], float]:
        """Where an object of `standing` stands in `odom`: x and y, and its yaw."""
        placement = self.world.visits[int(self.visits[frame])].placements.get(object_id)
        if placement is None:
            raise PatrolError(f"object {object_id} is not there in frame {frame}")
        room = self.world.rooms[placement.room]
        view = room.views[placement.view]
        # Turned by its own yaw from facing the robot.
        yaw = room.yaw + view.heading - np.pi / 2 + self.objects[object_id].yaw
        return room.to_world(*view.places[placement.place]), float(yaw)

    def owners(self, frame: int) -> np.ndarray:
        """The index of the object that each pixel of a frame shows, -1 for none, int64 [56, 56]."""
        standing = self.standing(frame)
        # The last entry is what -1 points to.
        return np.array([*standing, -1])[owners(self.camera(frame), self._stands(frame, standing))]

    def _stands(self, frame: int, standing: Sequence[int]) -> Standing:
        return [(self.objects[object_id], *self.stand(frame, object_id)) for object_id in standing]


def simulate(seed: int, config: PatrolConfig | None = None) -> Episode:
    """Makes the episode of a seed: the same one for the same seed and settings, on every machine.

    Args:
        seed: from 0; from `config.TEST_SEED` on reserved for tests.
        config: the settings; the default is `PatrolConfig()`.

    Raises:
        PatrolError: for a negative seed.
    """
    config = config or PatrolConfig()
    world = make_world(seed, config)
    times_s = np.arange(config.frames) / config.frame_rate
    poses, segments = sample(plan_route(world), times_s)
    views = np.array([segment.view for segment in segments])
    random = generator(seed, Stream.MOTION, 1)
    # A robot that stands still sways a little: 1 cm, 0.4 degrees.
    sway = random.normal(size=(len(poses), 3)).clip(-2, 2) * (0.01, 0.01, np.deg2rad(0.4)) * config.noise
    poses = poses + np.where(views[:, None] == NOWHERE, 0.0, sway)
    period_ns = np.arange(config.frames, dtype=np.int64) * SECOND_NS // config.frame_rate
    start_ns = EPOCH_NS + (seed % _DAYS) * _DAY_NS
    if config.clock:
        start_ns += _start_s(seed) * SECOND_NS - start_ns % _DAY_NS
    gain, sensor_sigma = _lighting(seed, config, times_s, start_ns % _DAY_NS / SECOND_NS)
    pictures = _pictures(segments, config)
    episode = Episode(
        world=world,
        stamps_ns=start_ns + period_ns,
        poses=poses[pictures],
        rooms=np.array([segment.room for segment in segments]),
        views=views,
        visits=np.array([segment.visit for segment in segments]),
        pixels=np.zeros((len(poses), len(world.objects)), np.int64),
        gain=gain[pictures],
        sensor_sigma=sensor_sigma,
        pictures=pictures,
    )
    for frame in np.unique(pictures).tolist():
        standing = episode.standing(frame)
        if standing:
            stands = episode._stands(frame, standing)
            episode.pixels[frame, standing] = visible_pixels(episode.camera(frame), stands)
    episode.pixels[:] = episode.pixels[pictures]
    return episode


def _start_s(seed: int) -> int:
    """The time of day at which an episode with a clock begins, a whole minute, in seconds since midnight."""
    return 60 * int(generator(seed, Stream.CLOCK).integers(_DAY_S // 60))


def _pictures(segments: Sequence[RouteSegment], config: PatrolConfig) -> np.ndarray:
    """See `Episode.pictures`; `segments` are those of the frames."""
    own = np.arange(len(segments))
    resting = np.array([segment.rest for segment in segments])
    starts = np.array([np.ceil(segment.start_s * config.frame_rate) for segment in segments], np.int64)
    period = STILL_S * config.frame_rate
    return np.where(resting, own - (own - starts) % period, own)


def _lighting(seed: int, config: PatrolConfig, times_s: np.ndarray, start_s: float) -> tuple[np.ndarray, float]:
    """Daylight that drifts over minutes, an exposure control that hunts, a sensor that is noisy.

    With a clock, from the time of day `start_s` on, the sun goes down at six in the evening and up at six in the
    morning; lamps, which are warmer, are on at night.
    """
    random = generator(seed, Stream.LIGHT)
    period_s, phase = random.uniform(300, 1500), random.uniform(0, 2 * np.pi)
    sun = np.sin(2 * np.pi * times_s / period_s + phase)
    # Warmer as it grows darker.
    tint = np.array([-0.02, 0.0, 0.04]) * random.uniform(0.3, 1.2)
    exposure = random.normal(size=len(times_s)).clip(-2, 2) * 0.02
    gain = 1.0 + config.noise * (0.08 * sun[:, None] + sun[:, None] * tint + exposure[:, None])
    if config.clock:
        height = np.cos(2 * np.pi * ((start_s + times_s) / _DAY_S - 0.5))
        day = (1 + np.tanh(_DUSK * height)) / 2
        gain = gain * (_LAMPS + day[:, None] * (1.0 - _LAMPS))
    return gain, float(config.noise * random.uniform(1.5, 5.0))
