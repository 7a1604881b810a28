"""What the replay node publishes: a bag's messages as they were recorded, or the images of a video."""

from __future__ import annotations

import array
import importlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import cv2
import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from fvs_ros.nodes.messages import time_message
from fvs_ros.nodes.qos import latched_qos
from fvs_ros.nodes.replay_parameters import ReplayConfig
from fvs_ros.sources.bags import Bag, BagTopic, SourceError
from fvs_ros.sources.frame import SECOND_NS, Frame, ImageError
from fvs_ros.sources.images import JPEG_FORMAT, encode_jpeg
from fvs_ros.sources.playback import PlaybackItem
from fvs_ros.sources.recordings import COMPRESSED_TYPE, IMAGE_TYPE, FrameSource

# These speak of the recorded session's own nodes; playing them would configure or confuse today's.
_SESSION_TOPICS = frozenset({"/clock", "/parameter_events", "/rosout"})
_DEPTH = 10
# Late subscribers get all of a latched topic: several nodes may have published on it.
_LATCHED_DEPTH_LIMIT = 1_000
_TYPE_NAME = re.compile(r"([a-z][a-z0-9_]*)/msg/([A-Z][A-Za-z0-9]*)")


class ReplayOutput(Protocol):
    """One recording with its publishers.

    Attributes:
        name: what is played.
        duration_ns: of one pass, for progress.
        image_publishers: those whose subscribers the replay may wait for.
    """

    name: str
    duration_ns: int
    image_publishers: list[Publisher]
    publishers: list[Publisher]

    def items(self) -> Iterator[PlaybackItem]:
        """Begin one pass."""

    def close(self) -> None:
        """Close the recording."""


class BagOutput:
    """Publishes a bag's messages as their recorded bytes, each topic under its recorded name.

    Topics whose type is not installed are left out, with one warning that names them.

    Raises:
        SourceError: if a wanted topic is not in the bag, or nothing is left to play.
    """

    def __init__(self, node: Node, bag: Bag, config: ReplayConfig) -> None:
        self._bag = bag
        self.name = str(bag.path)
        self._start_ns = bag.start_ns + round(config.start_offset * SECOND_NS)
        end_ns = bag.start_ns + bag.duration_ns
        self._stop_ns = self._start_ns + round(config.duration * SECOND_NS) if config.duration else None
        self.duration_ns = max(0, min(end_ns, self._stop_ns or end_ns) - self._start_ns)
        if self._start_ns > end_ns:
            raise SourceError(
                f"start_offset is {config.start_offset:g} s, but {bag.path} is {bag.duration_ns / SECOND_NS:.3f} s "
                "long; lower start_offset"
            )
        self._publishers: dict[str, Publisher] = {}
        skipped: dict[str, str] = {}
        for topic in _selected_topics(bag, config.wanted_topics):
            try:
                if topic.problem:
                    raise LookupError(topic.problem)
                self._publishers[topic.name] = _create_publisher(
                    node, message_class(topic.type), topic.name, _bag_qos(topic)
                )
            except LookupError as error:
                skipped[topic.name] = str(error.args[0])
        if skipped:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
            node.get_logger().warning(f"Not playing {len(skipped)} of {len(bag.topics)} topics. {reasons}")
        if not self._publishers:
            raise SourceError(f"{bag.path} holds no topic that can be played")
        self.publishers = list(self._publishers.values())
        self.image_publishers = [
            publisher
            for name, publisher in self._publishers.items()
            if bag.topics[name].type in (IMAGE_TYPE, COMPRESSED_TYPE)
        ]

    def items(self) -> Iterator[PlaybackItem]:
        """See `ReplayOutput.items`. Latched messages from before the start come first, at the start."""
        latched = [name for name in self._publishers if self._bag.topics[name].latched]
        for message in self._bag.messages(latched, stop_ns=self._start_ns):
            yield self._item(message.topic.name, self._start_ns, message.data)
        # Without a bound of its own the bag is read whole, and compared with what it announces.
        begin_ns = self._start_ns if self._start_ns > self._bag.start_ns else None
        for message in self._bag.messages(list(self._publishers), begin_ns, self._stop_ns):
            yield self._item(message.topic.name, message.received_ns, message.data)

    def _item(self, topic: str, time_ns: int, data: bytes) -> PlaybackItem:
        return PlaybackItem(time_ns, partial(self._publishers[topic].publish, data))

    def close(self) -> None:
        """See `ReplayOutput.close`."""
        self._bag.close()


class VideoOutput:
    """Publishes frames on ``image`` (raw) or ``image/compressed`` (JPEG), as a camera driver does."""

    def __init__(self, node: Node, source: FrameSource, config: ReplayConfig) -> None:
        self._source = source
        self._config = config
        self._logger = node.get_logger()
        self.name = source.name
        length_s = source.duration_ns / SECOND_NS - config.start_offset
        self.duration_ns = round(max(0.0, min(length_s, config.duration or length_s)) * SECOND_NS)
        topic = node.resolve_topic_name("image")
        self._to_message: Callable[[np.ndarray, Header], Image | CompressedImage]
        if config.image_transport == "compressed":
            message_type: type = CompressedImage
            topic += "/compressed"
            self._to_message = partial(compressed_message, quality=config.jpeg_quality)
        else:
            message_type = Image
            self._to_message = partial(image_message, encoding=config.encoding)
        self._publisher = _create_publisher(node, message_type, topic, QoSProfile(depth=_DEPTH))
        self.publishers = self.image_publishers = [self._publisher]

    def items(self) -> Iterator[PlaybackItem]:
        """See `ReplayOutput.items`. Where stamps continue over a loop, one pass never ends."""
        shift_ns = 0
        while True:
            first_ns: int | None = None
            last_ns = period_ns = 0
            for frame in self._source.frames(self._config.start_offset, self._config.duration or None):
                if first_ns is None:
                    first_ns = frame.stamp_ns
                else:
                    period_ns = frame.stamp_ns - last_ns
                last_ns = frame.stamp_ns
                stamp_ns = frame.stamp_ns + shift_ns
                yield PlaybackItem(stamp_ns, partial(self._publish, frame, stamp_ns))
            if first_ns is None:
                raise SourceError(f"{self.name} has no frame after {self._config.start_offset:g} s; lower start_offset")
            if not (self._config.loop and self._config.continue_stamps):
                return
            shift_ns += last_ns - first_ns + max(period_ns, 1)

    def _publish(self, frame: Frame, stamp_ns: int) -> None:
        try:
            image = frame.image()
        except ImageError as error:
            self._logger.warning(f"Leaving out a frame: {error}")
            return
        header = Header(stamp=time_message(stamp_ns), frame_id=self._config.frame_id)
        self._publisher.publish(self._to_message(image, header))

    def close(self) -> None:
        """See `ReplayOutput.close`."""
        self._source.close()


def message_class(name: str) -> type:
    """The installed class of a message type such as ``sensor_msgs/msg/Image``.

    Raises:
        LookupError: if it is not installed, or is no message type's name.
    """
    match = _TYPE_NAME.fullmatch(name)
    if match is None:
        raise LookupError(f"{name!r} is no message type")
    try:
        found = getattr(importlib.import_module(f"{match[1]}.msg"), match[2])
        # Generated classes load their C type support on first use; a package that was built without fails here.
        found.__class__.__import_type_support__()
    except Exception as error:
        raise LookupError(f"its type {name} is not installed here; install and source {match[1]}") from error
    return found


def image_message(image: np.ndarray, header: Header, encoding: str) -> Image:
    """A raw image message from RGB, uint8 [height, width, 3]."""
    height, width, channels = image.shape
    pixels = image if encoding == "rgb8" else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    message = Image(header=header, height=height, width=width, encoding=encoding, step=width * channels)
    # An array is taken as it is; bytes would be checked value by value.
    message.data = array.array("B", pixels.tobytes())
    return message


def compressed_message(image: np.ndarray, header: Header, quality: int) -> CompressedImage:
    """A JPEG message from RGB, uint8 [height, width, 3]; `quality` from 1 to 100."""
    message = CompressedImage(header=header, format=JPEG_FORMAT)
    message.data = array.array("B", encode_jpeg(image, quality))
    return message


def _selected_topics(bag: Bag, wanted: tuple[str, ...]) -> list[BagTopic]:
    if unknown := [name for name in wanted if name not in bag.topics]:
        raise SourceError(f"{bag.path} has no topic {', '.join(unknown)}; it has {', '.join(bag.topics) or 'none'}")
    return [topic for name, topic in bag.topics.items() if name in wanted or not (wanted or name in _SESSION_TOPICS)]


def _bag_qos(topic: BagTopic) -> QoSProfile:
    """Reliable, so that no recorded message is lost on the way; latched where the recording was."""
    if topic.latched:
        return latched_qos(min(max(topic.count, 1), _LATCHED_DEPTH_LIMIT))
    return QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE)


def _create_publisher(node: Node, message_type: Any, topic: str, qos: QoSProfile) -> Publisher:
    return node.create_publisher(
        message_type, topic, qos, qos_overriding_options=QoSOverridingOptions.with_default_policies()
    )
