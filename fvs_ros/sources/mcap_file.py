"""MCAP files of any recorder and profile, through `mcap`: by their index, or without one from end to end.

rosbags reads the profile ``ros2`` alone, and no file that holds a topic of another tool. `mcap` sorts a file without
chunks in memory and gives up where a file is cut off, so the order of time and the search for what is whole are here.
"""

from __future__ import annotations

import heapq
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from lz4.frame import LZ4FrameDecompressor
from mcap.exceptions import EndOfFile
from mcap.reader import SeekingReader
from mcap.records import Channel as ChannelRecord
from mcap.records import Chunk, DataEnd, Footer, Header, McapRecord, Message, Schema
from mcap.stream_reader import CRCValidationError, StreamReader

from fvs_ros.sources.storage import (
    CDR,
    END_OF_TIME_NS,
    ROS1,
    Channel,
    Decompressor,
    StorageError,
    StorageFile,
    decompress,
    is_latched,
    reason,
    ros2_type,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MAGIC = b"\x89MCAP0\r\n"
_DECOMPRESSORS: dict[str, Callable[[], Decompressor]] = {"lz4": LZ4FrameDecompressor, "zstd": zstd.ZstdDecompressor}


@dataclass(frozen=True)
class _Block:
    """A chunk, or a message outside of chunks: a piece of the file that is read as one.

    Attributes:
        offset: where its record begins, or skipped records before it.
        channels: ids of the channels of which it has messages; empty if that is not known.
    """

    start_ns: int
    end_ns: int
    offset: int
    channels: frozenset[int] = frozenset()


@dataclass
class _Contents:
    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, ChannelRecord] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)
    blocks: list[_Block] = field(default_factory=list)

    def add(self, records: Sequence[McapRecord], offset: int) -> None:
        """Takes the schemas, channels and messages of a record that begins at `offset`."""
        self.schemas.update({record.id: record for record in records if isinstance(record, Schema)})
        self.channels.update({record.id: record for record in records if isinstance(record, ChannelRecord)})
        messages = [record for record in records if isinstance(record, Message)]
        if messages:
            times = [message.log_time for message in messages]
            counts = Counter(message.channel_id for message in messages)
            self.counts += counts
            self.blocks.append(_Block(min(times), max(times), offset, frozenset(counts)))


class McapFile(StorageFile):
    """An MCAP file. One that was never closed is read as far as its records are whole, and `damage` says so.

    Raises:
        StorageError: if it is no MCAP file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            contents = self._describe(file)
        self._blocks = sorted(contents.blocks, key=lambda block: (block.start_ns, block.offset))
        filled = contents.counts.total() > 0
        self.start_ns = self._blocks[0].start_ns if filled else END_OF_TIME_NS
        self.end_ns = max(block.end_ns for block in self._blocks) if filled else 0
        self.channels = [self._channel(contents, channel) for _, channel in sorted(contents.channels.items())]

    def _channel(self, contents: _Contents, channel: ChannelRecord) -> Channel:
        schema = contents.schemas.get(channel.schema_id)
        encoding = channel.message_encoding or (ROS1 if self._profile == ROS1 else CDR)
        return Channel(
            id=channel.id,
            topic=channel.topic,
            type=ros2_type(schema.name) if schema else "",
            encoding=encoding,
            count=contents.counts[channel.id],
            latched=is_latched(channel.metadata.get("offered_qos_profiles", ""))
            or channel.metadata.get("latching") == "1",
            definition=schema.data.decode("utf-8", errors="replace") if schema and encoding == ROS1 else "",
        )

    def _describe(self, file: BinaryIO) -> _Contents:
        if not os.fstat(file.fileno()).st_size:
            raise StorageError("the file is empty; copy it again")
        if file.read(len(_MAGIC)) != _MAGIC:
            raise StorageError("it does not begin as an MCAP file does; copy it again")
        header = next(_records(file, len(_MAGIC)), None)
        if not isinstance(header, Header):
            raise StorageError(f"its first record is {_kind(header)}, Header expected; copy it again")
        self._profile = header.profile
        begin = file.tell()
        size = file.seek(0, os.SEEK_END)
        file.seek(size - len(_MAGIC))
        closed = file.read() == _MAGIC
        if closed and (contents := _read_summary(file, size)):
            return contents
        contents = _Contents()
        whole = self._scan(file, begin, contents)
        if not (closed and whole):
            self.damage = self.damage or "it was not closed, as after a recorder that was killed"
        return contents

    def _scan(self, file: BinaryIO, begin: int, contents: _Contents) -> bool:
        """Reads the file up to a record that is cut off or damaged, and remembers that; whether its data's end came."""
        offset = begin
        try:
            for record in _records(file, begin):
                if isinstance(record, (DataEnd, Footer)):
                    return True
                contents.add(_unpacked(record), offset)
                offset = file.tell()
        except OSError:
            raise
        except Exception as error:  # Damage surfaces as almost any exception, as in `bags`.
            size = os.fstat(file.fileno()).st_size
            self.damage = f"it is damaged or cut off at byte {offset} of {size} ({reason(error)})"
        return False

    def messages(self, channels: Collection[int], start_ns: int, stop_ns: int) -> Iterator[tuple[int, int, bytes]]:
        """See `StorageFile.messages`. Holds the blocks that overlap in time."""
        wanted = frozenset(channels)
        pending: list[tuple[int, int, int, Message]] = []
        # Each reading has its own position in the file.
        with self._path.open("rb") as file:
            for block in self._blocks:
                if block.end_ns < start_ns or block.start_ns >= stop_ns:
                    continue
                if block.channels and not block.channels & wanted:
                    continue
                yield from _popped(pending, block.start_ns)
                for number, message in enumerate(_block_messages(file, block)):
                    if message.channel_id in wanted and start_ns <= message.log_time < stop_ns:
                        heapq.heappush(pending, (message.log_time, block.offset, number, message))
        yield from _popped(pending, stop_ns)

    def close(self) -> None:
        """See `StorageFile.close`; nothing stays open between reads."""


def _read_summary(file: BinaryIO, size: int) -> _Contents | None:
    """What the index says; None if it is absent, damaged, or does not give the place of every message."""
    file.seek(0)
    try:
        summary = SeekingReader(file, record_size_limit=size).get_summary()
    except OSError:
        raise
    except Exception:  # As above; all that is known is then read from the records themselves.
        return None
    if summary is None or summary.statistics is None or not summary.chunk_indexes:
        return None
    counts = Counter(summary.statistics.channel_message_counts)
    if summary.statistics.chunk_count != len(summary.chunk_indexes):
        return None
    if summary.statistics.message_count != counts.total() or not counts.keys() <= summary.channels.keys():
        return None
    blocks = [
        _Block(
            index.message_start_time,
            index.message_end_time,
            index.chunk_start_offset,
            frozenset(index.message_index_offsets),
        )
        for index in summary.chunk_indexes
    ]
    return _Contents(summary.schemas, summary.channels, counts, blocks)


def _records(stream: BinaryIO, begin: int) -> Iterator[McapRecord]:
    """The records from `begin` to the end of a stream; a chunk is one of them."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(begin)
    records = StreamReader(stream, skip_magic=True, emit_chunks=True, record_size_limit=size).records
    try:
        while stream.tell() < size:
            yield next(records)
    except EndOfFile:
        raise EndOfFile(f"a record reaches beyond byte {size}, the end") from None


def _unpacked(record: McapRecord) -> list[McapRecord]:
    """The records in a chunk, checked against its checksum; any other record by itself."""
    if not isinstance(record, Chunk):
        return [record]
    # Not by `mcap`, which takes a message that claims more than there is for a whole one, a compression that it does
    # not know for none, and as much memory as there is for what a few bytes claim to hold.
    data = record.data
    if record.compression:
        if record.compression not in _DECOMPRESSORS:
            raise StorageError(f"its chunks are compressed with {record.compression}; none, lz4 and zstd can be read")
        data = decompress(_DECOMPRESSORS[record.compression](), record.data)
    if record.uncompressed_crc and zlib.crc32(data) != record.uncompressed_crc:
        raise CRCValidationError(record.uncompressed_crc, zlib.crc32(data), record)
    return list(_records(BytesIO(data), 0))


def _block_messages(file: BinaryIO, block: _Block) -> Iterator[Message]:
    record = next(_records(file, block.offset), None)
    if not isinstance(record, (Chunk, Message)):
        raise StorageError(f"its index names a chunk at byte {block.offset}, where {_kind(record)} is")
    return (inner for inner in _unpacked(record) if isinstance(inner, Message))


def _kind(record: McapRecord | None) -> str:
    return "nothing" if record is None else type(record).__name__


def _popped(pending: list[tuple[int, int, int, Message]], stop_ns: int) -> Iterator[tuple[int, int, bytes]]:
    """Takes the messages before `stop_ns` from the heap."""
    while pending and pending[0][0] < stop_ns:
        log_time, _, _, message = heapq.heappop(pending)
        yield message.channel_id, log_time, message.data
