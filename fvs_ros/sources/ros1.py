"""ROS 1: its bag files, and the conversion of its messages to CDR, both through `rosbags`."""

from __future__ import annotations

import bz2
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import lz4.frame
from rosbags.convert.converter import is_same_wireformat
from rosbags.interfaces import ConnectionExtRosbag1
from rosbags.rosbag1 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from fvs_ros.sources.storage import END_OF_TIME_NS, ROS1, Channel, StorageFile, decompress, reason, ros2_type

# What rosbags decompresses chunks with, and the same within bounds.
_BOUNDED: dict[Callable[[bytes], bytes], Callable[[bytes], bytes]] = {
    bz2.decompress: lambda data: decompress(bz2.BZ2Decompressor(), data),
    lz4.frame.decompress: lambda data: decompress(lz4.frame.LZ4FrameDecompressor(), data),
}


class Ros1File(StorageFile):
    """A ``.bag`` file. Raises what rosbags raises if it is damaged."""

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path)
        self._reader.open()
        for place, chunk in self._reader.chunks.items():
            if chunk.decompressor in _BOUNDED:
                self._reader.chunks[place] = chunk._replace(decompressor=_BOUNDED[chunk.decompressor])
        filled = self._reader.message_count > 0
        self.start_ns = self._reader.start_time if filled else END_OF_TIME_NS
        # rosbags counts the end as one past the last message.
        self.end_ns = self._reader.end_time - 1 if filled else 0
        self.channels = [
            Channel(
                id=connection.id,
                topic=connection.topic,
                type=ros2_type(connection.msgtype),
                encoding=ROS1,
                count=connection.msgcount,
                latched=isinstance(connection.ext, ConnectionExtRosbag1) and bool(connection.ext.latching),
                definition=connection.msgdef.data,
            )
            for connection in self._reader.connections
        ]

    def messages(self, channels: Collection[int], start_ns: int, stop_ns: int) -> Iterator[tuple[int, int, bytes]]:
        """See `StorageFile.messages`."""
        connections = [connection for connection in self._reader.connections if connection.id in channels]
        for connection, received_ns, data in self._reader.messages(connections, start_ns, stop_ns):
            yield connection.id, received_ns, data

    def close(self) -> None:
        """See `StorageFile.close`."""
        self._reader.close()


class Ros1Types:
    """Converts messages of ROS 1 types to CDR of the ROS 2 types that have the same fields."""

    def __init__(self) -> None:
        self._recorded = get_typestore(Stores.ROS1_NOETIC)
        self._target = get_typestore(Stores.ROS2_HUMBLE)

    def converter(self, name: str, definition: str) -> Callable[[bytes], bytes]:
        """What turns a message of the type that ROS 2 gives that name into CDR.

        Raises:
            LookupError: if it has no equal in ROS 2, with the reason.
        """
        if name not in self._target.fielddefs:
            raise LookupError(f"its ROS 1 type {name} has no ROS 2 twin among the common interfaces")
        if name not in self._recorded.fielddefs:
            try:
                definitions = get_types_from_msg(definition, name)
                new = {key: value for key, value in definitions.items() if key not in self._recorded.fielddefs}
                self._recorded.register(new)
            except Exception as error:  # rosbags promises none for what is no definition.
                raise LookupError(f"its definition of {name} cannot be read ({reason(error)})") from error
        try:
            same = is_same_wireformat(self._recorded, self._target, name, name)
        except (KeyError, RecursionError):  # A field's type that ROS 2 does not have, or that holds itself.
            same = False
        if not same:
            raise LookupError(f"the fields of {name} differ between ROS 1 and ROS 2")
        # The ROS 2 definition is right for reading too: rosbags skips the number that ROS 1 headers begin with.
        return lambda raw: bytes(self._target.ros1_to_cdr(raw, name))
