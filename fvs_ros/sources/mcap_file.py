"""MCAP files of any recorder and profile (mcap.dev/spec): by their index, or without one from end to end.

rosbags reads the profile ``ros2`` alone, and no file that holds a topic of another tool.
"""

from __future__ import annotations

import heapq
import os
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lz4.frame  # type: ignore[import-untyped]

from fvs_ros.sources.storage import CDR, END_OF_TIME_NS, ROS1, Channel, StorageError, is_latched, ros2_type

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"\x89MCAP0\r\n"
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _CHUNK_INDEX, _STATISTICS, _DATA_END = (
    1,
    2,
    3,
    4,
    5,
    6,
    8,
    11,
    15,
)
_PREFIX = struct.Struct("<BQ")  # What each record begins with: its kind and the length of its content.
_FOOTER_BYTES = _PREFIX.size + 20
_MESSAGE_HEADER = struct.Struct("<HIQQ")  # Channel, sequence, times of receipt and publication.


class _Fields:
    """Reads a record's content from front to back."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def numbers(self, layout: str) -> tuple[int, ...]:
        found = struct.unpack_from(f"<{layout}", self._content, self._at)
        self._at += struct.calcsize(f"<{layout}")
        return found

    def blob(self, length: int | None = None) -> bytes:
        (length,) = self.numbers("I") if length is None else (length,)
        if self._at + length > len(self._content):
            raise StorageError(f"a record of {len(self._content)} bytes claims {self._at + length}")
        self._at += length
        return self._content[self._at - length : self._at]

    def text(self) -> str:
        return self.blob().decode("utf-8", errors="replace")

    def mapping(self) -> dict[str, str]:
        inner = _Fields(self.blob())
        found = {}
        while inner._at < len(inner._content):
            key = inner.text()
            found[key] = inner.text()
        return found


@dataclass(frozen=True)
class _Block:
    """A chunk, or a message outside of chunks: a piece of the file that is read as one.

    Attributes:
        channels: ids of the channels of which it has messages; empty if that is not known.
    """

    start_ns: int
    end_ns: int
    offset: int
    channels: frozenset[int] = frozenset()


@dataclass
class _Contents:
    schemas: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    channels: dict[int, tuple[int, str, str, bool]] = field(default_factory=dict)  # schema, topic, encoding, latched
    counts: Counter[int] = field(default_factory=Counter)
    blocks: list[_Block] = field(default_factory=list)
    start_ns: int = END_OF_TIME_NS
    end_ns: int = 0

    def declare(self, kind: int, content: bytes) -> None:
        """Takes a schema or a channel; leaves other records out."""
        if kind == _SCHEMA:
            fields = _Fields(content)
            (number,) = fields.numbers("H")
            name, _encoding = fields.text(), fields.text()
            self.schemas[number] = (name, fields.blob())
        elif kind == _CHANNEL:
            fields = _Fields(content)
            number, schema = fields.numbers("HH")
            topic, encoding, metadata = fields.text(), fields.text(), fields.mapping()
            latched = is_latched(metadata.get("offered_qos_profiles", "")) or metadata.get("latching") == "1"
            self.channels[number] = (schema, topic, encoding, latched)

    def count(self, content: bytes) -> int:
        """Takes a message; returns when it was received."""
        channel, _, received_ns, _ = _MESSAGE_HEADER.unpack_from(content)
        self.counts[channel] += 1
        self.start_ns, self.end_ns = min(self.start_ns, received_ns), max(self.end_ns, received_ns)
        return int(received_ns)


class McapFile:
    """An MCAP file. One that was never closed is read as far as its records are whole, and `damage` says so.

    Raises:
        StorageError: if it is no MCAP file.
    """

    def __init__(self, path: Path) -> None:
        self.damage = ""
        self._file = path.open("rb", buffering=0)
        try:
            contents = self._describe()
        except BaseException:
            self.close()
            raise
        self._blocks = sorted(contents.blocks, key=lambda block: (block.start_ns, block.offset))
        self.start_ns, self.end_ns = contents.start_ns, contents.end_ns
        self.channels = [
            self._channel(number, contents.counts[number], contents) for number in sorted(contents.channels)
        ]

    def _channel(self, number: int, count: int, contents: _Contents) -> Channel:
        schema, topic, encoding, latched = contents.channels[number]
        name, definition = contents.schemas.get(schema, ("", b""))
        encoding = encoding or (ROS1 if self._profile == ROS1 else CDR)
        text = definition.decode("utf-8", errors="replace") if encoding == ROS1 else ""
        return Channel(number, topic, ros2_type(name), encoding, count, latched, text)

    def _describe(self) -> _Contents:
        size = os.fstat(self._file.fileno()).st_size
        if not size:
            raise StorageError("the file is empty; copy it again")
        if self._bytes(0, len(MAGIC)) != MAGIC:
            raise StorageError("it does not begin as an MCAP file does; copy it again")
        kind, header, begin = self._record(len(MAGIC), size)
        if kind != _HEADER:
            raise StorageError(f"its first record is of kind {kind}, a header (1) expected; copy it again")
        self._profile = _Fields(header).text()
        end = size - len(MAGIC) - _FOOTER_BYTES
        if end >= begin and self._bytes(size - len(MAGIC), len(MAGIC)) == MAGIC:
            contents = self._read_summary(end)
            return contents or self._scan(begin, end)
        contents = self._scan(begin, size)
        self.damage = self.damage or "it was not closed, as after a recorder that was killed"
        return contents

    def _read_summary(self, footer: int) -> _Contents | None:
        """What the index says; None if it is absent, damaged, or does not give the place of every message."""
        contents = _Contents()
        announced: tuple[int, ...] = ()
        try:
            _, content, _ = self._record(footer, footer + _FOOTER_BYTES)
            (at,) = _Fields(content).numbers("Q")
            while at and at < footer:
                kind, content, at = self._record(at, footer)
                contents.declare(kind, content)
                fields = _Fields(content)
                if kind == _CHUNK_INDEX:
                    start_ns, end_ns, offset, _ = fields.numbers("QQQQ")
                    offsets = fields.blob()
                    channels = frozenset(channel for channel, _ in struct.iter_unpack("<HQ", offsets))
                    contents.blocks.append(_Block(start_ns, end_ns, offset, channels))
                elif kind == _STATISTICS:
                    announced = fields.numbers("QHIIIIQQ")
                    contents.counts.update(dict(struct.iter_unpack("<HQ", fields.blob())))
        except (StorageError, struct.error, EOFError):
            return None
        if not announced or announced[5] != len(contents.blocks) or not contents.blocks:
            return None
        if announced[0] != contents.counts.total() or not contents.counts.keys() <= contents.channels.keys():
            return None
        if announced[0]:
            contents.start_ns = min(block.start_ns for block in contents.blocks)
            contents.end_ns = max(block.end_ns for block in contents.blocks)
        return contents

    def _scan(self, begin: int, end: int) -> _Contents:
        """Reads the whole file; stops at the first record that is cut off or damaged, and remembers that."""
        contents = _Contents()
        at = begin
        while at < end:
            try:
                kind, content, after = self._record(at, end)
                if kind in (_DATA_END, _FOOTER):
                    break
                if kind == _MESSAGE:
                    received_ns = contents.count(content)
                    contents.blocks.append(_Block(received_ns, received_ns, at))
                elif kind == _CHUNK:
                    start_ns, end_ns = _Fields(content).numbers("QQ")
                    for inner_kind, inner in _records(_decompressed(content)):
                        contents.declare(inner_kind, inner)
                        if inner_kind == _MESSAGE:
                            contents.count(inner)
                    contents.blocks.append(_Block(start_ns, end_ns, at))
                else:
                    contents.declare(kind, content)
            except (StorageError, struct.error, EOFError, RuntimeError, zstd.ZstdError) as error:
                self.damage = f"it is damaged or cut off at byte {at} of {end} ({error})"
                break
            at = after
        return contents

    def messages(self, channels: Collection[int], start_ns: int, stop_ns: int) -> Iterator[tuple[int, int, bytes]]:
        """See `StorageFile.messages`. Holds the blocks that overlap in time."""
        wanted = frozenset(channels)
        pending: list[tuple[int, int, int, int, bytes]] = []
        for block in self._blocks:
            if block.end_ns < start_ns or block.start_ns >= stop_ns or (block.channels and not block.channels & wanted):
                continue
            while pending and pending[0][0] < block.start_ns:
                received_ns, _, _, channel, data = heapq.heappop(pending)
                yield channel, received_ns, data
            for number, content in enumerate(self._block(block)):
                channel, _, received_ns, _ = _MESSAGE_HEADER.unpack_from(content)
                if channel in wanted and start_ns <= received_ns < stop_ns:
                    data = content[_MESSAGE_HEADER.size :]
                    heapq.heappush(pending, (received_ns, block.offset, number, channel, data))
        while pending:
            received_ns, _, _, channel, data = heapq.heappop(pending)
            yield channel, received_ns, data

    def _block(self, block: _Block) -> Iterator[bytes]:
        kind, content, _ = self._record(block.offset, os.fstat(self._file.fileno()).st_size)
        if kind == _MESSAGE:
            yield content
        elif kind == _CHUNK:
            yield from (inner for inner_kind, inner in _records(_decompressed(content)) if inner_kind == _MESSAGE)
        else:
            raise StorageError(f"its index names a chunk at byte {block.offset}, where a record of kind {kind} is")

    def _bytes(self, offset: int, length: int) -> bytes:
        # Reading at an offset leaves no position behind that another reading could disturb.
        parts, missing = [], length
        while missing:
            part = os.pread(self._file.fileno(), missing, offset + length - missing)
            if not part:
                raise StorageError(f"{length} bytes at byte {offset} are cut off after {length - missing}")
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _record(self, offset: int, end: int) -> tuple[int, bytes, int]:
        """Kind and content of the record at `offset`, and where the next one begins."""
        begin = offset + _PREFIX.size
        if begin > end:
            raise StorageError(f"a record at byte {offset} is cut off")
        kind, length = _PREFIX.unpack(self._bytes(offset, _PREFIX.size))
        if begin + length > end:
            raise StorageError(f"a record at byte {offset} claims {length} bytes, {end - begin} are left")
        return kind, self._bytes(begin, length), begin + length

    def close(self) -> None:
        """See `StorageFile.close`."""
        self._file.close()


def _decompressed(chunk: bytes) -> bytes:
    """The records in a chunk, checked against the size and the checksum that it gives."""
    fields = _Fields(chunk)
    _, _, size, checksum = fields.numbers("QQQI")
    compression = fields.text()
    (length,) = fields.numbers("Q")
    data = fields.blob(length)
    records: Any
    if compression == "zstd":
        records = zstd.decompress(data)
    elif compression == "lz4":
        records = lz4.frame.decompress(data)
    elif compression == "":
        records = data
    else:
        raise StorageError(f"its chunks are compressed with {compression}; none, lz4 and zstd can be read")
    if len(records) != size or (checksum and zlib.crc32(records) != checksum):
        raise StorageError(f"a chunk of {size} bytes does not match its checksum")
    return bytes(records)


def _records(chunk: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(chunk):
        kind, length = _PREFIX.unpack_from(chunk, at)
        at += _PREFIX.size
        if at + length > len(chunk):
            raise StorageError(f"a record in a chunk claims {length} bytes, {len(chunk) - at} are left")
        yield kind, chunk[at : at + length]
        at += length
