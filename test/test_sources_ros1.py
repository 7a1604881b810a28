"""ROS 1 types: which have an equal in ROS 2, and under which name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from fvs_ros.sources import storage
from fvs_ros.sources.bags import Bag, SourceError
from fvs_ros.sources.ros1 import Ros1Types


def test_transforms_get_the_name_that_ros_2_gives_them(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    name = "tf/msg/tfMessage"
    store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms\n", name))
    types = store.types
    header = types["std_msgs/msg/Header"](
        seq=3, stamp=types["builtin_interfaces/msg/Time"](sec=5, nanosec=6), frame_id="map"
    )
    transform = types["geometry_msgs/msg/Transform"](
        translation=types["geometry_msgs/msg/Vector3"](x=1.0, y=2.0, z=3.0),
        rotation=types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
    )
    stamped = types["geometry_msgs/msg/TransformStamped"](header=header, child_frame_id="base", transform=transform)
    with Writer(tmp_path / "old.bag") as writer:
        connection = writer.add_connection("/tf", name, typestore=store)
        writer.write(connection, 7, store.serialize_ros1(types[name](transforms=[stamped]), name))
    with Bag(tmp_path / "old.bag") as bag:
        assert bag.topics["/tf"].type == "tf2_msgs/msg/TFMessage"
        (message,) = bag.messages(["/tf"])
    decoded: Any = get_typestore(Stores.ROS2_HUMBLE).deserialize_cdr(message.data, message.topic.type)
    (read,) = decoded.transforms
    assert (read.header.stamp.sec, read.header.frame_id, read.child_frame_id) == (5, "map", "base")
    assert (read.transform.translation.z, read.transform.rotation.w) == (3.0, 1.0)


def test_types_without_an_equal_are_refused_with_the_reason() -> None:
    with pytest.raises(LookupError, match="own_msgs/msg/Thing has no ROS 2 twin"):
        Ros1Types().converter("own_msgs/msg/Thing", "int32 number\n")
    with pytest.raises(LookupError, match="the fields of visualization_msgs/msg/Marker differ between ROS 1 and ROS 2"):
        Ros1Types().converter("visualization_msgs/msg/Marker", "")


@pytest.mark.parametrize("compression", [Writer.CompressionFormat.BZ2, Writer.CompressionFormat.LZ4])
def test_a_chunk_that_holds_more_than_is_taken_at_once(
    tmp_path: Path, compression: Writer.CompressionFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    name = "std_msgs/msg/String"
    writer = Writer(tmp_path / "old.bag")
    writer.set_compression(compression)
    with writer:
        connection = writer.add_connection("/x", name, typestore=store)
        writer.write(connection, 7, store.serialize_ros1(store.types[name](data="x" * 9_000), name))
    with Bag(tmp_path / "old.bag") as bag:
        assert [len(message.data) for message in bag.messages(["/x"])] == [9_009]
    monkeypatch.setattr(storage, "MOST_MESSAGE_BYTES", 1_000)
    with Bag(tmp_path / "old.bag") as bag, pytest.raises(SourceError, match="hold more than 1000, the most"):
        list(bag.messages(["/x"]))
