"""The files of a rosbag2 recording: which they are, what metadata.yaml announces, and how each one is opened."""

from __future__ import annotations

import logging
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from fvs_ros.sources.mcap_file import McapFile
from fvs_ros.sources.ros1 import Ros1File
from fvs_ros.sources.storage import Sqlite3File, StorageError, StorageFile, ros2_type

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

logger = logging.getLogger(__name__)

METADATA = "metadata.yaml"
# A part of a split recording carries its number, a compressed one a second suffix.
_PART = re.compile(r"(?P<stem>.+?)(?:_(?P<number>\d+))?\.(?P<storage>db3|mcap)(?:\.zstd?)?")
_COMPRESSED = re.compile(r"\.zstd?$")
# SQLite's log of what is not in the database yet, and of what must be undone in it. A log of only a header is empty.
_LOGS = ("-wal", "-journal")
_LOG_HEADER_BYTES = 32
# The first bytes of what zstd has compressed; CDR begins with a zero.
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


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
    present = sorted(entry for entry in folder.iterdir() if is_storage_file(entry))
    try:
        metadata = yaml.safe_load((folder / METADATA).read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
        listed = [PurePosixPath(str(name)).name for name in metadata["relative_file_paths"]]
        announced = _announced(metadata)
    except FileNotFoundError:
        listed, announced = [], Announced()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        logger.warning("%s cannot be used (%s); the recording is read from its files alone", folder / METADATA, reason)
        listed, announced = [], Announced()
    if not present:
        raise StorageError(
            "it is not a bag: it has no .mcap or .db3 file"
            + (f", although {METADATA} lists {', '.join(listed)}, which are missing" if listed else "")
            + "; give the folder of a rosbag2 bag, with its files"
        )
    if listed:
        return _listed_files(folder, listed, present), announced
    return _unlisted_files(present), announced


def _announced(metadata: dict[str, Any]) -> Announced:
    topics: dict[str, int] = {}
    types: dict[str, str] = {}
    for entry in metadata.get("topics_with_message_count") or []:
        name = str(entry["topic_metadata"]["name"])
        topics[name] = topics.get(name, 0) + int(entry["message_count"])
        types[name] = ros2_type(str(entry["topic_metadata"].get("type", "")))
    files = {
        PurePosixPath(str(entry["path"])).name: int(entry["message_count"]) for entry in metadata.get("files") or []
    }
    return Announced(topics, types, files)


def _listed_files(folder: Path, listed: Iterable[str], present: list[Path]) -> list[Path]:
    """The files that metadata.yaml lists, and parts of the same recording that it forgets."""
    found: dict[tuple[str, str | None], Path] = {}
    missing = []
    for name in listed:
        # Playing a compressed bag leaves its files beside it without their second suffix.
        plain = _COMPRESSED.sub("", name)
        candidates = [path for path in map(folder.joinpath, (name, plain, f"{plain}.zstd")) if path.exists()]
        if candidates:
            found[_part(candidates[0])] = candidates[0]
        else:
            missing.append(name)
    if missing:
        raise StorageError(
            f"{', '.join(missing)}, listed in {METADATA}, is missing; copy it into the folder, or remove {METADATA} to "
            f"read only what is there: {', '.join(path.name for path in present)}"
        )
    stems = {stem for stem, number in found if number is not None}
    forgotten = [path for path in present if _part(path)[0] in stems and _part(path) not in found]
    if forgotten := _one_each(forgotten):
        names = ", ".join(path.name for path in forgotten)
        logger.warning("%s does not list %s of the same recording; they are read too", folder / METADATA, names)
    return [*found.values(), *forgotten]


def _unlisted_files(present: list[Path]) -> list[Path]:
    """The parts of the one recording in a folder without metadata.yaml, by their numbers."""
    names = ", ".join(path.name for path in present)
    parts = _one_each(present)
    if len(parts) == 1:
        return parts
    if len({_part(path)[0] for path in parts}) > 1 or any(_part(path)[1] is None for path in parts):
        raise StorageError(f"it has no {METADATA} and holds several recordings; give one of its files: {names}")
    parts.sort(key=_number)
    numbers = [_number(path) for path in parts]
    if gaps := sorted(set(range(numbers[0], numbers[-1])) - set(numbers)):
        raise StorageError(
            f"it has no {METADATA}, and of its parts {', '.join(map(str, gaps))} is missing between those that are "
            f"there; copy it into the folder, or give one of the files: {names}"
        )
    logger.warning("%s has no %s; read as parts of one recording: %s", parts[0].parent, METADATA, names)
    return parts


def _part(path: Path) -> tuple[str, str | None]:
    """Name of the recording and number of the part, None if it has none."""
    match = _PART.fullmatch(path.name)
    return (match["stem"], match["number"]) if match else (path.name, None)


def _number(path: Path) -> int:
    return int(_part(path)[1] or 0)


def _one_each(paths: Iterable[Path]) -> list[Path]:
    """Of a part that is there both compressed and not, the latter."""
    found: dict[tuple[str, str | None], Path] = {}
    for path in sorted(paths, key=lambda path: len(path.name)):
        found.setdefault(_part(path), path)
    return sorted(found.values())


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
        if any(_size(_beside(source.resolve(), log)) > _LOG_HEADER_BYTES for log in _LOGS):
            source = _private_copy(source.resolve(), stack, _copy_and_checkpoint)
        file = Sqlite3File(source)
    else:
        file = Ros1File(source)
    stack.callback(file.close)
    return file


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
        shutil.copyfileobj(source, sink, 1 << 20)


def _copy_and_checkpoint(path: Path, target: Path) -> None:
    shutil.copyfile(path, target)
    for log in _LOGS:
        if _beside(path, log).exists():
            shutil.copyfile(_beside(path, log), _beside(target, log))
    with closing(sqlite3.connect(target)) as database:
        # Reading rolls back what a journal undoes; leaving the mode moves the log into the database.
        database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        database.execute("PRAGMA journal_mode = DELETE").fetchone()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
