from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from fvs_ros.sources.bag_writer import (
    IMAGE_TOPIC,
    INFO_TOPIC,
    ODOMETRY_TOPIC,
    STATIC_TF_TOPIC,
    TF_TOPIC,
    BagWriter,
)
from fvs_ros.sources.bags import Bag
from fvs_ros.sources.frame import Pose
from fvs_ros.sources.recordings import open_source

STAMP_NS = 1_700_000_000_000_000_123
POSE = Pose("odom", (1.0, -2.0, 0.5), (0.0, 0.6, 0.0, 0.8))
TOPICS = (IMAGE_TOPIC, INFO_TOPIC, ODOMETRY_TOPIC, TF_TOPIC, STATIC_TF_TOPIC)


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    folder = tmp_path / "bag"
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = (200, 40, 40)
    with BagWriter(folder, TOPICS, jpeg_quality=95) as writer:
        writer.write_transform(STAMP_NS, POSE, "camera", static=True)
        writer.write_transform(STAMP_NS, POSE, "base_link")
        writer.write_odometry(STAMP_NS, POSE, "base_link")
        writer.write_camera_info(STAMP_NS, "camera", (48, 64), focal=50.0)
        writer.write_image(STAMP_NS, "camera", image)
    return folder


def read(folder: Path) -> dict[str, Any]:
    store = get_typestore(Stores.ROS2_HUMBLE)
    found = {}
    with Reader(folder) as reader:
        for connection, received_ns, raw in reader.messages():
            assert received_ns == STAMP_NS
            found[connection.topic] = store.deserialize_cdr(raw, connection.msgtype)
    return found


def test_an_image_comes_back_with_its_stamp_frame_and_colours(bag: Path) -> None:
    source = open_source(bag)
    (frame,) = source.frames()
    source.close()
    assert (frame.stamp_ns, frame.frame_id) == (STAMP_NS, "camera")
    image = frame.image()
    assert image.shape == (48, 64, 3)
    np.testing.assert_allclose(image[24, 8], (200, 40, 40), atol=4)
    np.testing.assert_allclose(image[24, 56], (0, 0, 0), atol=4)


def test_poses_come_back_as_odometry_and_transforms(bag: Path) -> None:
    messages = read(bag)
    odometry = messages[ODOMETRY_TOPIC]
    assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "base_link")
    assert (odometry.header.stamp.sec, odometry.header.stamp.nanosec) == (1_700_000_000, 123)
    assert (odometry.pose.pose.position.y, odometry.pose.pose.orientation.w) == (-2.0, 0.8)
    assert odometry.twist.covariance[0] == -1, "the twist is unknown"
    for topic, child in ((TF_TOPIC, "base_link"), (STATIC_TF_TOPIC, "camera")):
        (transform,) = messages[topic].transforms
        assert (transform.header.frame_id, transform.child_frame_id) == ("odom", child)
        assert (transform.transform.translation.z, transform.transform.rotation.y) == (0.5, 0.6)


def test_camera_info_describes_a_pinhole_camera(bag: Path) -> None:
    info = read(bag)[INFO_TOPIC]
    assert (info.height, info.width) == (48, 64)
    assert info.k.tolist() == [50.0, 0.0, 32.0, 0.0, 50.0, 24.0, 0.0, 0.0, 1.0]
    assert info.p.tolist() == [50.0, 0.0, 32.0, 0.0, 0.0, 50.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def test_only_static_transforms_are_latched_and_only_the_given_topics_are_there(bag: Path, tmp_path: Path) -> None:
    with Bag(bag) as opened:
        assert [name for name, topic in opened.topics.items() if topic.latched] == [STATIC_TF_TOPIC]
    with BagWriter(tmp_path / "images", [IMAGE_TOPIC], jpeg_quality=90) as writer:
        writer.write_image(STAMP_NS, "camera", np.zeros((8, 8, 3), np.uint8))
    with Bag(tmp_path / "images") as opened:
        assert list(opened.topics) == [IMAGE_TOPIC]
