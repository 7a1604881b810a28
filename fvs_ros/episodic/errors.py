"""What can be wrong with an episode store: an error where it cannot be used, a notice where it can in part."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import Enum

from fvs_ros.errors import ReadableError


class Problem(Enum):
    """Why a store cannot be used (`StoreError`), or only in part (`Notice`)."""

    MISSING = "there is no store"
    FOREIGN = "the file is not an episode store"
    NEWER = "a newer version wrote the store"
    HELD = "another process has the store open"
    DAMAGED = "the file, or a row of it, is damaged"
    READ_ONLY = "the store can be read, not written"
    DISK_FULL = "the disk is full"
    DISK_FAILS = "the disk cannot be read or written"
    TOO_LARGE = "a segment is too large for the store's limit"
    CLOSED = "the store is closed"
    ANOTHER_CAMERA = "the store holds segments of other cameras"
    ANOTHER_PICTURE_SIZE = "the store holds pictures of another size"
    ANOTHER_MODEL = "features must be made anew for this model"


@dataclass(frozen=True)
class Notice:
    """A store works, but not in full. The message says what is wrong and what to do."""

    problem: Problem
    message: str


class StoreError(ReadableError):
    """The store cannot do what was asked; it is as it was before.

    Attributes:
        problem: the kind, to decide by.
    """

    def __init__(self, problem: Problem, message: str) -> None:
        super().__init__(message)
        self.problem = problem


# SQLite's own messages: Python 3.10 gives no error codes. Everything else it says of a file is damage.
_SQLITE_MESSAGES = {
    "disk is full": (Problem.DISK_FULL, "free space on the disk, or open the store with a smaller limit"),
    "disk I/O error": (Problem.DISK_FAILS, "check the disk, its quota and the kernel's log"),
    "unable to open": (Problem.DISK_FAILS, "check the folder's permissions"),
    "readonly database": (Problem.READ_ONLY, "open the store where its folder can be written"),
    "locked": (Problem.HELD, "close the program that has the database open"),
    "closed database": (Problem.CLOSED, "open it again"),
}


def store_error(error: sqlite3.Error, name: str) -> StoreError:
    """SQLite's error about the store `name` as one that says what to do."""
    text = str(error)
    for words, (problem, advice) in _SQLITE_MESSAGES.items():
        if words in text:
            return StoreError(problem, f"{name}: {text}; {advice}")
    return StoreError(Problem.DAMAGED, f"{name} is damaged ({text}); move it away, or restore a copy")
