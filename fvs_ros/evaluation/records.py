"""JSON read field by field: a wrong type is reported with its file, its item and what was expected."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fvs_ros.evaluation.errors import DataError
from fvs_ros.files import read_bounded

MOST_BYTES = 2**30
"""Of one file. The largest of the public benchmarks, with subtitles, has 0.1 GB."""

Value = TypeVar("Value")


class Identified(Protocol):
    """What is read from one object of a file."""

    @property
    def id(self) -> str:
        """Unique in its file."""


Item = TypeVar("Item", bound=Identified)


class Record:
    """One JSON object of a file.

    Args:
        file: where it was read, for messages.
        item: its index, id or line, for messages.
        value: what was parsed; anything but an object is refused.

    Raises:
        DataError: from the constructor and every method, for what is not as expected.
    """

    def __init__(self, file: Path, item: str, value: object) -> None:
        self.file = file
        self.item = item
        if not isinstance(value, dict):
            raise self.error(f"{_shown(value)} found, an object with named fields expected")
        self._fields: dict[str, Any] = value

    def error(self, problem: str) -> DataError:
        """A `DataError` about this object."""
        return DataError(self.file, self.item, problem)

    def named(self, item: str) -> Record:
        """The same object under another name in messages, once its id is known."""
        return Record(self.file, item, self._fields)

    def __contains__(self, key: str) -> bool:
        return key in self._fields

    def keys(self) -> frozenset[str]:
        """The names of all fields."""
        return frozenset(self._fields)

    def allow(self, known: Iterable[str]) -> None:
        """Refuses fields other than these."""
        unknown = self.keys() - set(known)
        if unknown:
            raise self.error(f"field {min(unknown)!r} is unknown; the fields are {', '.join(sorted(known))}")

    def optional(self, key: str, read: Callable[[str], Value]) -> Value | None:
        """What `read` (a method of this object) gives for `key`; None where the field is absent or null."""
        return read(key) if self._fields.get(key) is not None else None

    def raw(self, key: str) -> Any:
        """The field as parsed."""
        if key not in self._fields:
            raise self.error(f"field {key!r} is missing; the fields are {', '.join(sorted(self._fields)) or 'none'}")
        return self._fields[key]

    def _expect(self, key: str, expected: str, fits: Callable[[Any], bool]) -> Any:
        value = self.raw(key)
        if not fits(value):
            raise self._wrong(key, value, expected)
        return value

    def text(self, key: str) -> str:
        """A string that is not blank."""
        return str(self._expect(key, "a string that is not blank", lambda it: isinstance(it, str) and bool(it.strip())))

    def identity(self, key: str = "id") -> str:
        """An id: a string or an integer; given as a string, since published files mix both."""
        return str(self._expect(key, "a string or an integer", lambda it: type(it) in (str, int) and it != ""))

    def integer(self, key: str) -> int:
        """An integer."""
        return int(self._expect(key, "an integer", lambda it: type(it) is int))

    def boolean(self, key: str) -> bool:
        """True or false."""
        return bool(self._expect(key, "true or false", lambda it: type(it) is bool))

    def number(self, key: str) -> float:
        """A finite number."""
        return self._number(key, self.raw(key))

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        return tuple(self._number(key, value) for value in self.items(key))

    def _number(self, key: str, value: object) -> float:
        number = math.nan
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):  # Of an integer; anything else becomes infinite.
                number = float(value)
        if not math.isfinite(number):
            raise self._wrong(key, value, "a finite number")
        return number

    def items(self, key: str) -> list[Any]:
        """A list."""
        return list(self._expect(key, "a list", lambda it: isinstance(it, list)))

    def texts(self, key: str, blank: bool = False) -> tuple[str, ...]:
        """A list of strings, at least one; `blank` says whether some may be blank."""
        values = self.items(key)
        if not values or not all(isinstance(value, str) and (blank or value.strip()) for value in values):
            raise self._wrong(key, values, "a list of strings" + ("" if blank else " that are not blank"))
        return tuple(values)

    def record(self, key: str) -> Record:
        """An object."""
        return Record(self.file, f"{self.item}, {key}", self.raw(key))

    def records(self, key: str) -> list[Record]:
        """A list of objects."""
        return [Record(self.file, f"{self.item}, {key}[{i}]", value) for i, value in enumerate(self.items(key))]

    def _wrong(self, key: str, value: object, expected: str) -> DataError:
        return self.error(f"field {key!r} is {_shown(value)}, {expected} expected")


def _shown(value: object) -> str:
    """A value for a message: JSON, shortened."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def read_text(path: Path) -> str:
    """A UTF-8 text file, a byte order mark taken off.

    Raises:
        DataError: if it is missing or no such file.
    """
    try:
        return read_bounded(path, MOST_BYTES).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise DataError(path, "", "does not exist") from None
    except IsADirectoryError:
        raise DataError(path, "", "is a folder, a file expected") from None
    except OSError as error:
        raise DataError(path, "", f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(path, f"byte {error.start}", "is no UTF-8 text") from error
    except ValueError as error:
        raise DataError(path, "", f"is too large: {error}") from error


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        DataError: if it is missing or no JSON.
    """
    return _parsed(path, read_text(path))


def _parsed(path: Path, text: str, line: int | None = None, exact: bool = False) -> Any:
    """The JSON value of a whole file, or of one of its lines; see `read_lines`."""
    try:
        value = json.loads(text, parse_float=Decimal if exact else None)
        # A whole file may be our own, with a recording's name that is no UTF-8.
        if line and "\\ud" in text.lower():
            json.dumps(value, default=str, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        # Such JSON can be parsed, but neither tokenised nor written.
        half = error.object[error.start : error.start + 1]
        problem = f"holds {half!a}, half of a character; write whole ones, in UTF-8"
        raise DataError(path, f"line {line}", problem) from None
    except json.JSONDecodeError as error:
        raise DataError(path, f"line {line or error.lineno}", f"is no JSON: {error.msg}") from error
    except RecursionError:
        raise DataError(path, f"line {line}" if line else "", "is nested too deeply") from None
    except (ValueError, ArithmeticError) as error:
        # Python reads no integer of more than 4,300 digits, and no decimal of an exponent of 19.
        raise DataError(path, f"line {line}" if line else "", f"holds a number that is too long ({error})") from None
    return value


def read_list(path: Path) -> list[Record]:
    """A JSON file that holds one list of objects.

    Raises:
        DataError: if it is missing, no JSON, or holds anything else or nothing.
    """
    value = read_json(path)
    if not isinstance(value, list):
        raise DataError(path, "", f"{_shown(value)} found, a list of objects expected")
    if not value:
        raise DataError(path, "", "the list is empty, at least one object expected")
    return [Record(path, f"item {index}", element) for index, element in enumerate(value)]


def read_lines(path: Path, exact: bool = False, cut: bool = False) -> Iterator[Record]:
    """The objects of a JSON-lines file; blank lines are allowed.

    Args:
        path: the file.
        exact: read numbers with a point as `Decimal`, which keeps the nanoseconds of a stamp.
        cut: leave out a last line that lacks its end, as an interrupted write leaves it.

    Raises:
        DataError: with the line's number, if a line is no JSON object.
    """
    lines = read_text(path).split("\n")
    for number, line in enumerate(lines[:-1] if cut else lines, start=1):
        if line.strip():
            yield Record(path, f"line {number}", _parsed(path, line, number, exact))


def unique(read: Iterable[tuple[Record, Item]]) -> list[Item]:
    """What was read from each record, as a list.

    Raises:
        DataError: if two have one id; both records are named.
    """
    first: dict[str, Record] = {}
    items = []
    for record, item in read:
        if item.id in first:
            raise record.error(f"id {item.id!r} occurs before, in {first[item.id].item}; ids must differ")
        first[item.id] = record
        items.append(item)
    return items
