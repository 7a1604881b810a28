"""An episode as a recording: a rosbag2 MCAP bag with the questions beside it.

Topics, all stamped with the frame's stamp: ``/camera/image/compressed`` (JPEG), ``/camera/camera_info``, ``/odom``,
``/tf`` (odom to base_link) and, once, ``/tf_static`` (base_link to camera_optical_frame).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from fvs_ros.patrol.episode import BASE_FRAME, CAMERA_FRAME, ODOM_FRAME, Episode
from fvs_ros.patrol.errors import PatrolError
from fvs_ros.patrol.questions import Question
from fvs_ros.patrol.render import PatrolRenderer
from fvs_ros.patrol.visibility import FIELD_OF_VIEW, camera_in_base
from fvs_ros.sources.frame import SECOND_NS

IMAGE_TOPIC = "/camera/image/compressed"
INFO_TOPIC = "/camera/camera_info"
ODOMETRY_TOPIC = "/odom"
TF_TOPIC = "/tf"
STATIC_TF_TOPIC = "/tf_static"
QUESTIONS_FILE = "questions.jsonl"

JPEG_QUALITY = 90

_TYPES = {
    IMAGE_TOPIC: "sensor_msgs/msg/CompressedImage",
    INFO_TOPIC: "sensor_msgs/msg/CameraInfo",
    ODOMETRY_TOPIC: "nav_msgs/msg/Odometry",
    TF_TOPIC: "tf2_msgs/msg/TFMessage",
    STATIC_TF_TOPIC: "tf2_msgs/msg/TFMessage",
}
_FOREVER = QosTime(2147483647, 4294967295)
# Late subscribers get static transforms too (REP 105's broadcaster is transient local).
_LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    _FOREVER,
    _FOREVER,
    QosLiveliness.AUTOMATIC,
    _FOREVER,
    False,
)


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
        folder: made anew; becomes a rosbag2 folder that also holds `QUESTIONS_FILE`.
        on_frame: called with each frame's index and picture (uint8 [size, size, 3], RGB) once it is written.

    Raises:
        PatrolError: if `folder` exists.
        OSError: if it cannot be written.
    """
    if folder.exists():
        raise PatrolError(f"{folder} exists already; give a new folder or remove it")
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        recorder = _Recorder(writer)
        for index, frame in enumerate(renderer.frames(episode)):
            recorder.record(episode, index, frame)
            if on_frame is not None:
                on_frame(index, frame)
    write_questions(folder / QUESTIONS_FILE, questions)


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    """Writes questions as one JSON object a line; times in seconds on the recording's clock, to the nanosecond."""
    path.write_text("".join(question_line(question) + "\n" for question in questions), encoding="utf-8")


def question_line(question: Question) -> str:
    """One question as a JSON object on one line."""
    proof = ", ".join(f"[{_seconds(start)}, {_seconds(end)}]" for start, end in question.proof_ns)
    fields = {"id": json.dumps(question.id), "stamp": _seconds(question.stamp_ns)}
    fields |= {"question": json.dumps(question.text), "answer": json.dumps(question.answer)}
    if question.choices:
        fields["choices"] = json.dumps(question.choices)
    fields |= {"proof": f"[{proof}]", "family": json.dumps(question.family), "age_s": json.dumps(question.age_s)}
    return "{" + ", ".join(f'"{key}": {text}' for key, text in fields.items()) + "}"


def _seconds(nanoseconds: int) -> str:
    # As text: a float of this size is exact to a quarter of a microsecond only.
    return f"{nanoseconds // SECOND_NS}.{nanoseconds % SECOND_NS:09d}".rstrip("0").rstrip(".")


class _Recorder:
    """Turns frames and poses into messages."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self._topics: dict[str, Connection] = {
            topic: writer.add_connection(
                topic,
                message_type,
                typestore=self._store,
                offered_qos_profiles=[_LATCHED] if topic == STATIC_TF_TOPIC else [],
            )
            for topic, message_type in _TYPES.items()
        }

    def record(self, episode: Episode, index: int, frame: np.ndarray) -> None:
        """Writes all messages of one frame."""
        stamp_ns = int(episode.stamps_ns[index])
        x, y, yaw = (float(value) for value in episode.poses[index])
        turn = np.array([0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)])
        if index == 0:
            mounted = camera_in_base()
            camera = self._transform(
                stamp_ns, BASE_FRAME, CAMERA_FRAME, mounted.position, _quaternion(mounted.rotation)
            )
            self._write(STATIC_TF_TOPIC, stamp_ns, transforms=[camera])
        base = self._transform(stamp_ns, ODOM_FRAME, BASE_FRAME, np.array([x, y, 0.0]), turn)
        self._write(TF_TOPIC, stamp_ns, transforms=[base])
        self._write(
            ODOMETRY_TOPIC,
            stamp_ns,
            header=self._header(stamp_ns, ODOM_FRAME),
            child_frame_id=BASE_FRAME,
            pose=self._pose(x, y, turn),
            twist=self._no_twist(),
        )
        self._write(INFO_TOPIC, stamp_ns, **self._camera_info(stamp_ns, len(frame)))
        _, jpeg = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        header = self._header(stamp_ns, CAMERA_FRAME)
        self._write(IMAGE_TOPIC, stamp_ns, header=header, format="rgb8; jpeg compressed bgr8", data=jpeg.reshape(-1))

    def _write(self, topic: str, stamp_ns: int, **fields: Any) -> None:
        message = self._make(_TYPES[topic], **fields)
        self._writer.write(self._topics[topic], stamp_ns, self._store.serialize_cdr(message, _TYPES[topic]))

    def _make(self, message_type: str, **fields: Any) -> Any:
        return self._store.types[message_type](**fields)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        time = self._make("builtin_interfaces/msg/Time", sec=stamp_ns // SECOND_NS, nanosec=stamp_ns % SECOND_NS)
        return self._make("std_msgs/msg/Header", stamp=time, frame_id=frame_id)

    def _vector(self, message_type: str, values: np.ndarray) -> Any:
        return self._make(message_type, **dict(zip("xyzw", (float(value) for value in values), strict=False)))

    def _transform(self, stamp_ns: int, parent: str, child: str, position: np.ndarray, turn: np.ndarray) -> Any:
        transform = self._make(
            "geometry_msgs/msg/Transform",
            translation=self._vector("geometry_msgs/msg/Vector3", position),
            rotation=self._vector("geometry_msgs/msg/Quaternion", turn),
        )
        header = self._header(stamp_ns, parent)
        return self._make(
            "geometry_msgs/msg/TransformStamped", header=header, child_frame_id=child, transform=transform
        )

    def _pose(self, x: float, y: float, turn: np.ndarray) -> Any:
        pose = self._make(
            "geometry_msgs/msg/Pose",
            position=self._vector("geometry_msgs/msg/Point", np.array([x, y, 0.0])),
            orientation=self._vector("geometry_msgs/msg/Quaternion", turn),
        )
        return self._make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36))

    def _no_twist(self) -> Any:
        still = self._vector("geometry_msgs/msg/Vector3", np.zeros(3))
        twist = self._make("geometry_msgs/msg/Twist", linear=still, angular=still)
        # By convention -1 in the first element says that nothing is known about the twist.
        return self._make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=-np.eye(6).ravel())

    def _camera_info(self, stamp_ns: int, size: int) -> dict[str, Any]:
        focal, centre = size / 2 / np.tan(FIELD_OF_VIEW / 2), size / 2
        k = np.array([[focal, 0.0, centre], [0.0, focal, centre], [0.0, 0.0, 1.0]])
        whole = self._make(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        return {
            "header": self._header(stamp_ns, CAMERA_FRAME),
            "height": size,
            "width": size,
            "distortion_model": "plumb_bob",
            "d": np.zeros(5),
            "k": k.ravel(),
            "r": np.eye(3).ravel(),
            "p": np.column_stack([k, np.zeros(3)]).ravel(),
            "binning_x": 0,
            "binning_y": 0,
            "roi": whole,
        }


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """x, y, z, w of the camera's mounting; its w is far from 0."""
    w = np.sqrt(1.0 + np.trace(rotation)) / 2
    return np.array(
        [
            (rotation[2, 1] - rotation[1, 2]) / (4 * w),
            (rotation[0, 2] - rotation[2, 0]) / (4 * w),
            (rotation[1, 0] - rotation[0, 1]) / (4 * w),
            w,
        ]
    )
