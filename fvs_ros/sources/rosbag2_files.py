"""The files of a rosbag2 recording: which they are, what metadata.yaml announces, and how each one is opened."""

from __future__ import annotations

import logging
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from fvs_ros.files import read_bounded
from fvs_ros.sources.mcap_file import McapFile
from fvs_ros.sources.ros1 import Ros1File
from fvs_ros.sources.storage import Sqlite3File, StorageError, StorageFile, decompress, reason, ros2_type

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

logger = logging.getLogger(__name__)

METADATA = "metadata.yaml"
# A part of a split recording carries its number, a compressed one a second suffix.
_PART = re.compile(r"(?P<stem>.+?)(?:_(?P<number>\d+))?\.(?:db3|mcap)(?:\.zstd?)?")
_COMPRESSED = re.compile(r"\.zstd?$")
# A log of SQLite that is only a header is empty.
_LOG_HEADER_BYTES = 32
# The first bytes of what zstd has compressed; CDR begins with a zero.
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# Ten thousand files take 2 MB; PyYAML takes a minute for this much.
_MOST_METADATA = 2**22
# What decompressing a file leaves free of the disk, which may be the memory's.
_LEAST_FREE_BYTES = 2**29


class _Part(NamedTuple):
    """Name of a recording, and number of one of its files; None if the file has none."""

    stem: str
    number: int | None


@dataclass(frozen=True)
class Announced:
    """What metadata.yaml says is there: messages by topic and by file, and the type of each topic.

    Only a hint: the files are what is read, and what they lack is told.
    """

    topics: dict[str, int] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)


def is_storage_file(path: Path) -> bool:
    """Whether a file is named like one of rosbag2's, compressed or not."""
    return _PART.fullmatch(path.name) is not None


def is_recording(folder: Path) -> bool:
    """Whether a folder holds a rosbag2 recording, with metadata.yaml or without."""
    return (folder / METADATA).exists() or any(map(is_storage_file, folder.iterdir()))


def recording_files(folder: Path) -> tuple[list[Path], Announced]:
    """The files of the recording in a folder, and what is announced of them.

    Raises:
        StorageError: if there is none, one is missing, or the folder holds several recordings.
    """
    listed: list[str] = []
    announced = Announced()
    try:
        text = read_bounded(folder / METADATA, _MOST_METADATA).decode()
        metadata = yaml.safe_load(text)["rosbag2_bagfile_information"]
        listed = [PurePosixPath(_text(name)).name for name in metadata["relative_file_paths"]]
        announced = _announced(metadata)
    except FileNotFoundError:
        pass
    except Exception as error:  # Of many kinds, from all that YAML can hold; the files themselves are what counts.
        listed = []
        logger.warning(
            "%s cannot be used (%s); the recording is read from its files alone", folder / METADATA, reason(error)
        )
    # The shortest names first: of a part that is there both compressed and not, the latter.
    present: dict[_Part, Path] = {}
    for path in sorted(filter(is_storage_file, folder.iterdir()), key=lambda path: (len(path.name), path.name)):
        present.setdefault(_part(path.name), path)
    if not present:
        raise StorageError(
            "it is not a bag: it has no .mcap or .db3 file"
            + (f", although {METADATA} lists {', '.join(listed)}, which are missing" if listed else "")
            + "; give the folder of a rosbag2 bag, with its files"
        )
    return _listed_files(folder, listed, present) if listed else _unlisted_files(folder, present), announced


def _announced(metadata: dict[str, Any]) -> Announced:
    topics: dict[str, int] = {}
    types: dict[str, str] = {}
    for entry in metadata.get("topics_with_message_count") or []:
        name = _text(entry["topic_metadata"]["name"])
        topics[name] = topics.get(name, 0) + int(entry["message_count"])
        types[name] = ros2_type(_text(entry["topic_metadata"].get("type", "")))
    files = {
        PurePosixPath(_text(entry["path"])).name: int(entry["message_count"]) for entry in metadata.get("files") or []
    }
    return Announced(topics, types, files)


def _text(value: object) -> str:
    # Not by str(): aliases in a kB of YAML make lists whose text fills the memory.
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} found, a text expected")
    return value


def _listed_files(folder: Path, listed: Iterable[str], present: Mapping[_Part, Path]) -> list[Path]:
    """The files that metadata.yaml lists, and parts of the same recording that it forgets."""
    found: dict[_Part, Path] = {}
    missing = []
    for name in listed:
        # Playing a compressed bag leaves its files beside it without their second suffix.
        path = folder / name if (folder / name).exists() else present.get(_part(name))
        if path is None:
            missing.append(name)
        else:
            found[_part(name)] = path
    if missing:
        raise StorageError(
            f"{', '.join(missing)}, listed in {METADATA}, is missing; copy it into the folder, or remove {METADATA} to "
            f"read only what is there: {_names(present)}"
        )
    stems = {part.stem for part in found if part.number is not None}
    forgotten = {part: path for part, path in present.items() if part.stem in stems and part not in found}
    if forgotten:
        logger.warning(
            "%s does not list %s of the same recording; they are read too", folder / METADATA, _names(forgotten)
        )
    return [*found.values(), *forgotten.values()]


def _unlisted_files(folder: Path, present: Mapping[_Part, Path]) -> list[Path]:
    """The parts of the one recording in a folder without metadata.yaml, by their numbers."""
    if len(present) == 1:
        return list(present.values())
    parts = {part.number: path for part, path in present.items() if part.number is not None}
    if len(parts) < len(present) or len({part.stem for part in present}) > 1:
        raise StorageError(
            f"it has no {METADATA} and holds several recordings; give one of its files: {_names(present)}"
        )
    if gaps := sorted(set(range(min(parts), max(parts))) - parts.keys()):
        raise StorageError(
            f"it has no {METADATA}, and of its parts {', '.join(map(str, gaps))} is missing between those that are "
            f"there; copy it into the folder, or give one of the files: {_names(present)}"
        )
    logger.warning("%s has no %s; read as parts of one recording: %s", folder, METADATA, _names(present))
    return [parts[number] for number in sorted(parts)]


def _part(name: str) -> _Part:
    match = _PART.fullmatch(name)
    if match is None:
        return _Part(name, None)
    return _Part(match["stem"], None if match["number"] is None else int(match["number"]))


def _names(present: Mapping[_Part, Path]) -> str:
    return ", ".join(sorted(path.name for path in present.values()))


def open_storage(path: Path, stack: ExitStack) -> StorageFile:
    """Opens one file of recorded messages; the stack closes it and removes private copies of it.

    A compressed file, and a database whose log was not moved into it, are read through such a copy.

    Raises:
        StorageError, OSError, and what the readers raise: if it cannot be read.
    """
    source, name = path, path.name
    if _COMPRESSED.search(name):
        source, name = _private_copy(path, stack, _decompress), _COMPRESSED.sub("", name)
    file: StorageFile
    if name.endswith(".mcap"):
        file = McapFile(source)
    elif name.endswith(".db3"):
        # SQLite too keeps its logs beside the file that a link leads to.
        if any(log.stat().st_size > _LOG_HEADER_BYTES for log in _logs(source.resolve())):
            source = _private_copy(source.resolve(), stack, _copy_and_checkpoint)
        file = Sqlite3File(source)
    else:
        file = Ros1File(source)
    stack.callback(file.close)
    return file


def decompressed(message: bytes) -> bytes:
    """A message as it was before rosbag2 compressed it; one that it did not compress as it is."""
    return decompress(zstd.ZstdDecompressor(), message) if message[:4] == _ZSTD_MAGIC else message


def _private_copy(path: Path, stack: ExitStack, make: Callable[[Path, Path], None]) -> Path:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fvs_bag_"))
    target = Path(folder, _COMPRESSED.sub("", path.name))
    try:
        make(path, target)
    except (EOFError, zstd.ZstdError) as error:
        raise StorageError(f"it cannot be decompressed ({error}): it is cut off or damaged; copy it again") from error
    except OSError as error:
        raise StorageError(
            f"it has to be read through a copy in {folder}, which cannot be made ({error}); set TMPDIR to a folder "
            f"with room for more than {path.stat().st_size} bytes"
        ) from error
    return target


def _decompress(path: Path, target: Path) -> None:
    with zstd.open(path, "rb") as source, target.open("wb") as sink:
        while piece := source.read(2**24):
            free = shutil.disk_usage(target.parent).free
            if free - len(piece) < _LEAST_FREE_BYTES:
                raise StorageError(
                    f"decompressed it takes more than {sink.tell()} bytes, and the disk of {target.parent} would have "
                    f"fewer than {_LEAST_FREE_BYTES} left of {free}; set TMPDIR to a folder with more room"
                )
            sink.write(piece)


def _copy_and_checkpoint(path: Path, target: Path) -> None:
    for file in (path, *_logs(path)):
        shutil.copyfile(file, target.with_name(file.name))
    with closing(sqlite3.connect(target)) as database:
        # Reading rolls back what a journal undoes; leaving the mode moves the log into the database.
        database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        database.execute("PRAGMA journal_mode = DELETE").fetchone()


def _logs(path: Path) -> list[Path]:
    """What SQLite left beside a database: what is not in it yet, and what must be undone in it."""
    logs = (path.with_name(path.name + suffix) for suffix in ("-wal", "-journal"))
    return [log for log in logs if log.exists()]
