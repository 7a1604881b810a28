"""The robot's camera: draws the frames of an episode with MuJoCo, off screen.

A frame of 112 x 112 pixels takes 3.2 to 4.3 ms of one core (OSMesa, mean of an episode).
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from functools import lru_cache
from itertools import chain

import cv2
import numpy as np

from fvs_ros.patrol.config import FRAME_SIZE
from fvs_ros.patrol.episode import Episode
from fvs_ros.patrol.errors import PatrolError
from fvs_ros.patrol.layout import COLUMN_M, CORRIDOR_M, HEIGHT_M, RGB, STYLES, Room
from fvs_ros.patrol.motion import NOWHERE
from fvs_ros.patrol.mujoco_backend import LARGEST_PX, Body, DrawingBoard
from fvs_ros.patrol.shapes import PARTS, Primitive, rotation_x, rotation_z
from fvs_ros.patrol.visibility import CameraPose
from fvs_ros.patrol.vocabulary import COLOURS, CORRIDOR
from fvs_ros.patrol.world import Stream, World, generator

OVERSAMPLING = 2
"""Pixels drawn per pixel of a frame, in each direction, and averaged: OSMesa has no multisampling."""

_DOOR_RGB = (0.42, 0.33, 0.25)
_CEILING_RGB = (0.93, 0.93, 0.91)
_CORRIDOR_VARIANT = 0


class PatrolRenderer(AbstractContextManager["PatrolRenderer"]):
    """Draws frames of any number of episodes; use it in one thread, as a context manager.

    Args:
        size: pixels along each side of a frame.

    Raises:
        PatrolError: if `size` is out of range.
        RenderError: if MuJoCo or its OpenGL library is missing; the message says what to install.
    """

    def __init__(self, size: int = FRAME_SIZE) -> None:
        most = LARGEST_PX // OVERSAMPLING
        if not 16 <= size <= most:
            raise PatrolError(f"the frame's size is {size} pixels; it must be from 16 to {most}")
        self.size = size
        self._board = DrawingBoard(size * OVERSAMPLING)

    def frame(self, episode: Episode, index: int) -> np.ndarray:
        """One frame, uint8 [size, size, 3], RGB; the same bytes each time on the same machine.

        Raises:
            IndexError: if the episode has no such frame.
        """
        drawn = self._board.draw(*_scene(episode, index))
        picture = cv2.resize(drawn, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return _expose(picture, episode, int(episode.pictures[index]))

    def frames(self, episode: Episode, indices: Iterable[int] | None = None) -> Iterator[np.ndarray]:
        """The frames of `indices` (default: all), drawn one by one as they are asked for.

        One that shows the same picture as the one before is the same array.
        """
        shown, last = -1, np.empty(0)
        for index in range(len(episode)) if indices is None else indices:
            picture = int(episode.pictures[index])
            if picture != shown:
                shown, last = picture, self.frame(episode, index)
            yield last

    def segmentation(self, episode: Episode, index: int) -> np.ndarray:
        """The index of the object that each pixel shows, -1 for none, int32 [2 * size, 2 * size]."""
        return self._board.segment(*_scene(episode, index))

    def close(self) -> None:
        """Frees the OpenGL context; harmless to repeat."""
        self._board.close()

    def __exit__(self, *_: object) -> None:
        self.close()


@lru_cache(maxsize=1)
def shared_renderer(size: int) -> PatrolRenderer:
    """The renderer of this process, for as long as it lives: a second OpenGL context beside it may crash OSMesa.

    Args:
        size: pixels along each side of a frame.

    Raises:
        PatrolError, RenderError: see `PatrolRenderer`.
    """
    renderer = PatrolRenderer(size)
    # Left to the interpreter's end, it would be freed after what frees it.
    atexit.register(renderer.close)
    return renderer


def _scene(episode: Episode, index: int) -> tuple[CameraPose, list[Body]]:
    if not 0 <= index < len(episode):
        raise IndexError(f"frame {index} asked for; the episode has frames 0 to {len(episode) - 1}")
    return episode.camera(index), bodies(episode, index)


def _expose(picture: np.ndarray, episode: Episode, index: int) -> np.ndarray:
    """What the sensor makes of the light that falls on it, uint8 of the same shape."""
    room = int(episode.rooms[index])
    light = 1.0 if room == NOWHERE else episode.world.rooms[room].light
    gain = (episode.gain[index] * light).astype(np.float32)
    exposed = picture.astype(np.float32) * gain
    if episode.sensor_sigma > 0.0:
        random = generator(episode.world.seed, Stream.SENSOR, index)
        exposed += random.standard_normal(picture.shape, np.float32) * np.float32(episode.sensor_sigma)
    return (exposed + 0.5).clip(0, 255).astype(np.uint8)


def bodies(episode: Episode, index: int) -> list[Body]:
    """All that can be seen from where frame `index` is taken; objects are labelled with their index."""
    room = int(episode.rooms[index])
    if room == NOWHERE:
        return _corridor(episode.world)
    objects = (_scene_object(episode, index, object_id) for object_id in episode.standing(index))
    return [*_room(episode.world.rooms[room]), *chain.from_iterable(objects)]


def _scene_object(episode: Episode, frame: int, index: int) -> list[Body]:
    scene_object = episode.objects[index]
    (x, y), yaw = episode.stand(frame, index)
    turn, foot = rotation_z(yaw), np.array([x, y, 0.0])
    return [
        Body(
            part.primitive,
            tuple((np.array(part.size) * scene_object.scale).tolist()),
            foot + turn @ np.array(part.centre) * scene_object.scale,
            turn @ rotation_x(part.tilt),
            part.rgb or COLOURS[scene_object.colour],
            label=index,
        )
        for part in PARTS[scene_object.kind]
    ]


def _surface(
    centre: tuple[float, float, float],
    normal: np.ndarray,
    half: tuple[float, float],
    rgb: RGB,
    pattern: tuple[str, int],
) -> Body:
    """A rectangle seen from the side to which `normal` points; `half` is half its width and half its height."""
    up = np.array([0.0, 1.0, 0.0]) if abs(normal[2]) > 0.5 else np.array([0.0, 0.0, 1.0])
    rotation = np.stack([np.cross(up, normal), up, normal], axis=1)
    return Body(None, (*half, 1.0), np.array(centre), rotation, rgb, pattern)


def _hall(
    middle: tuple[float, float], half: tuple[float, float], style: str, rgb: tuple[RGB, RGB], variants: tuple[int, int]
) -> list[Body]:
    """Floor, ceiling and four walls around `middle`; `rgb` and `variants` are those of the walls and the floor."""
    look, (x, y), (across, along) = STYLES[style], middle, half
    wall, floor = (look.wall_pattern, variants[0]), (look.floor_pattern, variants[1])
    z, mid = HEIGHT_M / 2, np.eye(3)
    return [
        _surface((x, y, 0.0), mid[2], half, rgb[1], floor),
        _surface((x, y, HEIGHT_M), -mid[2], half, _CEILING_RGB, ("plain", _CORRIDOR_VARIANT)),
        _surface((x - across, y, z), mid[0], (along, z), rgb[0], wall),
        _surface((x + across, y, z), -mid[0], (along, z), rgb[0], wall),
        _surface((x, y - along, z), mid[1], (across, z), rgb[0], wall),
        _surface((x, y + along, z), -mid[1], (across, z), rgb[0], wall),
    ]


@lru_cache(maxsize=64)
def _room(room: Room) -> tuple[Body, ...]:
    middle = room.to_world(0.0, room.depth / 2)
    shell = _hall(
        middle,
        (room.width / 2, room.depth / 2),
        room.name,
        (room.wall_rgb, room.floor_rgb),
        (room.wall_variant, room.floor_variant),
    )
    for view in room.views:
        offset, half_width, half_height, height = view.panel
        ahead = np.array([np.cos(view.heading), np.sin(view.heading)])
        at = np.array(view.stop) + ahead * _distance_to_wall(room, view.stop, ahead)
        at = at + np.array([-ahead[1], ahead[0]]) * offset
        centre = np.array([*room.to_world(float(at[0]), float(at[1])), height])
        turn = rotation_z(room.yaw + view.heading)
        shell.append(Body(Primitive.BOX, (0.02, half_width, half_height), centre, turn, view.panel_rgb))
    return (*shell, _door(*room.origin))


def _distance_to_wall(room: Room, stop: tuple[float, float], ahead: np.ndarray) -> float:
    if abs(ahead[1]) > 0.5:
        return room.depth - stop[1]
    return room.width / 2 - float(np.sign(ahead[0])) * stop[0]


def _door(x: float, y: float) -> Body:
    return Body(Primitive.BOX, (0.5, 0.03, 1.05), np.array([x, y, 1.05]), np.eye(3), _DOOR_RGB)


def _corridor(world: World) -> list[Body]:
    columns = (len(world.rooms) + 1) // 2
    middle, half = ((columns - 1) * COLUMN_M / 2, 0.0), (columns * COLUMN_M / 2, CORRIDOR_M / 2)
    style, variants = STYLES[CORRIDOR], (_CORRIDOR_VARIANT, _CORRIDOR_VARIANT)
    return [
        *_hall(middle, half, CORRIDOR, (style.wall, style.floor), variants),
        *(_door(*room.origin) for room in world.rooms),
    ]
