"""An episode as a recording: a rosbag2 MCAP bag with the questions beside it.

Topics, all stamped with the frame's stamp: ``/camera/image/compressed`` (JPEG), ``/camera/camera_info``, ``/odom``,
``/tf`` (odom to base_link) and, once, ``/tf_static`` (base_link to camera_optical_frame).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fvs_ros.evaluation.questions import QUESTIONS_FILE, write_questions
from fvs_ros.patrol.episode import BASE_FRAME, CAMERA_FRAME, ODOM_FRAME, Episode
from fvs_ros.patrol.errors import PatrolError
from fvs_ros.patrol.questions import Question
from fvs_ros.patrol.render import PatrolRenderer
from fvs_ros.patrol.visibility import FIELD_OF_VIEW, camera_in_base
from fvs_ros.sources.bag_writer import (
    IMAGE_TOPIC,
    INFO_TOPIC,
    ODOMETRY_TOPIC,
    STATIC_TF_TOPIC,
    TF_TOPIC,
    BagWriter,
)
from fvs_ros.sources.frame import Pose

JPEG_QUALITY = 90

_TOPICS = (IMAGE_TOPIC, INFO_TOPIC, ODOMETRY_TOPIC, TF_TOPIC, STATIC_TF_TOPIC)


def write_bag(
    episode: Episode,
    folder: Path,
    renderer: PatrolRenderer,
    questions: Sequence[Question] = (),
    on_frame: Callable[[int, np.ndarray], None] | None = None,
) -> None:
    """Records an episode.

    Args:
        episode: what to record.
        renderer: draws its frames.
        questions: those for `QUESTIONS_FILE`.
        folder: must not exist; becomes a rosbag2 folder that also holds `QUESTIONS_FILE`.
        on_frame: called with each frame's index and picture (uint8 [size, size, 3], RGB) once it is written.

    Raises:
        PatrolError: if `folder` exists.
        OSError: if it cannot be written.
    """
    if folder.exists():
        raise PatrolError(f"{folder} exists already; give a new folder or remove it")
    with BagWriter(folder, _TOPICS, JPEG_QUALITY) as writer:
        for index, frame in enumerate(renderer.frames(episode)):
            _record(writer, episode, index, frame)
            if on_frame is not None:
                on_frame(index, frame)
    write_questions(folder / QUESTIONS_FILE, questions)


def _record(writer: BagWriter, episode: Episode, index: int, frame: np.ndarray) -> None:
    stamp_ns = int(episode.stamps_ns[index])
    if index == 0:
        mounted = camera_in_base()
        camera = Pose(BASE_FRAME, tuple(mounted.position.tolist()), _quaternion(mounted.rotation))
        writer.write_transform(stamp_ns, camera, CAMERA_FRAME, static=True)
    x, y, yaw = episode.poses[index].tolist()
    base = Pose(ODOM_FRAME, (x, y, 0.0), (0.0, 0.0, float(np.sin(yaw / 2)), float(np.cos(yaw / 2))))
    writer.write_transform(stamp_ns, base, BASE_FRAME)
    writer.write_odometry(stamp_ns, base, BASE_FRAME)
    size = len(frame)
    writer.write_camera_info(stamp_ns, CAMERA_FRAME, (size, size), size / 2 / np.tan(FIELD_OF_VIEW / 2))
    writer.write_image(stamp_ns, CAMERA_FRAME, frame)


def _quaternion(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """x, y, z, w of the camera's mounting; its w is far from 0."""
    w = float(np.sqrt(1.0 + np.trace(rotation)) / 2)
    x, y, z = rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]
    return float(x / (4 * w)), float(y / (4 * w)), float(z / (4 * w)), w
