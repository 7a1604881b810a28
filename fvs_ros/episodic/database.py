"""The database of a store: opening it without ever overwriting it, transactions, and its size in bytes.

Durability: a write-ahead log with ``synchronous=FULL``, so that a transaction is on the disk when it returns. `kill -9`
loses nothing then, and a power cut nothing either. One transaction per segment is one fsync per segment.

Size: `Budget` gives a part of the limit to the write-ahead log and the rest to the database, whose ``max_page_count``
SQLite itself never exceeds. The log is moved into the database (a checkpoint) once it has half its share, and no
transaction is larger than the other half.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvs_ros.episodic.errors import Problem, StoreError, store_error
from fvs_ros.episodic.folder import (
    APPLICATION_ID,
    DATABASE,
    FORMAT,
    PARTIAL,
    check_header,
    scrub_unused,
    sync_folder,
)
from fvs_ros.episodic.rows import SCHEMA, Row

PAGE_BYTES = 4096
LEAST_LIMIT_BYTES = 2**20
_MOST_LOG_BYTES = 4 * 2**20
LARGEST_USEFUL_LIMIT_BYTES = 4 * _MOST_LOG_BYTES
"""Beyond this limit a store takes more segments, but no larger ones."""
# Of SQLite for each page in its log.
_FRAME_BYTES = PAGE_BYTES + 24
# Beyond the pages of a segment's own values: rows in eight tables, their indices, and pages that split.
_SLACK_PAGES = 24


@dataclass(frozen=True)
class Budget:
    """How `limit_bytes` is shared between the database and its write-ahead log.

    Raises:
        ValueError: the limit is below `LEAST_LIMIT_BYTES`.
    """

    limit_bytes: int

    def __post_init__(self) -> None:
        if self.limit_bytes < LEAST_LIMIT_BYTES:
            raise ValueError(f"a limit of {self.limit_bytes} bytes; an episode store needs {LEAST_LIMIT_BYTES}")

    @property
    def log_pages(self) -> int:
        """Most pages in the write-ahead log."""
        return min(self.limit_bytes // 4, _MOST_LOG_BYTES) // _FRAME_BYTES

    @property
    def database_pages(self) -> int:
        """Most pages in the database."""
        return (self.limit_bytes - self.log_pages * _FRAME_BYTES) // PAGE_BYTES - 1

    @property
    def largest_segment(self) -> int:
        """Most bytes of a segment's keyframe and features: a transaction also zeroes as many of those it evicts."""
        return (self.log_pages // 2 - _SLACK_PAGES) * PAGE_BYTES // 2


def pages_for(sizes: Sequence[int]) -> int:
    """At most so many pages does a segment take whose values have these sizes in bytes."""
    return sum(size // (PAGE_BYTES - 4) + 2 for size in sizes) + _SLACK_PAGES


class Database:
    """One connection to a store's database, in a file or in RAM. Not for several threads at once.

    Args:
        folder: of the database; None: in RAM.
        limit_bytes: of a new one; of an existing one None means the limit it had.
        read_only: nothing is written, not even by SQLite itself.

    Raises:
        StoreError: the file is foreign, newer, cut off, damaged or open elsewhere, or the disk is full.
        ValueError: the limit is too small.
        OSError: the file cannot be read or made.
    """

    def __init__(self, folder: Path | None, limit_bytes: int | None, read_only: bool) -> None:
        self.path = None if folder is None else folder / DATABASE
        self.name = "the episode store in RAM" if self.path is None else str(self.path)
        self.read_only = read_only
        self._file: tuple[int, int] | None = None
        if self.path is not None and self.path.exists():
            check_header(self.path)
            self._connection = self._connect(self.path)
        else:
            self._connection = self._create(self.path)
        try:
            with self.errors():
                stored = self.setting("limit_bytes", LEAST_LIMIT_BYTES)
                self.budget = Budget(stored if limit_bytes is None else limit_bytes)
                self._configure()
        except BaseException:
            self.close()
            raise

    def _connect(self, path: Path) -> sqlite3.Connection:
        options = "mode=rw"
        if self.read_only:
            # Where nothing may be written: without locks, SQLite merges the log of a crash in RAM. Without a log it
            # would make an empty one, unless the file is said to be unchangeable.
            log = path.with_name(f"{path.name}-wal")
            options = "mode=ro&vfs=unix-none" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
        with self.errors():
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?{options}", uri=True, isolation_level=None, check_same_thread=False
            )
            # Before the log is first read: no file of shared memory then, and no other program in between.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._file = _identity(path)
            return connection

    def _create(self, path: Path | None) -> sqlite3.Connection:
        """A new database, which gets its name once it is complete."""
        if path is None:
            connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            _write_schema(connection)
            return connection
        partial = path.with_name(path.name + PARTIAL)
        for leftover in path.parent.glob(f"{partial.name}*"):
            leftover.unlink()
        with self.errors(), contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as connection:
            _write_schema(connection)
        partial.rename(path)
        sync_folder(path.parent)
        return self._connect(path)

    def _configure(self) -> None:
        self.execute("PRAGMA temp_store = MEMORY")
        if self.read_only:
            self.execute("PRAGMA query_only = ON")
            return
        self.execute("PRAGMA secure_delete = ON")
        self.execute("PRAGMA synchronous = FULL")
        self.execute(f"PRAGMA wal_autocheckpoint = {self.budget.log_pages // 2}")
        if self.setting("limit_bytes", 0) != self.budget.limit_bytes:
            with self.transaction():
                self.set("limit_bytes", self.budget.limit_bytes)

    def limit_pages(self) -> None:
        """From here on SQLite itself keeps the database below its share of the limit."""
        self.execute(f"PRAGMA max_page_count = {self.budget.database_pages}")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turns SQLite's errors into a `StoreError` that names the store."""
        try:
            yield
        except sqlite3.Error as error:
            raise store_error(error, self.name) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it on the disk at the end, or none of it.

        Raises:
            StoreError: it could not be written.
        """
        self.require_in_place()
        with self.errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def require_in_place(self) -> None:
        """Before anything is written: SQLite goes on writing to a file that has no name any more.

        Raises:
            StoreError: it is open for reading only, or the file was deleted, moved or replaced since it was opened.
        """
        if self.read_only:
            raise StoreError(
                Problem.READ_ONLY, f"{self.name} is open for reading only; open it where it can be written"
            )
        if self.path is not None and _identity(self.path) != self._file:
            raise StoreError(
                Problem.DISK_FAILS,
                f"{self.name} was deleted, moved or replaced while it was open, and nothing new is kept; put it back, "
                "or start again",
            )

    def execute(self, statement: str, values: Row = ()) -> list[Any]:
        """The rows that a statement gives."""
        return self._connection.execute(statement, values).fetchall()

    def insert(self, statement: str, values: Row) -> int:
        """The number that the new row gets."""
        return self._connection.execute(statement, values).lastrowid or 0

    def number(self, statement: str, values: Row = ()) -> int:
        """The one number that a statement gives; 0 for none."""
        rows = self.execute(statement, values)
        return rows[0][0] or 0 if rows else 0

    def setting(self, name: str, default: int) -> int:
        """A number that the store keeps about itself."""
        rows = self.execute("SELECT value FROM settings WHERE name = ?", (name,))
        return rows[0][0] if rows else default

    def set(self, name: str, value: int) -> None:
        """Keeps a number about the store."""
        self.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def free_pages(self) -> int:
        """Pages that can be filled before the database has its share of the limit; below 0 if it has more."""
        used = self.number("PRAGMA page_count") - self.number("PRAGMA freelist_count")
        return self.budget.database_pages - used

    def file_bytes(self) -> int:
        """Bytes on the disk, the write-ahead log included; in RAM those of the database."""
        if self.path is None:
            return self.number("PRAGMA page_count") * PAGE_BYTES
        files = [self.path, self.path.with_name(f"{self.path.name}-wal")]
        return sum(file.stat().st_size for file in files if file.exists())

    def give_back_pages(self) -> None:
        """Returns all free pages to the disk, in steps that keep the log small, and empties the log."""
        with self.errors():
            while self.number("PRAGMA freelist_count"):
                # As a script: `execute` would end it after the first page.
                self._connection.executescript(f"PRAGMA incremental_vacuum({self.budget.log_pages // 4})")
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def scrub(self) -> None:
        """Leaves no byte of a deleted row in any file; the database is closed and opened again meanwhile."""
        if self.path is None:
            return
        self.give_back_pages()
        self._connection.close()
        try:
            scrub_unused(self.path)
        finally:
            self._connection = self._connect(self.path)
            self._configure()
            self.limit_pages()

    def close(self) -> None:
        """Moves the log into the database and closes it; a full disk leaves the log for the next opening."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name; None for none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _write_schema(connection: sqlite3.Connection) -> None:
    for setting in (
        f"page_size = {PAGE_BYTES}",
        "auto_vacuum = INCREMENTAL",
        "journal_mode = WAL",
        f"application_id = {APPLICATION_ID}",
        f"user_version = {FORMAT}",
    ):
        connection.execute(f"PRAGMA {setting}").fetchall()
    connection.executescript(SCHEMA)
