"""ROS 1: its bag files, and the conversion of its messages to CDR, both through `rosbags`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rosbags.interfaces import ConnectionExtRosbag1, Nodetype
from rosbags.rosbag1 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from fvs_ros.sources.storage import END_OF_TIME_NS, ROS1, Channel

_RENAMED_TYPES = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}


class Ros1File:
    """A ``.bag`` file. Raises what rosbags raises if it is damaged."""

    damage = ""

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path)
        self._reader.open()
        filled = self._reader.message_count > 0
        self.start_ns = self._reader.start_time if filled else END_OF_TIME_NS
        # rosbags counts the end as one past the last message.
        self.end_ns = self._reader.end_time - 1 if filled else 0
        self.channels = [
            Channel(
                id=connection.id,
                topic=connection.topic,
                type=connection.msgtype,
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

    def ros2_name(self, name: str) -> str:
        """The type's name in ROS 2."""
        return _RENAMED_TYPES.get(name, name)

    def converter(self, name: str, definition: str) -> Callable[[bytes], bytes]:
        """What turns a message of that type into CDR.

        Raises:
            LookupError: if it has no equal in ROS 2, with the reason.
        """
        ros2_name = self.ros2_name(name)
        if ros2_name not in self._target.fielddefs:
            raise LookupError(f"its ROS 1 type {name} has no ROS 2 twin among the common interfaces")
        if name not in self._recorded.fielddefs:
            definitions = get_types_from_msg(definition, name)
            new = {key: value for key, value in definitions.items() if key not in self._recorded.fielddefs}
            self._recorded.register(new)
        if not _same_layout(self._recorded, self._target, name, ros2_name):
            raise LookupError(f"the fields of {name} differ between ROS 1 and ROS 2")
        return partial(_to_cdr, self._target, ros2_name)


def _to_cdr(target: Typestore, name: str, raw: bytes) -> bytes:
    # The ROS 2 definition is right for reading too: rosbags skips the sequence number that ROS 1 headers begin with.
    return bytes(target.ros1_to_cdr(raw, name))


def _same_layout(source: Typestore, target: Typestore, source_name: str, target_name: str) -> bool:
    """Whether both definitions have fields of the same types in the same order, names aside."""
    if source_name == "std_msgs/msg/Header":
        return True
    if source_name not in source.fielddefs or target_name not in target.fielddefs:
        return False
    source_fields, target_fields = source.fielddefs[source_name][1], target.fielddefs[target_name][1]
    return len(source_fields) == len(target_fields) and all(
        ours == theirs and (nested is None or _same_layout(source, target, nested, nested))
        for (_, ours), (_, theirs) in zip(source_fields, target_fields, strict=True)
        for nested in [_nested_type(ours)]
    )


def _nested_type(description: Any) -> str | None:
    """The message type that a field (or its elements) holds, None for a basic type."""
    kind, value = description
    if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        kind, value = value[0]
    return str(value) if kind == Nodetype.NAME else None
