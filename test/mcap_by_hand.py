"""MCAP files as tools other than rosbag2 write them, record by record (mcap.dev/spec)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lz4.frame
from backports import zstd
from recordings import IMAGE_TOPIC, image_message, stamp_ns

MAGIC = b"\x89MCAP0\r\n"
_COMPRESSORS = {"": lambda data: data, "zstd": zstd.compress, "lz4": lz4.frame.compress}


@dataclass(frozen=True)
class HandChannel:
    """One channel with its schema, and its messages: time of receipt (ns) and bytes."""

    topic: str
    type: str
    schema_encoding: str
    schema: bytes
    encoding: str
    messages: Sequence[tuple[int, bytes]]


def images(
    frames: Sequence[int] = range(6), type_name: str = "sensor_msgs/msg/Image", encoding: str = "cdr"
) -> HandChannel:
    """A channel of images that are received at their stamps."""
    messages = [(stamp_ns(index), image_message(index, ros1=encoding == "ros1")) for index in frames]
    return HandChannel(IMAGE_TOPIC, type_name, "ros1msg" if encoding == "ros1" else "ros2msg", b"", encoding, messages)


def write_mcap(
    path: Path, channels: Sequence[HandChannel], profile: str = "ros2", end: bool = True, summary: bool = False
) -> Path:
    """Messages outside of chunks, so that no index gives their places.

    Args:
        end: False makes a file whose recorder was killed.
        summary: of channels and counts, behind the messages.
    """
    data = MAGIC + _record(1, _text(profile) + _text("by hand"))
    data += b"".join([*_declarations(channels), *(message for _, _, message in _messages(channels))])
    if end:
        data += _record(0x0F, struct.pack("<I", 0))
        start = len(data) if summary else 0
        if summary:
            data += b"".join(_declarations(channels)) + _statistics(channels, 0)
        data += _record(2, struct.pack("<QQI", start, 0, 0)) + MAGIC
    path.write_bytes(data)
    return path


def write_chunked_mcap(
    path: Path,
    channels: Sequence[HandChannel],
    chunk_messages: int = 2,
    compression: str = "zstd",
    announced: int | None = None,
    damaged_chunk: int | None = None,
) -> Path:
    """Chunks with an index of chunks, but none of messages, as writers make it that save space.

    Args:
        announced: messages on the first channel, in the statistics, if not those that are there.
        damaged_chunk: number of a chunk whose checksum is wrong.
    """
    data = MAGIC + _record(1, _text("ros2") + _text("by hand"))
    messages = _messages(channels)
    index: list[bytes] = []
    for begin in range(0, len(messages), chunk_messages):
        chunk = messages[begin : begin + chunk_messages]
        raw = b"".join(message for _, _, message in chunk)
        packed = _COMPRESSORS[compression](raw)
        checksum = zlib.crc32(raw) ^ (1 if len(index) == damaged_chunk else 0)
        times = struct.pack("<QQ", min(when for when, _, _ in chunk), max(when for when, _, _ in chunk))
        packed = struct.pack("<Q", len(packed)) + packed
        record = _record(6, times + struct.pack("<QI", len(raw), checksum) + _text(compression) + packed)
        place = struct.pack("<QQIQ", len(data), len(record), 0, 0)
        index.append(_record(8, times + place + _text(compression) + struct.pack("<QQ", len(packed) - 8, len(raw))))
        data += record
    data += _record(0x0F, struct.pack("<I", 0))
    start = len(data)
    data += b"".join(_declarations(channels)) + b"".join(index) + _statistics(channels, len(index), announced)
    path.write_bytes(data + _record(2, struct.pack("<QQI", start, 0, 0)) + MAGIC)
    return path


def _statistics(channels: Sequence[HandChannel], chunks: int, first: int | None = None) -> bytes:
    """The record of counts; `first` replaces that of the first channel."""
    counts = {number: len(channel.messages) for number, channel in enumerate(channels, 1)}
    if first is not None:
        counts[1] = first
    times = [when for channel in channels for when, _ in channel.messages]
    table = b"".join(struct.pack("<HQ", number, count) for number, count in counts.items())
    head = struct.pack("<QHIIII", sum(counts.values()), len(channels), len(channels), 0, 0, chunks)
    return _record(11, head + struct.pack("<QQI", min(times), max(times), len(table)) + table)


def _declarations(channels: Sequence[HandChannel]) -> list[bytes]:
    records = []
    for number, channel in enumerate(channels, 1):
        schema = struct.pack("<I", len(channel.schema)) + channel.schema
        head = struct.pack("<H", number) + _text(channel.type) + _text(channel.schema_encoding)
        records.append(_record(3, head + schema))
        ids = struct.pack("<HH", number, number)
        records.append(_record(4, ids + _text(channel.topic) + _text(channel.encoding) + struct.pack("<I", 0)))
    return records


def _messages(channels: Sequence[HandChannel]) -> list[tuple[int, int, bytes]]:
    """Time, number in its channel and record of each message, in the order of the channels' numbers in turn."""
    found = []
    for number, channel in enumerate(channels, 1):
        for place, (when, data) in enumerate(channel.messages):
            found.append((when, place, _record(5, struct.pack("<HIQQ", number, place, when, when) + data)))
    return sorted(found, key=lambda entry: entry[1])


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data


def _record(kind: int, content: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(content)) + content
