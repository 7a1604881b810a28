"""What every file of recorded messages offers, and sqlite3 files, rosbag2's older storage."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import yaml

from fvs_ros.errors import ReadableError, one_line

END_OF_TIME_NS = 2**63 - 1
# Of a message or a chunk when decompressed: twice the largest image that is taken.
MOST_MESSAGE_BYTES = 2**30
# Of the profiles of a topic with 30 publishers there are 10 kB; PyYAML takes a second for 50 kB.
_MOST_PROFILES = 2**16

CDR, ROS1 = "cdr", "ros1"
"""Encodings of messages that can be handed out: ROS 2's own, and ROS 1's, which is converted."""


class StorageError(ReadableError, ValueError):
    """A file that cannot be read. The message says what was wrong and what to do."""


class Decompressor(Protocol):
    """What bz2, lz4 and zstd have in common."""

    @property
    def eof(self) -> bool:
        """Whether the end has come."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most `max_length` of what is compressed in `data`."""


def decompress(decompressor: Decompressor, data: bytes) -> bytes:
    """What `data` holds, without taking more memory than `MOST_MESSAGE_BYTES`, whatever it claims.

    Raises:
        StorageError: it holds more, or ends early.
    """
    content = decompressor.decompress(data, MOST_MESSAGE_BYTES + 1)
    if len(content) > MOST_MESSAGE_BYTES:
        raise StorageError(
            f"{len(data)} compressed bytes hold more than {MOST_MESSAGE_BYTES}, the most that is taken at once"
        )
    if not decompressor.eof:
        raise StorageError(f"{len(data)} compressed bytes end early; copy it again")
    return content


def reason(error: Exception) -> str:
    """What an error of a library says, on one line; its name where it says little."""
    text = one_line(str(error), 300).rstrip(".")
    return text if text and text[0].isupper() else f"{type(error).__name__}: {text}" if text else type(error).__name__


@dataclass(frozen=True)
class Channel:
    """Messages of one type on one topic, as one file declares them.

    Attributes:
        type: ROS 2 name of the message type, ``package/msg/Name``; empty if the file names none.
        encoding: of the messages, `CDR`, `ROS1`, or another tool's.
        count: messages in the file.
        latched: late subscribers are to get it too (transient local, or latched in ROS 1).
        definition: fields of a ROS 1 message, as the bag gives them.
    """

    id: int
    topic: str
    type: str
    encoding: str
    count: int
    latched: bool
    definition: str = ""


class StorageFile(Protocol):
    """One open file of recorded messages.

    Attributes:
        start_ns: when the first message was received; `END_OF_TIME_NS` if there is none.
        end_ns: when the last message was received; 0 if there is none.
        damage: what keeps the file from being whole, although messages can be read; empty if nothing does.
    """

    channels: list[Channel]
    start_ns: int
    end_ns: int
    damage: str = ""

    def messages(self, channels: Collection[int], start_ns: int, stop_ns: int) -> Iterator[tuple[int, int, bytes]]:
        """Channel, time of receipt (ns) and bytes of each message from `start_ns` to before `stop_ns`, by time."""

    def close(self) -> None:
        """Close the file."""


def ros2_type(name: str) -> str:
    """The ROS 2 name of a type that ROS 1 (``package/Name``) or DDS (``package::msg::dds_::Name_``) names."""
    name = re.sub(r"::dds_::(\w+)_$", r"::\1", name).replace("::", "/")
    name = re.sub(r"^(\w+)/(\w+)$", r"\1/msg/\2", name)
    return "tf2_msgs/msg/TFMessage" if name == "tf/msg/tfMessage" else name


def is_latched(offered_qos_profiles: str) -> bool:
    """Whether any publisher of a topic was transient local, from the YAML in which rosbag2 stores its profiles."""
    if len(offered_qos_profiles) > _MOST_PROFILES:
        return False
    try:
        profiles = yaml.safe_load(offered_qos_profiles)
    except Exception:  # Of many kinds: of YAML itself, of a day that no calendar has, of lists in lists without end.
        return False
    return isinstance(profiles, list) and any(
        isinstance(profile, dict) and str(profile.get("durability")) in ("1", "transient_local") for profile in profiles
    )


def _text(row: sqlite3.Row, column: str) -> str:
    """A text of the table of topics, in any column of which SQLite would hold anything."""
    if not isinstance(row[column], str):
        raise StorageError(f"its table of topics has the {column} {row[column]!r}, a text expected")
    return row[column]


class Sqlite3File(StorageFile):
    """A ``.db3`` file of rosbag2, of any of its schemas; never written to.

    Raises:
        StorageError, sqlite3.Error: if it is damaged, or is another program's database.
    """

    def __init__(self, path: Path) -> None:
        # A URI, in which ?, # and % have a meaning. Immutable: without locks and without files made beside it.
        self._database = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        try:
            self._database.row_factory = sqlite3.Row
            self._database.text_factory = lambda text: text.decode("utf-8", errors="replace")
            self._describe()
        except BaseException:
            self.close()
            raise

    def _describe(self) -> None:
        tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"topics", "messages"} <= tables:
            raise StorageError("it is a database without the tables topics and messages; give a file of rosbag2")
        counts: dict[int, int] = {}
        self.start_ns, self.end_ns = END_OF_TIME_NS, 0
        for topic, count, first_ns, last_ns in self._database.execute(
            "SELECT topic_id, COUNT(*), MIN(timestamp), MAX(timestamp) FROM messages GROUP BY topic_id"
        ):
            if type(first_ns) is not int or type(last_ns) is not int:
                raise StorageError(f"its messages are stamped {first_ns!r} to {last_ns!r}, not in whole nanoseconds")
            counts[topic] = count
            self.start_ns, self.end_ns = min(self.start_ns, first_ns), max(self.end_ns, last_ns)
        self.channels = [
            Channel(
                id=row["id"],
                topic=_text(row, "name"),
                type=ros2_type(_text(row, "type")),
                encoding=_text(row, "serialization_format") or CDR,
                count=counts.get(row["id"], 0),
                # Absent from the oldest schema.
                latched=is_latched(dict(row).get("offered_qos_profiles") or ""),
            )
            for row in self._database.execute("SELECT * FROM topics ORDER BY id")
        ]

    def messages(self, channels: Collection[int], start_ns: int, stop_ns: int) -> Iterator[tuple[int, int, bytes]]:
        """See `StorageFile.messages`."""
        places = ",".join("?" * len(channels))
        for topic, received_ns, data in self._database.execute(
            f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({places})"
            " AND timestamp >= ? AND timestamp < ? ORDER BY timestamp, rowid",
            [*channels, start_ns, stop_ns],
        ):
            if type(received_ns) is not int or not isinstance(data, bytes):
                raise StorageError(
                    f"the message stamped {received_ns!r} is {type(data).__name__}, bytes at whole nanoseconds expected"
                )
            yield topic, received_ns, data

    def close(self) -> None:
        """See `StorageFile.close`."""
        self._database.close()
