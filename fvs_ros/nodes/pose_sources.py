"""Where the camera, or the robot, was when an image was taken."""

from __future__ import annotations

from typing import Protocol

from nav_msgs.msg import Odometry
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time

from fvs_ros.nodes.messages import pose_of, stamp_nanoseconds
from fvs_ros.nodes.parameters import NodeSettings
from fvs_ros.nodes.qos import sensor_qos
from fvs_ros.sources.frame import Pose
from fvs_ros.sources.images import check_message
from fvs_ros.sources.poses import PoseBuffer

# Frames may wait this long for the model before their transform is asked for; tf2's own default is 10 s.
TF_CACHE_S = 60.0
LOG_PERIOD_S = 10.0


class PoseSource(Protocol):
    """Poses by stamp. `at` is called on the engine's ingest thread, everything else on the executor's."""

    def at(self, stamp_ns: int, camera_frame: str) -> Pose | None:
        """The pose when an image of that stamp was taken, None where it is unknown."""

    def close(self) -> None:
        """Ends the subscriptions."""


class NoPoses:
    """No poses at all."""

    def at(self, stamp_ns: int, camera_frame: str) -> Pose | None:
        """See `PoseSource.at`."""
        return None

    def close(self) -> None:
        """See `PoseSource.close`."""


class OdometryPoses:
    """The robot base's pose, in the odometry's frame, between the two messages around the stamp."""

    def __init__(self, node: Node, tolerance_s: float) -> None:
        self._node = node
        self._buffer = PoseBuffer(tolerance_s)
        self._topic = node.resolve_topic_name("odom")
        self._subscription = node.create_subscription(
            Odometry,
            "odom",
            self._on_odometry,
            sensor_qos(),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _on_odometry(self, message: Odometry) -> None:
        pose = pose_of(message.header.frame_id, message.pose.pose.position, message.pose.pose.orientation)
        try:
            check_message(0, pose.frame_id)
            self._buffer.add(stamp_nanoseconds(message.header.stamp), pose)
        except ValueError as error:
            self._node.get_logger().warning(
                f"An odometry message on {self._topic} is ignored: {error}",
                throttle_duration_sec=LOG_PERIOD_S,
            )

    def at(self, stamp_ns: int, camera_frame: str) -> Pose | None:
        """See `PoseSource.at`."""
        return self._buffer.at(stamp_ns)

    def close(self) -> None:
        """See `PoseSource.close`."""
        self._node.destroy_subscription(self._subscription)


class TransformPoses:
    """The camera's own pose in a fixed frame, from `/tf`.

    Raises:
        ValueError: tf2_ros is not installed.
    """

    def __init__(self, node: Node, fixed_frame: str, tolerance_s: float) -> None:
        try:
            import tf2_ros
        except ImportError as error:
            raise ValueError(
                f"pose_source is tf, but tf2_ros cannot be imported ({error}); install the ROS package tf2_ros_py, "
                "or set pose_source to odometry or none"
            ) from error
        self._tf2_ros = tf2_ros
        self._node = node
        self._fixed_frame = fixed_frame
        self._timeout = Duration(seconds=tolerance_s)
        self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=TF_CACHE_S))
        # After a jump back (a looped recording) tf2 would refuse transforms as too old. A buffer that is given the
        # node clears itself, but only since Jazzy, and it offers a service besides.
        self._jump = node.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True),
            post_callback=lambda _: self._buffer.clear(),
        )
        # Its callbacks run on the node's executor, and only fill the buffer, which is thread-safe.
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def at(self, stamp_ns: int, camera_frame: str) -> Pose | None:
        """See `PoseSource.at`. Waits up to the tolerance for a transform that comes after its image."""
        try:
            found = self._buffer.lookup_transform(
                self._fixed_frame, camera_frame, Time(nanoseconds=stamp_ns), self._timeout
            )
        except self._tf2_ros.TransformException as error:
            self._node.get_logger().warning(
                f"No pose for the image of {camera_frame!r} at {stamp_ns} ns: {error}",
                throttle_duration_sec=LOG_PERIOD_S,
            )
            return None
        return pose_of(self._fixed_frame, found.transform.translation, found.transform.rotation)

    def close(self) -> None:
        """See `PoseSource.close`."""
        self._jump.unregister()
        self._listener.unregister()


def create_pose_source(node: Node, settings: NodeSettings) -> PoseSource:
    """The source that the settings name.

    Raises:
        ValueError: it is not available.
    """
    if settings.pose_source == "odometry":
        return OdometryPoses(node, settings.pose_tolerance_s)
    if settings.pose_source == "tf":
        return TransformPoses(node, settings.pose_frame, settings.pose_tolerance_s)
    return NoPoses()
