"""`answers.jsonl` of a run: written answer by answer, resumed after an interruption, never mixed with another run's.

Beside it lies `config.json`, with the settings that the answers depend on and their hash, which each row carries too.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TextIO

from fvs_ros.evaluation.benchmarks.predictions import AnswerRow
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.records import Record, read_json

ANSWERS = "answers.jsonl"
CONFIG = "config.json"
# 48 bits: two configurations of one folder meet by chance once in 10^14.
_HASH_DIGITS = 12

Settings = Mapping[str, object]


def config_hash(settings: Settings) -> str:
    """A short hash of settings that JSON can hold; the order of their names does not count."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]


def claim_folder(folder: Path, settings: Settings) -> str:
    """Makes a folder the one of a configuration, or checks that it is; any number of processes may do so at once.

    Returns:
        The configuration's hash.

    Raises:
        DataError: if the folder holds answers of other settings; the first one that differs is named.
        OSError: if it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, digest = folder / CONFIG, config_hash(settings)
    if not path.exists():
        stray = next((found for found in sorted(folder.glob("answers*.jsonl")) if found.stat().st_size), None)
        if stray is not None:
            raise DataError(stray, "", f"has no {CONFIG} beside it that tells how it was made; choose another folder")
        replace_text(path, json.dumps({"hash": digest, "settings": dict(settings)}, indent=2, sort_keys=True) + "\n")
    found = Record(path, "", read_json(path))
    if found.text("hash") != digest:
        before = found.raw("settings")
        before = before if isinstance(before, dict) else {}
        name = next((key for key in sorted({*before, *settings}) if before.get(key) != settings.get(key)), "hash")
        raise DataError(
            path,
            "",
            f"holds a run with {name} {before.get(name)!r}, this one has {settings.get(name)!r}; choose another folder",
        )
    return digest


def replace_text(path: Path, text: str) -> None:
    """Writes a file so that others see its old content or its new one, never a part.

    Raises:
        OSError: if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_answers(paths: Iterable[Path], digest: str) -> dict[str, AnswerRow]:
    """The rows of a run's files by question; an answer takes the place of a failure of the same question.

    A last line without its end was cut off by an interruption, and is left out.

    Raises:
        DataError: for a row of another configuration or form, or two different answers to one question.
    """
    rows: dict[str, AnswerRow] = {}
    places: dict[str, Path] = {}
    for path in paths:
        for row in _rows(path, digest):
            before = rows.get(row.id)
            if before is None or before.response is None:
                rows[row.id], places[row.id] = row, path
            elif row.response not in (None, before.response):
                raise DataError(
                    path,
                    f"id {row.id}",
                    f"has another answer in {places[row.id].name}; these are two runs of one shard, keep the files of "
                    "one",
                )
    return rows


def _rows(path: Path, digest: str) -> Iterator[AnswerRow]:
    if not path.exists():
        return
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(path, f"line {number}", f"is no JSON: {error.msg}") from error
        row = AnswerRow.from_record(Record(path, f"line {number}", value))
        if row.config != digest:
            raise DataError(path, f"line {number}", f"was made with config {row.config or '(none)'}, not {digest}")
        yield row


class AnswerFile:
    """A file of answers that one process writes; each row is on disk when `append` returns.

    Args:
        path: what was written before stays, but for failed answers, which are tried again, and a last line that was
            cut off.
        digest: hash of the configuration, from `claim_folder`.

    Attributes:
        rows: the answers in the file, by question.

    Raises:
        DataError: if another process writes the file, or it holds what `read_answers` refuses.
        OSError: if it cannot be written.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self._digest = digest
        self._lock = _lock(path)
        try:
            self.rows = {row.id: row for row in read_answers([path], digest).values() if row.response is not None}
            replace_text(path, "".join(row.to_json() + "\n" for row in self.rows.values()))
            self._file = path.open("a", encoding="utf-8")
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, row: AnswerRow) -> None:
        """Writes a row under this run's hash."""
        row = replace(row, config=self._digest)
        self._file.write(row.to_json() + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows[row.id] = row

    def close(self) -> None:
        """Lets others write the file; harmless to repeat."""
        self._file.close()
        self._lock.close()


def _lock(path: Path) -> TextIO:
    """An open file whose lock the system takes back when this process ends, however it ends."""
    # Not on the answers themselves: they are replaced, and a lock stays with the old file.
    file = path.with_name(f".{path.name}.lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise DataError(path, "", "is being written by another process; wait for it, or use another folder") from error
    return file


def merge(folder: Path, files: Iterable[Path], order: Sequence[str], digest: str) -> int:
    """Joins the files of a run to its `answers.jsonl`, in the order of the questions, if nothing is missing.

    Processes that come to their end at the same moment may all call it: they write the same.

    Args:
        folder: of the run.
        files: what its processes wrote; those that do not exist count as empty.
        order: ids of all questions.
        digest: hash of the configuration.

    Returns:
        How many questions have no row yet, not even a failed one; 0 if the file was written.

    Raises:
        DataError: see `read_answers`.
        OSError: if it cannot be written.
    """
    rows = read_answers(files, digest)
    missing = sum(identity not in rows for identity in order)
    if not missing:
        replace_text(folder / ANSWERS, "".join(rows[identity].to_json() + "\n" for identity in order))
    return missing
