"""Recorded messages: rosbag2 (sqlite3, MCAP) and ROS 1 bags, read one message at a time.

Nothing here imports ROS; what comes out is the serialised message (CDR) as a ROS 2 publisher takes it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fvs_ros.errors import ReadableError
from fvs_ros.sources import rosbag2_files
from fvs_ros.sources.ros1 import Ros1Types
from fvs_ros.sources.rosbag2_files import METADATA, Announced, decompressed, open_storage, recording_files
from fvs_ros.sources.storage import (
    CDR,
    END_OF_TIME_NS,
    MOST_MESSAGE_BYTES,
    ROS1,
    Channel,
    StorageError,
    StorageFile,
    reason,
)

BAG_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})


class SourceError(ReadableError):
    """A recording that cannot be read. The message says what was wrong and what to do."""


@dataclass(frozen=True)
class BagTopic:
    """One topic of a bag.

    Attributes:
        type: ROS 2 name of the message type, ``package/msg/Name``.
        count: messages recorded.
        latched: late subscribers get it too: recorded as transient local, latched in ROS 1, or named `/tf_static`.
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
        return rosbag2_files.is_recording(path)
    return path.suffix == ".bag" or rosbag2_files.is_storage_file(path)


class Bag:
    """A bag opened for reading; close it, or use it as a context manager.

    What is read comes from the files. metadata.yaml is only a hint, which may be absent: where it announces more than
    the files hold, reading a topic ends in an error that says so.

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
        self._stack = ExitStack()
        self._files: dict[Path, StorageFile] = {}
        try:
            with _explained(path):
                parts, self._announced = recording_files(path) if path.is_dir() else ([path], Announced())
            for part in parts:
                with _explained(part):
                    self._files[part] = open_storage(part, self._stack)
            self._describe()
        except BaseException:
            self.close()
            raise

    def _describe(self) -> None:
        filled = [file for file in self._files.values() if file.end_ns]
        self.start_ns = min((file.start_ns for file in filled), default=0)
        self.duration_ns = max((file.end_ns for file in filled), default=0) - self.start_ns
        self._ros1 = Ros1Types()
        self._converters: dict[str, Callable[[bytes], bytes]] = {}
        channels: dict[str, list[Channel]] = {name: [] for name in self._announced.topics}
        for file in self._files.values():
            for channel in file.channels:
                channels.setdefault(channel.topic, []).append(channel)
        self.topics = {name: self._topic(name, channels[name]) for name in sorted(channels)}
        if not filled:
            self._check_undamaged()

    def _topic(self, name: str, channels: list[Channel]) -> BagTopic:
        # A channel without a message says nothing about what can be read.
        channels = [channel for channel in channels if channel.count] or channels
        types = sorted({channel.type for channel in channels}) or [self._announced.types.get(name, "")]
        encodings = sorted({channel.encoding for channel in channels}) or [CDR]
        problem = ""
        if len(types) > 1 or len(encodings) > 1:
            problem = f"it mixes the types {' and '.join(types)}" + f" in {' and '.join(encodings)}"
        elif encodings[0] == ROS1:
            try:
                self._converters[name] = self._ros1.converter(types[0], channels[0].definition)
            except LookupError as error:
                problem = str(error.args[0])
        elif encodings[0] != CDR:
            problem = f"its messages are {encodings[0]}, not those of ROS"
        return BagTopic(
            name=name,
            type=types[0],
            count=sum(channel.count for channel in channels),
            # REP 105's static transforms are latched, whatever a recorder noted down.
            latched=name.endswith("/tf_static") or any(channel.latched for channel in channels),
            problem=problem,
        )

    def messages(
        self, topics: Collection[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Read messages in the order of time, holding one at a time (MCAP: one chunk).

        Args:
            topics: names of topics without a `problem`; none reads nothing.
            start_ns: earliest `BagMessage.received_ns`.
            stop_ns: bound on it, excluded.

        Raises:
            SourceError: where the recording turns out to be damaged; at its end, if it holds less than it announces.
        """
        if not topics:
            return
        read: Counter[str] = Counter()
        window = (0 if start_ns is None else start_ns, END_OF_TIME_NS if stop_ns is None else stop_ns)
        pieces = [self._file_messages(path, topics, window) for path in self._files]
        for _, message in heapq.merge(*pieces, key=lambda piece: piece[0]):
            if message is not None:
                read[message.topic.name] += 1
                yield message
        if stop_ns is None:
            self._check_complete(topics, read if start_ns is None else None)

    def _file_messages(
        self, path: Path, topics: Collection[str], window: tuple[int, int]
    ) -> Iterator[tuple[int, BagMessage | None]]:
        """Each message with its time; nothing is read for the first, which is None.

        So a file is not touched before its time has come.
        """
        file = self._files[path]
        channels = {channel.id: channel.topic for channel in file.channels if channel.topic in topics and channel.count}
        if not channels:
            return
        yield file.start_ns, None
        with _explained(path):
            for channel, received_ns, data in file.messages(channels, *window):
                topic = channels[channel]
                if len(data) > MOST_MESSAGE_BYTES:
                    raise StorageError(
                        f"a message on {topic} takes {len(data)} bytes; at most {MOST_MESSAGE_BYTES} are taken"
                    )
                convert = self._converters.get(topic, decompressed)
                yield received_ns, BagMessage(self.topics[topic], received_ns, convert(data))

    def _check_complete(self, topics: Collection[str], read: Counter[str] | None) -> None:
        """Compare with what was announced, and what was read, where all was, with what the files say they hold."""
        self._check_undamaged()
        for name in sorted(topics):
            held = self.topics[name].count
            if read is not None and read[name] < held:
                raise SourceError(
                    f"{self.path} says that it holds {held} messages on {name}, but {read[name]} could be read; "
                    f"{_remedy(next(iter(self._files)))}"
                )
            if shortage := self.shortage(name):
                raise SourceError(shortage)

    def shortage(self, topic: str) -> str:
        """Says how many messages of a topic are announced and how many the files hold; empty if they hold them all."""
        held, announced = self.topics[topic].count, self._announced.topics.get(topic, 0)
        if held >= announced:
            return ""
        return (
            f"{self.path} is not complete: {METADATA} announces {announced} messages on {topic}, but its "
            f"files hold {held}{self._short_files()}; copy the bag again, or, to read what is there, run "
            f"`ros2 bag reindex` on it or remove {METADATA}"
        )

    def _check_undamaged(self) -> None:
        for path, file in self._files.items():
            if file.damage:
                raise SourceError(f"cannot read {path} to its end: {file.damage}; {_remedy(path)}")

    def _short_files(self) -> str:
        short = []
        for path, file in self._files.items():
            held, announced = sum(channel.count for channel in file.channels), self._announced.files.get(path.name, 0)
            if held < announced:
                short.append(f"{path.name} {held} of {announced}")
        return f" (all topics: {', '.join(short)})" if short else ""

    def close(self) -> None:
        """Close the files; harmless to repeat."""
        self._stack.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn whatever the readers raise on a damaged file into a `SourceError`.

    A damaged file surfaces as almost any exception (struct, type, value, sqlite, decompression), so all are taken.
    """
    try:
        yield
    except SourceError:
        raise
    except StorageError as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    except Exception as error:
        raise SourceError(f"cannot read {path}: {reason(error)}; {_remedy(path)}") from error


def _remedy(path: Path) -> str:
    if path.suffix == ".bag":
        return "check it with `rosbag info`, repair it with `rosbag reindex`"
    if path.suffix == ".mcap":
        return "repair it with `mcap recover`, or copy it again"
    return "copy it again, or save what is left with `sqlite3 FILE .recover`"
