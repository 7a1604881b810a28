"""The folder of a store: its files, who holds it, and what its database says of itself before SQLite touches it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
from pathlib import Path

from fvs_ros.episodic.errors import Problem, StoreError

DATABASE = "episodes.sqlite"
LOCK = "lock"
SAVED_MEMORY = "memory.safetensors"
"""The Flash Memory, as it was last saved beside the segments."""
PARTIAL = ".partial"
"""Suffix of a file that is not complete yet."""
APPLICATION_ID = 0x46565345
"""In the database's header: "FVSE"."""
FORMAT = 1
"""Version of the tables, in the database's header. A store of a higher one is left alone."""

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


class FolderLock:
    """The right to open the store in a folder, held by one process at a time.

    It is the kernel's (`flock`): it ends with the process, by `kill -9` too, so a lock never outlives its holder. A
    process that forks shares it with its child.

    Raises:
        StoreError: another holds it, whose process and host the message names.
        OSError: the lock file cannot be made; `is_unwritable` tells whether that is for lack of permission.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = (
                os.pread(self._file, 200, 0).decode(errors="replace").strip() or "a process that is just opening it"
            )
            os.close(self._file)
            raise StoreError(
                Problem.HELD, f"{folder} is open in {holder}; end that, or choose another folder"
            ) from None
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        except OSError:
            # A full disk: the lock holds without the name.
            pass

    def release(self) -> None:
        """Gives the right back; once."""
        os.close(self._file)


def delete_saved_memory(path: Path) -> None:
    """Deletes the saved Flash Memory, and a half written one, for good.

    Raises:
        StoreError: it cannot be deleted.
    """
    try:
        # Both, whatever the first says.
        if delete(path) | delete(path.with_name(path.name + PARTIAL)):
            sync_folder(path.parent)
    except OSError as error:
        message = f"{path} cannot be deleted ({error.strerror}), and nothing is forgotten; make its folder writable"
        raise StoreError(Problem.DISK_FAILS, message) from error


def delete(path: Path) -> bool:
    """Deletes a file, or a folder with all that is in it; returns whether it was there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return True
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def make_folder(folder: Path) -> None:
    """Makes a folder where there is none, for good.

    Raises:
        StoreError: something else stands in its place.
    """
    if folder.is_dir():
        return
    if folder.exists():
        raise StoreError(Problem.FOREIGN, f"{folder} is a file; name a folder for the episode store")
    folder.mkdir(parents=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_unwritable(error: OSError) -> bool:
    """Whether a file cannot be opened because it, its folder or its disk may only be read."""
    return error.errno in _UNWRITABLE


def check_header(path: Path) -> None:
    """Reads the first bytes of a database and changes nothing.

    Raises:
        StoreError: the file is no episode store, is cut off, or a newer version wrote it.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
    leave = "it is left as it is; choose another folder, or move it away"
    if len(header) < _HEADER_BYTES and header[: len(_MAGIC)] == _MAGIC[: len(header)]:
        raise StoreError(
            Problem.DAMAGED, f"{path} is cut off: it has {size} bytes, its header alone {_HEADER_BYTES}; {leave}"
        )
    if not header.startswith(_MAGIC):
        raise StoreError(Problem.FOREIGN, f"{path} is not a SQLite database; {leave}")
    application = int.from_bytes(header[68:72], "big")
    if application != APPLICATION_ID:
        raise StoreError(
            Problem.FOREIGN,
            f"{path} is the database of another application (0x{application:08x}, an episode store has "
            f"0x{APPLICATION_ID:08x}); {leave}",
        )
    version = int.from_bytes(header[60:64], "big")
    if version > FORMAT:
        raise StoreError(
            Problem.NEWER,
            f"{path} has format {version}, and this version reads up to {FORMAT}; update the package, or choose "
            "another folder",
        )
    needed = page_bytes(header) * int.from_bytes(header[28:32], "big")
    # With a write-ahead log the header may be ahead of the file: then SQLite decides.
    log = path.with_name(f"{path.name}-wal")
    if size < needed and not (log.exists() and log.stat().st_size):
        raise StoreError(
            Problem.DAMAGED,
            f"{path} is cut off: it has {size} bytes, and its header says {needed}; move it away, or restore a copy",
        )


def page_bytes(header: bytes) -> int:
    """The size of a page, from the first bytes of a database."""
    size = int.from_bytes(header[16:18], "big")
    return 65536 if size == 1 else size


def scrub_unused(path: Path) -> None:
    """Overwrites with zeros what no row uses between the rows of each page.

    SQLite zeroes what it deletes (`secure_delete`), but not the copies that stay behind where rows moved from page to
    page. Nothing may be in the write-ahead log, and no connection may be open. It may be interrupted anywhere: only
    unused bytes change. Source: the SQLite file format, section "B-tree Pages".
    """
    with path.open("r+b", buffering=0) as file:
        size = page_bytes(file.read(_HEADER_BYTES))
        pages_of_a_map = size // 5 + 1
        for page in range(os.fstat(file.fileno()).st_size // size):
            if page and (page - 1) % pages_of_a_map == 0:
                continue
            start = _HEADER_BYTES if page == 0 else 0
            file.seek(page * size)
            content = file.read(size)
            if len(content) == size and content[start] in (2, 5, 10, 13):
                first, last = _unused(content, start)
                if any(content[first:last]):
                    file.seek(page * size + first)
                    file.write(bytes(last - first))
        os.fsync(file.fileno())


def _unused(page: bytes, start: int) -> tuple[int, int]:
    """The gap between a page's array of pointers and its rows; empty where the numbers make no sense."""
    rows = int.from_bytes(page[start + 3 : start + 5], "big")
    first = start + (12 if page[start] in (2, 5) else 8) + 2 * rows
    last = int.from_bytes(page[start + 5 : start + 7], "big") or 65536
    return (first, last) if first <= last <= len(page) else (0, 0)
