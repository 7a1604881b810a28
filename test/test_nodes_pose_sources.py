"""Poses from tf, with a tf2_ros of the test's own, since PyPI has none; odometry is tested over DDS with the images."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from conftest import require_ros

require_ros()
import rclpy
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor

from fvs_ros.nodes.parameters import NodeSettings
from fvs_ros.nodes.pose_sources import NoPoses, create_pose_source
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.sources.images import MAX_FRAME_ID
from fvs_ros.stream.types import Pose

PATIENCE_S = 30.0
SETTINGS = NodeSettings()
TF = replace(SETTINGS, pose_source="tf", pose_frame="map", pose_tolerance_s=0.2)


class NoTransformError(Exception):
    pass


@pytest.fixture
def node(ros_domain_id: int) -> Iterator[Any]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain_id)
    node = rclpy.create_node("tested", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture
def tf(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Records how tf2_ros is used; `transform` is what a look-up finds."""
    record = SimpleNamespace(lookups=[], cleared=0, unregistered=0, transform=None)

    class Buffer:
        def __init__(self, cache_time: Any) -> None:
            record.cache_s = cache_time.nanoseconds / 1e9

        def lookup_transform(self, target: str, source: str, time: Any, timeout: Any) -> TransformStamped:
            record.lookups.append((target, source, time.nanoseconds, timeout.nanoseconds))
            if record.transform is None:
                raise NoTransformError("no such frame")
            return record.transform

        def clear(self) -> None:
            record.cleared += 1

    class TransformListener:
        def __init__(self, buffer: Buffer, node: Any) -> None:
            record.listened = node

        def unregister(self) -> None:
            record.unregistered += 1

    module = ModuleType("tf2_ros")
    vars(module).update(Buffer=Buffer, TransformListener=TransformListener, TransformException=NoTransformError)
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    return record


def test_by_default_there_are_no_poses(node: Any) -> None:
    assert isinstance(create_pose_source(node, SETTINGS), NoPoses)
    assert NoPoses().at(1, "camera") is None


def test_tf_is_asked_for_the_camera_at_the_images_stamp(node: Any, tf: SimpleNamespace) -> None:
    tf.transform = TransformStamped()
    tf.transform.transform.translation.x = 4.0
    tf.transform.transform.rotation.z, tf.transform.transform.rotation.w = 0.6, 0.8
    source = create_pose_source(node, TF)
    assert tf.listened is node
    assert source.at(1_500_000_007, "camera_optical") == Pose("map", (4.0, 0.0, 0.0), (0.0, 0.0, 0.6, 0.8))
    assert tf.lookups == [("map", "camera_optical", 1_500_000_007, 200_000_000)]
    source.close()
    assert tf.unregistered == 1


def test_a_missing_transform_means_no_pose(node: Any, tf: SimpleNamespace) -> None:
    source = create_pose_source(node, TF)
    assert source.at(1, "camera") is None
    source.close()


def test_where_tf2_ros_is_missing_the_error_says_what_to_do(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    with pytest.raises(ValueError, match=r"pose_source is tf.*set pose_source to odometry or none"):
        create_pose_source(node, TF)


def test_odometry_with_an_endless_frame_id_is_not_kept(node: Any) -> None:
    """The second message shows that the first one, of another stamp, has been seen."""
    source = create_pose_source(node, replace(SETTINGS, pose_source="odometry", pose_tolerance_s=0.0))
    publisher = node.create_publisher(Odometry, "odom", 10)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    def wait_for(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition() and time.monotonic() < deadline:
            executor.spin_once(0.05)
        assert condition()

    wait_for(publisher.get_subscription_count)
    for second, frame_id in ((1, "o" * (MAX_FRAME_ID + 1)), (2, "o" * MAX_FRAME_ID)):
        message = Odometry()
        message.header.stamp.sec, message.header.frame_id = second, frame_id
        message.pose.pose.orientation.w = 1.0
        publisher.publish(message)
    wait_for(lambda: source.at(2 * SECOND_NS, "camera"))
    assert source.at(1 * SECOND_NS, "camera") is None
    source.close()
