"""Small recordings for tests: bags written with `rosbags`, and videos written with OpenCV."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from fvs_ros.sources.bag_writer import LATCHED

IMAGE_TOPIC = "/camera/image_raw"
COMPRESSED_TOPIC = "/camera/image_raw/compressed"
ODOMETRY_TOPIC = "/odom"
STATIC_TOPIC = "/map_frame"
UNKNOWN_TOPIC = "/made_up"
START_NS = 1_700_000_000_000_000_005
PERIOD_NS = 50_000_000
HEIGHT, WIDTH = 12, 16


def color(index: int) -> tuple[int, int, int]:
    """The RGB color that fills frame `index`."""
    return (index * 20 % 256, 255 - index * 10 % 256, 128)


def rgb_image(index: int) -> np.ndarray:
    """Frame `index`: one color, uint8 [HEIGHT, WIDTH, 3]."""
    return np.full((HEIGHT, WIDTH, 3), color(index), np.uint8)


def stamp_ns(index: int) -> int:
    """When frame `index` was taken."""
    return START_NS + index * PERIOD_NS


def write_bag(
    path: Path,
    frames: int = 10,
    storage: StoragePlugin = StoragePlugin.MCAP,
    topics: Sequence[str] = (IMAGE_TOPIC,),
    stamps: Sequence[int] | None = None,
    first: int = 0,
    compression: CompressionMode | None = None,
    received: Sequence[int] | None = None,
) -> Path:
    """A rosbag2 bag: each of `topics` once per frame, received 1 ms after the header's stamp.

    Args:
        first: number of the first frame.
        compression: what is compressed, with zstd.
        stamps: header stamps in the order of recording; the default is `stamp_ns` of each frame.
        received: when each was recorded; the default is 1 ms after `stamp_ns`.
    """
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg("std_msgs/Header header\nuint32 number\n", "made_up_msgs/msg/Nothing"))
    types = {
        IMAGE_TOPIC: "sensor_msgs/msg/Image",
        COMPRESSED_TOPIC: "sensor_msgs/msg/CompressedImage",
        ODOMETRY_TOPIC: "geometry_msgs/msg/PoseStamped",
        STATIC_TOPIC: "std_msgs/msg/Header",
        UNKNOWN_TOPIC: "made_up_msgs/msg/Nothing",
    }
    bag = Writer(path, version=9, storage_plugin=storage)
    if compression is not None:
        bag.set_compression(compression, CompressionFormat.ZSTD)
    with bag as writer:
        connections = {
            topic: writer.add_connection(
                topic,
                types[topic],
                typestore=store,
                offered_qos_profiles=[LATCHED] if topic == STATIC_TOPIC else [],
            )
            for topic in topics
        }
        for index in range(first, first + frames):
            stamp = stamp_ns(index) if stamps is None else stamps[index - first]
            received_ns = stamp_ns(index) + 1_000_000 if received is None else received[index - first]
            for topic, connection in connections.items():
                if topic == STATIC_TOPIC and index > first:
                    continue
                message = _message(store, types[topic], index, stamp)
                writer.write(connection, received_ns, store.serialize_cdr(message, types[topic]))
    return path


def write_split_bag(
    path: Path, parts: Sequence[range], storage: StoragePlugin = StoragePlugin.MCAP, topic: str = IMAGE_TOPIC
) -> Path:
    """A rosbag2 bag of several files, named and announced as rosbag2 does it; each has the frames of one range."""
    path.mkdir()
    information: dict[str, Any] = {}
    for number, frames in enumerate(parts):
        part = write_bag(path / "part", len(frames), storage, [topic], first=frames.start)
        name = f"{path.name}_{number}.{'mcap' if storage is StoragePlugin.MCAP else 'db3'}"
        (file,) = (entry for entry in part.iterdir() if entry.name != "metadata.yaml")
        file.rename(path / name)
        own = yaml.safe_load((part / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        shutil.rmtree(part)
        entry = {"path": name, **{key: own[key] for key in ("starting_time", "duration", "message_count")}}
        if not information:
            information = {**own, "relative_file_paths": [name], "files": [entry]}
            continue
        information["relative_file_paths"].append(name)
        information["files"].append(entry)
        information["message_count"] += own["message_count"]
        information["topics_with_message_count"][0]["message_count"] += own["message_count"]
    begin = information["starting_time"]["nanoseconds_since_epoch"]
    last = information["files"][-1]
    end = last["starting_time"]["nanoseconds_since_epoch"] + last["duration"]["nanoseconds"]
    information["duration"] = {"nanoseconds": end - begin}
    write_metadata(path, information)
    return path


def read_metadata(bag: Path) -> dict[str, Any]:
    """What a bag's metadata.yaml says."""
    information: dict[str, Any] = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    return information


def write_metadata(bag: Path, information: dict[str, Any]) -> None:
    """Replaces what a bag's metadata.yaml says."""
    text = yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False)
    (bag / "metadata.yaml").write_text(text)


def write_ros1_bag(path: Path, frames: int = 5) -> Path:
    """A ROS 1 bag with one raw image topic."""
    store = get_typestore(Stores.ROS1_NOETIC)
    name = "sensor_msgs/msg/Image"
    with Writer1(path) as writer:
        connection = writer.add_connection(IMAGE_TOPIC, name, typestore=store)
        for index in range(frames):
            message = _message(store, name, index, stamp_ns(index), seq=index)
            writer.write(connection, stamp_ns(index), store.serialize_ros1(message, name))
    return path


def write_video(path: Path, frames: int = 20, fps: float = 20.0) -> Path:
    """A Motion JPEG video whose frame `index` is filled with gray `10 * index`."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 48))
    assert writer.isOpened(), "this OpenCV cannot write Motion JPEG"
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 10 * index % 256, np.uint8))
    writer.release()
    return path


def image_message(index: int, ros1: bool = False) -> bytes:
    """Frame `index` as a serialised `sensor_msgs/Image`, in CDR or as ROS 1 writes it."""
    name = "sensor_msgs/msg/Image"
    if ros1:
        store = get_typestore(Stores.ROS1_NOETIC)
        return bytes(store.serialize_ros1(_message(store, name, index, stamp_ns(index), seq=index), name))
    store = get_typestore(Stores.ROS2_HUMBLE)
    return bytes(store.serialize_cdr(_message(store, name, index, stamp_ns(index)), name))


def _message(store: Typestore, name: str, index: int, stamp: int, **header: int) -> Any:
    types = store.types
    time = types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    head = types["std_msgs/msg/Header"](stamp=time, frame_id="camera", **header)
    if name == "std_msgs/msg/Header":
        return head
    if name == "sensor_msgs/msg/Image":
        pixels = rgb_image(index)
        return types[name](
            header=head,
            height=HEIGHT,
            width=WIDTH,
            encoding="rgb8",
            is_bigendian=0,
            step=WIDTH * 3,
            data=pixels.reshape(-1),
        )
    if name == "sensor_msgs/msg/CompressedImage":
        _, encoded = cv2.imencode(".png", rgb_image(index)[..., ::-1])
        return types[name](header=head, format="rgb8; png compressed bgr8", data=encoded.reshape(-1))
    if name == "geometry_msgs/msg/PoseStamped":
        point = types["geometry_msgs/msg/Point"](x=float(index), y=0.0, z=0.0)
        turn = types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
        return types[name](header=head, pose=types["geometry_msgs/msg/Pose"](position=point, orientation=turn))
    return types[name](header=head, number=index)
