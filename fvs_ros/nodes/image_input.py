"""The camera topic: messages in, undecoded frames out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np
from rclpy.node import Node
from rclpy.qos import qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image

from fvs_ros.nodes.messages import stamp_nanoseconds
from fvs_ros.nodes.qos import sensor_qos
from fvs_ros.nodes.silence import SUFFIX, explain_silence
from fvs_ros.sources.frame import Frame, ImageError, Pose, refused
from fvs_ros.sources.images import check_message, decode_compressed_image, decode_image
from fvs_ros.stream.types import StreamStatistics

try:
    from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks

LOG_PERIOD_S = 10.0

ImageLike: TypeAlias = Image | CompressedImage


def camera_name(node: Node) -> str:
    """What segments call the camera: its topic after remapping, without the transport."""
    return node.resolve_topic_name("image").removesuffix(SUFFIX)


class ImageInput:
    """Subscribes to the camera and submits its images as frames; they are decoded only if they are kept.

    Args:
        node: subscribes.
        transport: "raw" subscribes to `image`, "compressed" to `image/compressed`, or to `image` where that is remapped
            to a name which ends in /compressed.
        submit: takes a frame, at once.
        pose: where the camera of a frame_id was at a stamp in nanoseconds; called on the thread that decodes.

    Attributes:
        topic: name of the subscription, after all remapping.
        unstamped: images without a stamp, none of which was submitted.
        last_rejection: what was wrong with the last bad image, and what to do.
        last_stamp_ns: of the last image, 0 before one.
    """

    def __init__(
        self,
        node: Node,
        transport: str,
        submit: Callable[[Frame], bool],
        pose: Callable[[int, str], Pose | None],
    ) -> None:
        self._node = node
        self._submit = submit
        self._pose = pose
        self._last_arrival_s = time.monotonic()
        self.unstamped = 0
        self.last_rejection = ""
        self.last_stamp_ns = 0
        self._arrived = False
        self._silence_logged = False
        self._compressed = compressed = transport == "compressed"
        self._decoder: Callable[[ImageLike], np.ndarray] = decode_compressed_image if compressed else decode_image
        # image_transport's rule: the base topic is remapped first, then comes the suffix.
        base = node.resolve_topic_name("image")
        name = base + SUFFIX if compressed and not base.endswith(SUFFIX) else base
        self._subscription = node.create_subscription(
            CompressedImage if compressed else Image,
            name,
            self._on_image,
            sensor_qos(),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible_qos),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        # A full name may be remapped as well.
        self.topic: str = self._subscription.topic_name

    def close(self) -> None:
        """Unsubscribes."""
        self._node.destroy_subscription(self._subscription)

    @property
    def publishers(self) -> int:
        """How many publish on the topic, whether or not their QoS fits."""
        return self._node.count_publishers(self.topic)

    @property
    def image_age_s(self) -> float:
        """Seconds since the last image arrived, or since the subscription if none has."""
        return time.monotonic() - self._last_arrival_s

    def silence(self, timeout_s: float) -> str:
        """What is wrong if no image has arrived for `timeout_s`, and what to do; empty if one has, or for 0.

        Says it in the log, too, once each time that images stop.
        """
        if not timeout_s or self.image_age_s < timeout_s:
            self._silence_logged = False
            return ""
        silence = f"no image on {self.topic} for {self.image_age_s:.0f} s: {self._explain()}"
        if not self._silence_logged:
            self._node.get_logger().warning(silence[0].upper() + silence[1:])
            self._silence_logged = True
        return silence

    @property
    def no_frames(self) -> str:
        """Why no frame can be in memory, and what to do; empty where images arrive and are fine."""
        if not self._arrived:
            return f"no image has arrived on {self.topic}: {self._explain()}"
        return f"images are rejected: {self.last_rejection}" if self.last_rejection else ""

    def _explain(self) -> str:
        return explain_silence(self._node, self._subscription, self._compressed)

    def _on_image(self, message: ImageLike) -> None:
        self._last_arrival_s = time.monotonic()
        self._arrived = True
        stamp_ns = stamp_nanoseconds(message.header.stamp)
        if stamp_ns <= 0:
            # The time of receipt is no substitute: in a recording it lies years from the other stamps.
            self.unstamped += 1
            self.last_rejection = (
                f"the image on {self.topic} has stamp {stamp_ns} ns; have the driver fill in header.stamp"
            )
            self._node.get_logger().warning(
                f"An image is rejected: {self.last_rejection}", throttle_duration_sec=LOG_PERIOD_S
            )
            return
        self.last_stamp_ns = stamp_ns
        self._submit(self._frame(message, stamp_ns, time.monotonic_ns()))

    def _frame(self, message: ImageLike, stamp_ns: int, received_ns: int) -> Frame:
        frame_id, held_bytes = message.header.frame_id, len(message.data)
        try:
            check_message(held_bytes, frame_id)
        except ImageError as error:
            self.last_rejection = str(error)
            return refused(stamp_ns, error, received_ns)
        pose = partial(self._pose, stamp_ns, frame_id)
        return Frame(stamp_ns, partial(self._decode, message), frame_id, pose, received_ns, held_bytes)

    def _decode(self, message: ImageLike) -> np.ndarray:
        try:
            return self._decoder(message)
        except ImageError as error:
            self.last_rejection = str(error)
            raise

    def _on_incompatible_qos(self, event: QoSRequestedIncompatibleQoSInfo) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
        self._node.get_logger().warning(
            f"Incompatible QoS: a publisher on {self.topic} offers a lower {policy} than is requested, so none of its "
            f"images arrive. Set the parameter qos_overrides.{self.topic}.subscription.{policy} to what it offers "
            f"(ros2 topic info -v {self.topic}), or have it offer more"
        )


def with_unstamped(statistics: StreamStatistics, count: int) -> StreamStatistics:
    """The engine's counters, with the images that never reach it for want of a stamp."""
    if not count:
        return statistics
    return replace(
        statistics, received=statistics.received + count, rejected={**statistics.rejected, "no_stamp": count}
    )
