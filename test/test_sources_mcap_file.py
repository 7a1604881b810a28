"""MCAP files of other tools than rosbag2, and damaged ones: every message, or the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from mcap_by_hand import HandChannel, images, write_chunked_mcap, write_mcap
from recordings import IMAGE_TOPIC, PERIOD_NS, image_message, rgb_image, stamp_ns, write_bag

from fvs_ros.sources import bags, storage
from fvs_ros.sources.bags import Bag, SourceError
from fvs_ros.sources.recordings import open_source

# A protobuf schema is a binary FileDescriptorSet: no text in any encoding.
PROTOBUF = HandChannel(
    "/boxes", "foxglove.ImageAnnotations", "protobuf", b"\x0a\xff\xfe\x80", "protobuf", [(stamp_ns(1), b"\x0a\x01x")]
)
JSON = HandChannel("/note", "Note", "jsonschema", b"{}", "json", [(stamp_ns(0), b'{"a": 1}')])
WITHOUT_SCHEMA = HandChannel("/bare", "", "", b"", "json", [(stamp_ns(2), b"{}")])


def check_frames(path: Path, frames: int = 6) -> None:
    source = open_source(path)
    found = list(source.frames())
    assert [frame.stamp_ns for frame in found] == [stamp_ns(index) for index in range(frames)]
    for index, frame in enumerate(found):
        np.testing.assert_array_equal(frame.image(), rgb_image(index))
    assert (source.start_ns, source.duration_ns) == (stamp_ns(0), (frames - 1) * PERIOD_NS)
    assert source.frame_count == frames
    source.close()


@pytest.mark.parametrize(
    ("profile", "type_name", "encoding"),
    [
        ("ros2", "sensor_msgs/msg/Image", "cdr"),
        ("", "sensor_msgs/msg/Image", "cdr"),
        ("", "sensor_msgs/Image", "cdr"),
        ("", "sensor_msgs::msg::dds_::Image_", "cdr"),
        ("x-own", "sensor_msgs/msg/Image", ""),
        ("ros1", "sensor_msgs/Image", "ros1"),
    ],
)
def test_every_profile(tmp_path: Path, profile: str, type_name: str, encoding: str) -> None:
    check_frames(write_mcap(tmp_path / "x.mcap", [images(type_name=type_name, encoding=encoding)], profile))


@pytest.mark.parametrize("other", [PROTOBUF, JSON, WITHOUT_SCHEMA])
@pytest.mark.parametrize("write", [write_mcap, write_chunked_mcap])
def test_topics_of_other_tools_are_left_out(
    tmp_path: Path, write: Callable[[Path, Sequence[HandChannel]], Path], other: HandChannel
) -> None:
    path = write(tmp_path / "x.mcap", [images(), other])
    check_frames(path)
    with Bag(path) as bag:
        assert f"its messages are {other.encoding}" in bag.topics[other.topic].problem
        assert bag.topics[other.topic].count == 1


def test_an_image_topic_of_another_tool_is_named_with_its_encoding(tmp_path: Path) -> None:
    channel = HandChannel("/cam", "foxglove.CompressedImage", "flatbuffer", b"x", "flatbuffer", [(stamp_ns(0), b"1")])
    path = write_mcap(tmp_path / "x.mcap", [channel])
    with pytest.raises(SourceError, match=r"/cam \(foxglove\.CompressedImage: its messages are flatbuffer"):
        open_source(path)
    with pytest.raises(SourceError, match=r"/cam cannot be read: its messages are flatbuffer"):
        open_source(path, "/cam")


@pytest.mark.parametrize("compression", ["", "lz4", "zstd"])
def test_chunks_without_an_index_of_their_messages(tmp_path: Path, compression: str) -> None:
    check_frames(write_chunked_mcap(tmp_path / "x.mcap", [images(), JSON], compression=compression))


def test_messages_without_chunks_under_a_summary(tmp_path: Path) -> None:
    check_frames(write_mcap(tmp_path / "x.mcap", [images(), JSON], summary=True))


def test_messages_out_of_order_come_by_time(tmp_path: Path) -> None:
    shuffled = [5, 0, 3, 1, 4, 2]
    check_frames(write_mcap(tmp_path / "loose.mcap", [images(shuffled)]))
    check_frames(write_chunked_mcap(tmp_path / "chunked.mcap", [images(shuffled)]))


def test_a_recording_that_was_not_closed_gives_its_messages_and_then_says_so(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "x.mcap", [images()], end=False)
    frames = open_source(path).frames()
    seen = [next(frames).stamp_ns for _ in range(6)]
    assert seen == [stamp_ns(index) for index in range(6)]
    with pytest.raises(SourceError, match=r"to its end: it was not closed.*mcap recover"):
        next(frames)


def test_a_recording_that_was_cut_off_gives_its_whole_messages_and_then_says_so(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "x.mcap", [images()], end=False)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    frames = open_source(path).frames()
    assert [next(frames).stamp_ns for _ in range(5)] == [stamp_ns(index) for index in range(5)]
    with pytest.raises(SourceError, match=rf"cut off at byte \d+ of {len(content) - 100} .*mcap recover"):
        next(frames)


def test_a_recording_without_a_whole_message(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "x.mcap", [images([0])], end=False)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match=r"cannot read .*x\.mcap to its end: it is damaged or cut off"):
        open_source(path)


def test_a_damaged_chunk_ends_the_frames_there(tmp_path: Path) -> None:
    path = write_chunked_mcap(tmp_path / "x.mcap", [images(range(40))], damaged_chunk=10)
    frames = open_source(path).frames()
    assert [next(frames).stamp_ns for _ in range(20)] == [stamp_ns(index) for index in range(20)]
    with pytest.raises(
        SourceError, match=r"crc validation failed in Chunk, expected: \d+, calculated: \d+; .*mcap recover"
    ):
        next(frames)


def test_statistics_that_count_more_than_is_there(tmp_path: Path) -> None:
    path = write_chunked_mcap(tmp_path / "x.mcap", [images()], announced=9)
    with Bag(path) as bag:
        messages = bag.messages([IMAGE_TOPIC])
        assert [next(messages).received_ns for _ in range(6)] == [stamp_ns(index) for index in range(6)]
        with pytest.raises(SourceError, match=rf"holds 9 messages on {IMAGE_TOPIC}, but 6 could be read"):
            next(messages)


def test_a_damaged_index_is_done_without(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", 6) / "bag.mcap"
    content = bytearray(path.read_bytes())
    summary = int.from_bytes(content[-28:-20], "little")
    content[summary + 1 : summary + 9] = b"\xff" * 8
    path.write_bytes(content)
    assert [frame.stamp_ns for frame in open_source(path).frames()] == [stamp_ns(index) for index in range(6)]


@pytest.mark.parametrize(("content", "reason"), [(b"", "is empty"), (b"<html>404</html>", "does not begin")])
def test_what_is_no_mcap_file(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.mcap").write_bytes(content)
    with pytest.raises(SourceError, match=rf"cannot read .*x\.mcap: .*{reason}"):
        open_source(tmp_path / "x.mcap")


def test_a_schema_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "x.mcap", [images()])
    content = bytearray(path.read_bytes())
    length = content.index(b"ros2msg") + len(b"ros2msg")
    content[length : length + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"cannot read .*x\.mcap to its end: .*mcap recover"):
        open_source(path)


def test_a_message_that_claims_more_than_its_chunk_holds(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", 6) / "bag.mcap"
    content = bytearray(path.read_bytes())
    # The second message of the first chunk, which is neither compressed nor has a checksum.
    message = content.index(image_message(1)) - 31
    content[message + 1 : message + 9] = (2**31).to_bytes(8, "little")
    path.write_bytes(content)
    with Bag(path) as bag, pytest.raises(SourceError, match=r"exceeds limit \d+; .*mcap recover"):
        list(bag.messages([IMAGE_TOPIC]))


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_chunk_that_holds_more_than_is_taken_at_once(
    tmp_path: Path, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "MOST_MESSAGE_BYTES", 10_000)
    bomb = HandChannel("/x", "std_msgs/msg/String", "ros2msg", b"", "cdr", [(stamp_ns(0), bytes(1_000_000))])
    path = write_chunked_mcap(tmp_path / "x.mcap", [bomb], compression=compression)
    assert path.stat().st_size < 10_000
    with Bag(path) as bag, pytest.raises(SourceError, match="compressed bytes hold more than 10000, the most"):
        list(bag.messages(["/x"]))


def test_a_message_that_is_larger_than_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bags, "MOST_MESSAGE_BYTES", 10_000)
    channel = HandChannel("/x", "std_msgs/msg/String", "ros2msg", b"", "cdr", [(stamp_ns(0), bytes(10_001))])
    path = write_mcap(tmp_path / "x.mcap", [channel])
    with Bag(path) as bag, pytest.raises(SourceError, match="a message on /x takes 10001 bytes; at most 10000"):
        list(bag.messages(["/x"]))
