"""Writes a camera's frames and poses as a rosbag2 MCAP bag. Nothing here imports ROS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from fvs_ros.sources.frame import SECOND_NS, Pose
from fvs_ros.sources.images import JPEG_FORMAT, encode_jpeg

IMAGE_TOPIC = "/camera/image/compressed"
INFO_TOPIC = "/camera/camera_info"
ODOMETRY_TOPIC = "/odom"
TF_TOPIC = "/tf"
STATIC_TF_TOPIC = "/tf_static"

_TYPES = {
    IMAGE_TOPIC: "sensor_msgs/msg/CompressedImage",
    INFO_TOPIC: "sensor_msgs/msg/CameraInfo",
    ODOMETRY_TOPIC: "nav_msgs/msg/Odometry",
    TF_TOPIC: "tf2_msgs/msg/TFMessage",
    STATIC_TF_TOPIC: "tf2_msgs/msg/TFMessage",
}
_FOREVER = QosTime(2147483647, 4294967295)
# What late subscribers get too, such as static transforms (REP 105's broadcaster is transient local).
LATCHED = Qos(
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


class BagWriter:
    """A bag opened for writing; a context manager that closes it.

    Each message is recorded at its header's stamp.

    Args:
        folder: the bag's folder, made anew.
        topics: those to write, of the `*_TOPIC` of this module.
        jpeg_quality: of the images, 1 to 100.

    Raises:
        rosbags.rosbag2.WriterError: `folder` exists.
    """

    def __init__(self, folder: Path, topics: Sequence[str], jpeg_quality: int) -> None:
        self._jpeg_quality = jpeg_quality
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._connections = {
            topic: self._writer.add_connection(
                topic,
                _TYPES[topic],
                typestore=self._store,
                offered_qos_profiles=[LATCHED] if topic == STATIC_TF_TOPIC else [],
            )
            for topic in topics
        }

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write_image(self, stamp_ns: int, frame_id: str, rgb: np.ndarray) -> None:
        """Writes an image, RGB uint8 [height, width, 3], as JPEG."""
        data = np.frombuffer(encode_jpeg(rgb, self._jpeg_quality), np.uint8)
        self._write(IMAGE_TOPIC, stamp_ns, header=self._header(stamp_ns, frame_id), format=JPEG_FORMAT, data=data)

    def write_camera_info(self, stamp_ns: int, frame_id: str, size: tuple[int, int], focal: float) -> None:
        """Writes the intrinsics of a pinhole camera without distortion, its principal point in the middle.

        Args:
            stamp_ns: of the header.
            frame_id: the camera's coordinate frame.
            size: height and width in pixels.
            focal: focal length in pixels.
        """
        height, width = size
        k = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
        whole = self._make(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        self._write(
            INFO_TOPIC,
            stamp_ns,
            header=self._header(stamp_ns, frame_id),
            height=height,
            width=width,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=k.ravel(),
            r=np.eye(3).ravel(),
            p=np.column_stack([k, np.zeros(3)]).ravel(),
            binning_x=0,
            binning_y=0,
            roi=whole,
        )

    def write_odometry(self, stamp_ns: int, pose: Pose, child_frame_id: str) -> None:
        """Writes the pose of `child_frame_id`, its twist unknown."""
        placed = self._make(
            "geometry_msgs/msg/Pose",
            position=self._vector("geometry_msgs/msg/Point", pose.position),
            orientation=self._vector("geometry_msgs/msg/Quaternion", pose.orientation),
        )
        still = self._vector("geometry_msgs/msg/Vector3", (0.0, 0.0, 0.0))
        twist = self._make("geometry_msgs/msg/Twist", linear=still, angular=still)
        self._write(
            ODOMETRY_TOPIC,
            stamp_ns,
            header=self._header(stamp_ns, pose.frame_id),
            child_frame_id=child_frame_id,
            pose=self._make("geometry_msgs/msg/PoseWithCovariance", pose=placed, covariance=np.zeros(36)),
            # By convention -1 in the first element says that nothing is known about the twist.
            twist=self._make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=-np.eye(6).ravel()),
        )

    def write_transform(self, stamp_ns: int, pose: Pose, child_frame_id: str, *, static: bool = False) -> None:
        """Writes the pose of `child_frame_id` as a transform, on `STATIC_TF_TOPIC` or `TF_TOPIC`."""
        transform = self._make(
            "geometry_msgs/msg/Transform",
            translation=self._vector("geometry_msgs/msg/Vector3", pose.position),
            rotation=self._vector("geometry_msgs/msg/Quaternion", pose.orientation),
        )
        stamped = self._make(
            "geometry_msgs/msg/TransformStamped",
            header=self._header(stamp_ns, pose.frame_id),
            child_frame_id=child_frame_id,
            transform=transform,
        )
        self._write(STATIC_TF_TOPIC if static else TF_TOPIC, stamp_ns, transforms=[stamped])

    def _write(self, topic: str, stamp_ns: int, **fields: Any) -> None:
        message = self._make(_TYPES[topic], **fields)
        self._writer.write(self._connections[topic], stamp_ns, self._store.serialize_cdr(message, _TYPES[topic]))

    def _make(self, message_type: str, **fields: Any) -> Any:
        return self._store.types[message_type](**fields)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        stamp = self._make("builtin_interfaces/msg/Time", sec=stamp_ns // SECOND_NS, nanosec=stamp_ns % SECOND_NS)
        return self._make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def _vector(self, message_type: str, values: Sequence[float]) -> Any:
        return self._make(message_type, **dict(zip("xyzw", values, strict=False)))
