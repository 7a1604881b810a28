"""Frame sources: what comes out of bags, videos and image folders, and what is said about bad ones."""

from __future__ import annotations

import os
import re
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings import (
    COMPRESSED_TOPIC,
    HEIGHT,
    IMAGE_TOPIC,
    ODOMETRY_TOPIC,
    PERIOD_NS,
    START_NS,
    UNKNOWN_TOPIC,
    WIDTH,
    image_message,
    rgb_image,
    stamp_ns,
    write_bag,
    write_ros1_bag,
    write_video,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from fvs_ros.sources.bags import Bag, BagMessage, BagTopic, SourceError
from fvs_ros.sources.frame import SECOND_NS, Frame, ImageError
from fvs_ros.sources.recordings import IMAGE_TYPE, bag_frame, open_source


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("topic", [IMAGE_TOPIC, COMPRESSED_TOPIC])
def test_bag_frames_have_stamps_and_pixels(tmp_path: Path, storage: StoragePlugin, topic: str) -> None:
    path = write_bag(tmp_path / "bag", 10, storage, [ODOMETRY_TOPIC, topic, UNKNOWN_TOPIC])
    source = open_source(path)
    frames = list(source.frames())
    source.close()
    assert [frame.stamp_ns for frame in frames] == [stamp_ns(i) for i in range(10)]
    assert {frame.frame_id for frame in frames} == {"camera"}
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image(), rgb_image(index))
    assert source.frame_count == 10
    assert source.duration_ns == 9 * PERIOD_NS
    assert source.start_ns == START_NS + 1_000_000


def test_storage_file_alone_is_a_bag(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", 4)
    assert len(list(open_source(path / "bag.mcap").frames())) == 4


def test_ros1_bag(tmp_path: Path) -> None:
    source = open_source(write_ros1_bag(tmp_path / "old.bag"))
    frames = list(source.frames())
    assert [frame.stamp_ns for frame in frames] == [stamp_ns(i) for i in range(5)]
    np.testing.assert_array_equal(frames[3].image(), rgb_image(3))
    assert frames[3].frame_id == "camera"


def test_offset_and_duration(tmp_path: Path) -> None:
    source = open_source(write_bag(tmp_path / "bag", 10))
    stamps = [frame.stamp_ns for frame in source.frames(start_offset_s=0.1, duration_s=0.2)]
    assert stamps == [stamp_ns(i) for i in range(2, 6)]
    assert len(list(source.frames())) == 10  # and once more from the beginning


def test_swapped_stamps_are_put_in_order(tmp_path: Path) -> None:
    stamps = [stamp_ns(i) for i in (0, 2, 1, 3, 5, 4)]
    source = open_source(write_bag(tmp_path / "bag", 6, stamps=stamps))
    assert [frame.stamp_ns for frame in source.frames()] == sorted(stamps)


def test_jump_back_stays_a_jump_back(tmp_path: Path) -> None:
    stamps = [stamp_ns(i) for i in (100, 101, 102, 0, 2, 1)]
    source = open_source(write_bag(tmp_path / "bag", 6, stamps=stamps))
    assert [frame.stamp_ns for frame in source.frames()] == [stamp_ns(i) for i in (100, 101, 102, 0, 1, 2)]


def write_seconds(path: Path, count: int, off_s: Mapping[int, float]) -> Path:
    """A bag of one frame a second, its stamps off by so many seconds, recorded on time."""
    stamps = [START_NS + round((index + off_s.get(index, 0.0)) * SECOND_NS) for index in range(count)]
    return write_bag(path, count, stamps=stamps, received=[START_NS + index * SECOND_NS for index in range(count)])


def seconds_of(frames: Iterable[Frame]) -> list[float]:
    return [(frame.stamp_ns - START_NS) / SECOND_NS for frame in frames]


@pytest.mark.parametrize("off_s", [600.0, -600.0, 4.4, 3.15e8])
def test_a_wrong_stamp_is_left_out_and_noted(tmp_path: Path, off_s: float) -> None:
    source = open_source(write_seconds(tmp_path / "bag", 20, {10: off_s}))
    assert seconds_of(source.frames()) == [float(index) for index in range(20) if index != 10]
    (note,) = source.notes
    assert note.startswith(f"a frame was left out: its stamp {START_NS / SECOND_NS + 10 + off_s:.3f} s is wrong")


def test_a_first_stamp_from_before_the_clock_was_set_is_left_out(tmp_path: Path) -> None:
    source = open_source(write_seconds(tmp_path / "bag", 20, {0: 5.0 - START_NS / SECOND_NS}))
    assert seconds_of(source.frames()) == [float(index) for index in range(1, 20)]
    (note,) = source.notes
    assert note.startswith("a frame was left out: its stamp 5.000 s is wrong")


@pytest.mark.parametrize(("off_s", "end"), [(-3600.0, "a new memory begins"), (3600.0, "the memory goes on")])
def test_a_clock_that_was_set_is_noted_with_what_it_does(tmp_path: Path, off_s: float, end: str) -> None:
    source = open_source(write_seconds(tmp_path / "bag", 30, dict.fromkeys(range(10, 30), off_s)))
    assert len(list(source.frames())) == 30
    (note,) = source.notes
    assert note.startswith(f"the stream's clock moved by {off_s + 1:+.3f} s")
    assert note.endswith(f": {end} there")


def test_unstamped_header_takes_the_recording_time(tmp_path: Path) -> None:
    source = open_source(write_bag(tmp_path / "bag", 3, stamps=[0, 0, 0]))
    assert [frame.stamp_ns for frame in source.frames()] == [stamp_ns(i) + 1_000_000 for i in range(3)]


def test_frames_are_decoded_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(write_bag(tmp_path / "bag", 5, topics=[COMPRESSED_TOPIC]))

    def refuse(*_: object) -> None:
        raise AssertionError("decoded too early")

    monkeypatch.setattr(cv2, "imdecode", refuse)
    assert len(list(source.frames())) == 5


def test_reading_holds_few_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first frame comes after a short look-ahead, not after the whole bag."""
    read = 0
    bag_messages = Bag.messages

    def counted(*args: object, **options: object):  # type: ignore[no-untyped-def]
        nonlocal read
        for message in bag_messages(*args, **options):  # type: ignore[arg-type]
            read += 1
            yield message

    monkeypatch.setattr(Bag, "messages", counted)
    source = open_source(write_bag(tmp_path / "bag", 100))
    next(source.frames())
    assert read < 20


def test_several_image_topics_are_all_named(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", 3, topics=[IMAGE_TOPIC, COMPRESSED_TOPIC, ODOMETRY_TOPIC])
    with pytest.raises(SourceError, match="2 image topics") as caught:
        open_source(path)
    named = [topic for topic in (IMAGE_TOPIC, COMPRESSED_TOPIC, ODOMETRY_TOPIC) if f"{topic} (" in str(caught.value)]
    assert named == [IMAGE_TOPIC, COMPRESSED_TOPIC]
    assert open_source(path, COMPRESSED_TOPIC.lstrip("/")).frame_count == 3
    with pytest.raises(SourceError, match=r"no image topic /nowhere; choose one of: /camera"):
        open_source(path, "/nowhere")


def test_no_image_topic(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", 3, topics=[ODOMETRY_TOPIC])
    with pytest.raises(SourceError, match=r"no image topic; it holds /odom"):
        open_source(path)


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.mcap does not exist; give"):
        open_source(tmp_path / "nowhere.mcap")


def test_folder_that_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match=r"holds no bag .* and no image"):
        open_source(tmp_path)


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_truncated_storage(tmp_path: Path, storage: StoragePlugin) -> None:
    path = write_bag(tmp_path / "bag", 50, storage)
    file = next(entry for entry in path.iterdir() if entry.suffix in {".mcap", ".db3"})
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=f"cannot read {path}"):
        list(open_source(path).frames())


@pytest.mark.parametrize("name", ["random.mcap", "random.db3", "random.bag", "random.mp4"])
def test_file_that_is_something_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(SourceError, match=str(path)):
        open_source(path)


def test_malformed_message_is_an_image_error(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", 1, StoragePlugin.SQLITE3)
    with sqlite3.connect(path / "bag.db3") as database:
        database.execute("UPDATE messages SET data = x'00010000'")
    (frame,) = open_source(path).frames()
    with pytest.raises(ImageError, match="cannot be deserialised"):
        frame.image()


def test_image_folder_in_natural_order(tmp_path: Path) -> None:
    for index in (0, 2, 10):
        cv2.imwrite(str(tmp_path / f"{index}.png"), rgb_image(index)[..., ::-1])
    source = open_source(tmp_path, fps=2.0, start_ns=7)
    frames = list(source.frames())
    assert [frame.stamp_ns for frame in frames] == [7, 500_000_007, 1_000_000_007]
    np.testing.assert_array_equal(frames[2].image(), rgb_image(10))
    assert frames[0].image().shape == (HEIGHT, WIDTH, 3)
    assert [frame.stamp_ns for frame in source.frames(0.5, 0.5)] == [500_000_007]


def test_image_folder_with_a_broken_image(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no image")
    (frame,) = open_source(tmp_path).frames()
    with pytest.raises(ImageError, match=r"0\.png"):
        frame.image()


# A header of 54 bytes that claims 20,000 x 20,000 pixels.
HUGE_BMP = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 20_000, 20_000, 1, 24, 0, 0, 0, 0, 0, 0)


def test_a_picture_that_claims_too_much_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "0.bmp").write_bytes(HUGE_BMP + bytes(10_000))
    (tmp_path / "1.png").touch()
    os.truncate(tmp_path / "1.png", 2**40)
    # In a process of its own, where OpenCV is loaded as in `fvs`.
    code = (
        "import sys, pathlib\n"
        "from fvs_ros.sources.recordings import open_source\n"
        "for frame in open_source(pathlib.Path(sys.argv[1])).frames():\n"
        "    try:\n"
        "        frame.image()\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error.reason, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        f"ImageError too_large {tmp_path}/0.bmp has more than 67108864 pixels; scale it down",
        f"ImageError too_large {tmp_path}/1.png is {2**40} bytes long; at most 536870912 are taken, so scale it down",
    ]


def test_a_recorded_image_with_an_endless_frame_id_is_left_out(tmp_path: Path) -> None:
    data = bytearray(image_message(0))
    length = len(data)
    (old,) = struct.unpack_from("<I", data, 12)
    data[12 : 16 + old] = struct.pack("<I", 100_001) + b"x" * 100_000 + b"\0"
    frame = bag_frame(BagMessage(BagTopic("/x", IMAGE_TYPE, 1, False), 5, bytes(data)))
    assert (frame.frame_id, frame.held_bytes) == ("", 0)
    with pytest.raises(ImageError, match="frame_id has 100000 characters; at most 255 are taken"):
        frame.image()
    frame = bag_frame(BagMessage(BagTopic("/x", IMAGE_TYPE, 1, False), 5, image_message(0)))
    assert frame.held_bytes == length


def test_a_rate_of_zero_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), rgb_image(0))
    for path in (tmp_path, write_video(tmp_path / "clip.avi", 2)):
        for fps in (0.0, 1e-320, 1e300):
            with pytest.raises(SourceError, match=re.escape(f"fps is {fps}; it must be from 1e-06 to 1e+06")):
                open_source(path, fps=fps)


def test_topic_of_a_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no bag"):
        open_source(write_video(tmp_path / "clip.avi", 2), topic="/camera")


def test_static_transforms_are_latched_whatever_the_recorder_noted_down(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS2_HUMBLE)
    message_type = "tf2_msgs/msg/TFMessage"
    data = store.serialize_cdr(store.types[message_type](transforms=[]), message_type)
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic in ("/tf", "/robot/tf_static"):
            writer.write(writer.add_connection(topic, message_type, typestore=store), 1, data)
    with Bag(tmp_path / "bag") as opened:
        assert {name: topic.latched for name, topic in opened.topics.items()} == {
            "/tf": False,
            "/robot/tf_static": True,
        }
