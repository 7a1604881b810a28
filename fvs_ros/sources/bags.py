"""Recorded messages: rosbag2 (sqlite3, MCAP) and ROS 1 bags through `rosbags`, read one message at a time.

Nothing here imports ROS; what comes out is the serialised message (CDR) as a ROS 2 publisher takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, ConnectionExtRosbag1, Nodetype, QosDurability
from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag2 import Reader as Reader2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

STORAGE_SUFFIXES = frozenset({".mcap", ".db3"})
BAG_SUFFIXES = STORAGE_SUFFIXES | {".bag"}
_METADATA = "metadata.yaml"
_RENAMED_TYPES = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}


class SourceError(Exception):
    """A recording that cannot be read. The message says what was wrong and what to do."""


@dataclass(frozen=True)
class BagTopic:
    """One topic of a bag.

    Attributes:
        type: ROS 2 name of the message type, ``package/msg/Name``.
        count: messages recorded.
        latched: late subscribers are to get it too (transient local, or latched in ROS 1).
        problem: why its messages cannot be handed out, empty if they can.
    """

    name: str
    type: str
    count: int
    latched: bool
    problem: str = ""


@dataclass(frozen=True)
class BagMessage:
    """One recorded message.

    Attributes:
        received_ns: when the recorder received it, nanoseconds; the time that playback goes by.
        data: the message in CDR, encapsulation header included.
    """

    topic: BagTopic
    received_ns: int
    data: bytes


def is_bag(path: Path) -> bool:
    """Whether `path` looks like a recording of ROS messages: by name, or a folder with such files."""
    if path.is_dir():
        return (path / _METADATA).exists() or any(entry.suffix in STORAGE_SUFFIXES for entry in path.iterdir())
    return path.suffix in BAG_SUFFIXES


class Bag:
    """A bag opened for reading; close it, or use it as a context manager.

    Args:
        path: a rosbag2 folder, one of its ``.mcap`` or ``.db3`` files, or a ROS 1 ``.bag`` file.

    Attributes:
        topics: every topic by name.
        start_ns: when the first message was received, 0 in an empty bag.
        duration_ns: from the first message to the last.

    Raises:
        SourceError: if it is missing, damaged or no bag.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise SourceError(f"{path} does not exist; give the path of a bag folder or file")
        if path.is_dir() and not (path / _METADATA).exists():
            raise SourceError(_without_metadata(path))
        with _explained(path):
            self._reader: Reader1 | Reader2 = Reader1(path) if path.suffix == ".bag" else Reader2(path)
            self._reader.open()
        self._open = True
        try:
            with _explained(path):
                self._describe()
        except SourceError:
            self.close()
            raise

    def _describe(self) -> None:
        reader = self._reader
        self.start_ns = reader.start_time if reader.message_count else 0
        # rosbags counts the end as one past the last message.
        self.duration_ns = max(0, reader.duration - 1) if reader.message_count else 0
        self._converters: dict[str, Callable[[bytes], bytes]] = {}
        problems = self._prepare_ros1(reader) if isinstance(reader, Reader1) else {}
        self.topics: dict[str, BagTopic] = {}
        for name, info in sorted(reader.topics.items()):
            types = sorted({connection.msgtype for connection in info.connections})
            problem = f"it mixes the types {' and '.join(types)}" if len(types) > 1 else problems.get(types[0], "")
            self.topics[name] = BagTopic(
                name=name,
                type=_RENAMED_TYPES.get(types[0], types[0]),
                count=info.msgcount,
                latched=any(_is_latched(connection) for connection in info.connections),
                problem=problem,
            )

    def _prepare_ros1(self, reader: Reader1) -> dict[str, str]:
        """Set up the conversion of each ROS 1 type to CDR; returns what stands in the way, by type."""
        recorded = get_typestore(Stores.ROS1_NOETIC)
        target = get_typestore(Stores.ROS2_HUMBLE)
        problems: dict[str, str] = {}
        for connection in reader.connections:
            name = connection.msgtype
            ros2_name = _RENAMED_TYPES.get(name, name)
            if ros2_name not in target.fielddefs:
                problems[name] = f"its ROS 1 type {name} has no ROS 2 twin among the common interfaces"
                continue
            definitions = get_types_from_msg(connection.msgdef.data, name)
            recorded.register({key: value for key, value in definitions.items() if key not in recorded.fielddefs})
            if _same_layout(recorded, target, name, ros2_name):
                self._converters[name] = partial(_ros1_to_cdr, target, ros2_name)
            else:
                problems[name] = f"the fields of {name} differ between ROS 1 and ROS 2"
        return problems

    def messages(
        self, topics: Collection[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Read messages in the order of the recording, holding one at a time (MCAP: one chunk).

        Args:
            topics: names of topics without a `problem`; none reads nothing.
            start_ns: earliest `BagMessage.received_ns`.
            stop_ns: bound on it, excluded.

        Raises:
            SourceError: where the recording turns out to be damaged.
        """
        connections = [connection for connection in self._reader.connections if connection.topic in topics]
        if not connections:
            return
        with _explained(self.path):
            for connection, received_ns, raw in self._reader.messages(connections, start_ns, stop_ns):
                convert = self._converters.get(connection.msgtype)
                yield BagMessage(self.topics[connection.topic], received_ns, convert(raw) if convert else raw)

    def close(self) -> None:
        """Close the files; harmless to repeat."""
        if self._open:
            self._open = False
            self._reader.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn whatever the readers raise on a damaged file into a `SourceError`.

    A damaged file surfaces as almost any exception (struct, type, value, YAML, sqlite, decompression), so all
    are taken.
    """
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"cannot read {path}: {_reason(error)}; {_remedy(path, str(error))}") from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return text if text and text[0].isupper() else f"{type(error).__name__}: {text}" if text else type(error).__name__


def _remedy(path: Path, reason: str) -> str:
    if path.is_dir() and ("metadata" in reason.lower() or "yaml" in reason.lower()):
        return "repair metadata.yaml with `ros2 bag reindex`, or give the .mcap or .db3 file inside"
    if "Unrecognized storage" in reason:
        return "give a rosbag2 folder, an .mcap, .db3 or .bag file, a video, or a folder of images"
    if path.suffix == ".bag":
        return "check it with `rosbag info`, repair it with `rosbag reindex`"
    return "the file is damaged or was not closed: repair an MCAP file with `mcap recover`, or copy the bag again"


def _without_metadata(path: Path) -> str:
    files = sorted(entry.name for entry in path.iterdir() if entry.suffix in STORAGE_SUFFIXES)
    if not files:
        return f"{path} is not a bag: it has no {_METADATA} and no .mcap or .db3 file; give the folder of a rosbag2 bag"
    return (
        f"{path} has no {_METADATA}, as after a recorder that was killed; run `ros2 bag reindex` on it, "
        f"or give one of its files: {', '.join(files)}"
    )


def _is_latched(connection: Connection) -> bool:
    if isinstance(connection.ext, ConnectionExtRosbag1):
        return bool(connection.ext.latching)
    return any(qos.durability == QosDurability.TRANSIENT_LOCAL for qos in connection.ext.offered_qos_profiles)


def _ros1_to_cdr(target: Typestore, name: str, raw: bytes) -> bytes:
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
