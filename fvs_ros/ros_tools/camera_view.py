"""The camera of a stream node, looked at beside it: subscribed to only while somebody looks."""

from __future__ import annotations

import time
from typing import TypeAlias

import numpy as np
from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from fvs_ros.nodes.qos import sensor_qos
from fvs_ros.nodes.silence import COMPRESSED, RAW
from fvs_ros.sources.images import decode_compressed_image, decode_image

ImageLike: TypeAlias = Image | CompressedImage

# Of the same camera nobody looks at for so long, no more images are taken.
IDLE_S = 5.0


class CameraView:
    """Takes the newest image of the topic that a stream node subscribes to.

    For the thread that spins `ros_node`, which calls `tend` now and then.

    Args:
        ros_node: looks.
        node: full name of the stream node.
        idle_s: seconds without a look until it unsubscribes.
    """

    def __init__(self, ros_node: Node, node: str, idle_s: float = IDLE_S) -> None:
        self._ros_node = ros_node
        namespace, _, self._name = node.rpartition("/")
        self._namespace = namespace or "/"
        self._idle_s = idle_s
        self._looked_s = 0.0
        self._subscription: Subscription | None = None
        self._newest: ImageLike | None = None

    @property
    def subscribed(self) -> bool:
        """Whether images are taken now."""
        return self._subscription is not None

    def look(self) -> ImageLike | None:
        """The newest image since it was first looked; None before one has come."""
        self._looked_s = time.monotonic()
        if self._subscription is None:
            self._subscribe()
        return self._newest

    def tend(self) -> None:
        """Unsubscribes where nobody has looked for a while."""
        if self._subscription is not None and time.monotonic() - self._looked_s > self._idle_s:
            self._ros_node.destroy_subscription(self._subscription)
            self._subscription = None
            # What comes after a pause is not old.
            self._newest = None

    def _subscribe(self) -> None:
        kinds = {RAW: Image, COMPRESSED: CompressedImage}
        try:
            topics = self._ros_node.get_subscriber_names_and_types_by_node(self._name, self._namespace)
        except RuntimeError:
            # rclpy's NodeNameNonExistentError: DDS does not know the node, or not yet.
            return
        for topic, types in topics:
            for kind in types:
                if kind in kinds:
                    self._subscription = self._ros_node.create_subscription(
                        kinds[kind], topic, self._on_image, sensor_qos()
                    )
                    return

    def _on_image(self, message: ImageLike) -> None:
        self._newest = message


def decoded(message: ImageLike) -> np.ndarray:
    """The RGB image, uint8 [H, W, 3], of a message.

    Raises:
        ImageError: it cannot be decoded.
    """
    return decode_compressed_image(message) if isinstance(message, CompressedImage) else decode_image(message)
