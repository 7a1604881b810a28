"""`answers.jsonl` of a run: written row by row, resumed after an interruption, never mixed with another run's.

`config.json` beside it holds the settings that the answers depend on, and their hash, which each row carries.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TextIO

from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.records import Record, read_json, read_lines
from fvs_ros.hashing import config_hash
from fvs_ros.stream.types import Kept, Moment

ANSWERS = "answers.jsonl"
CONFIG = "config.json"

Answer = int | bool | float | str | tuple[float, ...]
Settings = Mapping[str, object]


@dataclass(frozen=True)
class AnswerRow:
    """One row of `answers.jsonl`: the only definition of that file.

    Attributes:
        id: of the question.
        question: its text.
        answer: the right one: a choice's index, a count, yes or no, minutes, metres or text; None if unknown.
        response: what the model wrote; None if it failed, which counts as wrong.
        answered_s: seconds on the stream's clock at which a proactive answer came; None if it was asked for.
        first_token_s, total_s: seconds from the question to the first and to the last token.
        config: hash of the configuration that gave the answer, empty where unknown.
        error: why there is no response, empty where there is one.
        memory_version: of the memory that was read.
        memory_steps: grid steps that it had seen.
        moments: keyframes that the model read, in time order, without their camera frame and pose.
        prefilled: whether an earlier question had prefilled the memory, so that the first token came sooner.
        confidence: from 0 to 1, how sure the model was of the response.
        calibrated: whether that is the share of such answers that are right.
        not_seen: whether the response says that what was asked for was not seen.
    """

    id: str
    question: str
    answer: Answer | None
    response: str | None
    answered_s: float | None = None
    first_token_s: float | None = None
    total_s: float | None = None
    config: str = ""
    error: str = ""
    memory_version: int | None = None
    memory_steps: int | None = None
    moments: tuple[Moment, ...] | None = None
    prefilled: bool | None = None
    confidence: float | None = None
    calibrated: bool | None = None
    not_seen: bool | None = None

    def to_json(self) -> str:
        """The row as one line, without what is unknown."""
        kept = _known(self, required=("id", "question", "answer", "response"))
        if self.moments is not None:
            kept["moments"] = [_known(moment) for moment in self.moments]
        return json.dumps(kept)

    @classmethod
    def from_record(cls, record: Record) -> AnswerRow:
        """The row of a JSON object.

        Raises:
            DataError: if a field is unknown, missing or of the wrong type.
        """
        record.allow(one.name for one in fields(cls))
        return cls(
            id=record.identity(),
            question=record.text("question"),
            answer=_answer(record),
            response=read_response(record, "response"),
            answered_s=record.optional("answered_s", record.number),
            first_token_s=record.optional("first_token_s", record.number),
            total_s=record.optional("total_s", record.number),
            config=record.optional("config", record.text) or "",
            error=record.optional("error", record.text) or "",
            memory_version=record.optional("memory_version", record.integer),
            memory_steps=record.optional("memory_steps", record.integer),
            moments=record.optional("moments", lambda key: tuple(map(_moment, record.records(key)))),
            prefilled=record.optional("prefilled", record.boolean),
            confidence=record.optional("confidence", record.number),
            calibrated=record.optional("calibrated", record.boolean),
            not_seen=record.optional("not_seen", record.boolean),
        )


def _known(row: AnswerRow | Moment, required: Sequence[str] = ()) -> dict[str, Any]:
    """The fields that hold something, and those that are required."""
    values = {one.name: getattr(row, one.name) for one in fields(row)}
    known = {name: value for name, value in values.items() if name in required or value not in (None, "")}
    # Equal to 0, which may be a number that is known.
    return {name: value for name, value in known.items() if value is not Kept.NOTHING}


def _moment(record: Record) -> Moment:
    record.allow(("stamp_ns", "start_ns", "end_ns", "weight", "relevance"))
    return Moment(
        stamp_ns=record.integer("stamp_ns"),
        start_ns=record.integer("start_ns"),
        end_ns=record.integer("end_ns"),
        weight=record.number("weight"),
        relevance=record.optional("relevance", record.number),
    )


def _answer(record: Record) -> Answer | None:
    value = record.raw("answer")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return record.numbers("answer")


def read_response(record: Record, key: str) -> str | None:
    """What a model wrote: a string, or null where it wrote nothing.

    Raises:
        DataError: for anything else.
    """
    value = record.raw(key)
    if value is not None and not isinstance(value, str):
        raise record.error(f"field {key!r} is no string and not null, what the model wrote expected")
    return value


def claim_folder(folder: Path, settings: Settings) -> str:
    """Claims a folder for a configuration, or checks the claim; safe for any number of processes.

    Returns:
        The configuration's hash.

    Raises:
        DataError: if the folder holds answers of other settings; the first one that differs is named.
        OSError: if it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, config = folder / CONFIG, config_hash(settings)
    if not path.exists():
        stray = next((found for found in sorted(folder.glob("answers*.jsonl")) if found.stat().st_size), None)
        if stray is not None:
            raise DataError(stray, "", f"has no {CONFIG} beside it that says how it was made; choose another folder")
        replace_text(path, json.dumps({"hash": config, "settings": dict(settings)}, indent=2, sort_keys=True) + "\n")
    found = Record(path, "", read_json(path))
    if found.text("hash") != config:
        before = found.raw("settings")
        before = before if isinstance(before, dict) else {}
        name = next((key for key in sorted({*before, *settings}) if before.get(key) != settings.get(key)), "hash")
        raise DataError(
            path,
            "",
            f"holds a run with {name} {before.get(name)!r}, this one has {settings.get(name)!r}; choose another folder",
        )
    return config


def replace_text(path: Path, text: str) -> None:
    """Replaces a file in one step: readers see the old content or the new one.

    Raises:
        OSError: if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # A file's name may hold bytes that are no UTF-8.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_answers(paths: Iterable[Path], config: str) -> dict[str, AnswerRow]:
    """The rows of a run's files by question; an answer takes the place of a failure of the same question.

    A last line without its end was cut off by an interruption, and is left out.

    Raises:
        DataError: for a row of another configuration or form, or two different answers to one question.
    """
    rows: dict[str, AnswerRow] = {}
    places: dict[str, Path] = {}
    for path in paths:
        for record in read_lines(path, cut=True) if path.exists() else ():
            row = AnswerRow.from_record(record)
            if row.config != config:
                raise record.error(f"was made with config {row.config or '(none)'}, not {config}")
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


class AnswerFile:
    """A file of answers that one process writes; each row is on disk when `append` returns.

    Args:
        path: rows that it holds stay, except failed answers, which are tried again, and a last line that was cut off.
        config: hash of the configuration, from `claim_folder`.

    Attributes:
        rows: the answers in the file, by question.

    Raises:
        DataError: if another process writes the file, or it holds what `read_answers` refuses.
        OSError: if it cannot be written.
    """

    def __init__(self, path: Path, config: str) -> None:
        self._config = config
        self._lock = _lock(path)
        try:
            self.rows = {row.id: row for row in read_answers([path], config).values() if row.response is not None}
            replace_text(path, "".join(row.to_json() + "\n" for row in self.rows.values()))
            self._file = path.open("a", encoding="utf-8")
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, row: AnswerRow) -> None:
        """Writes a row under this run's hash."""
        row = replace(row, config=self._config)
        self._file.write(row.to_json() + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows[row.id] = row

    def close(self) -> None:
        """Releases the file; may be repeated."""
        self._file.close()
        self._lock.close()


def _lock(path: Path) -> TextIO:
    """An open file with a lock that ends with this process, even if it is killed."""
    # Not on the answers themselves: they are replaced, and a lock stays with the old file.
    file = path.with_name(f".{path.name}.lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise DataError(path, "", "is being written by another process; wait for it, or use another folder") from error
    return file


def merge(folder: Path, files: Iterable[Path], order: Sequence[str], config: str) -> int:
    """Joins the files of a run to its `answers.jsonl`, in the order of the questions, if nothing is missing.

    Processes that finish together may all call it: they write the same.

    Args:
        folder: of the run.
        files: what its processes wrote; those that do not exist count as empty.
        order: ids of all questions.
        config: hash of the configuration.

    Returns:
        How many questions have no row yet, not even a failed one; 0 if the file was written.

    Raises:
        DataError: see `read_answers`.
        OSError: if it cannot be written.
    """
    rows = read_answers(files, config)
    missing = sum(identity not in rows for identity in order)
    if not missing:
        replace_text(folder / ANSWERS, "".join(rows[identity].to_json() + "\n" for identity in order))
    return missing
