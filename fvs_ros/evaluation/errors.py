"""What is raised for data and predictions that break their format."""

from __future__ import annotations

from pathlib import Path

from fvs_ros.errors import ReadableError


class DataError(ReadableError):
    """A file of questions, annotations or predictions cannot be used as it is.

    Nothing is left out of a score to get around it: the file is to be repaired or replaced.

    Attributes:
        file: the file or folder at fault.
        item: which part of it: an index, an id, a line; empty for the whole.
        problem: what was found, and what was expected instead.
    """

    def __init__(self, file: Path | str, item: str, problem: str) -> None:
        super().__init__(": ".join(part for part in (str(file), item, problem) if part))
        self.file = Path(file)
        self.item = item
        self.problem = problem
