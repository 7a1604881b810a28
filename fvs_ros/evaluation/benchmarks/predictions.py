"""Finished answers: our `answers.jsonl`, and the result files of Flash-VStream, OVO-Bench and StreamingBench."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvs_ros.evaluation.benchmarks import ovo_bench, streaming_bench
from fvs_ros.evaluation.benchmarks.question import AnswerKind, BenchmarkQuestion
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.parsing import LETTERS, inline_options
from fvs_ros.evaluation.records import Record, read_json, read_lines, read_text

Answer = int | bool | float | str | tuple[float, ...]
_MOMENT_NUMBERS = 5


@dataclass(frozen=True)
class AnswerRow:
    """One row of `answers.jsonl`: the only definition of that file.

    Attributes:
        id: of the question.
        question: as asked.
        answer: the right one, in the form of `BenchmarkQuestion.answer`; None where there is none.
        response: what the model wrote; None if it failed, counted as wrong.
        answered_s: seconds on the stream's clock at which a proactive answer came; None if it was asked for.
        first_token_s: from the question to the first token, seconds.
        total_s: from the question to the last token, seconds.
        config: hash of the configuration that gave the answer, empty where unknown.
        error: why there is no response, empty where there is one.
        memory_version: of the memory that was read.
        memory_steps: grid steps that it had seen.
        moments: keyframes that the model had in front of it: `[stamp, start, end, weight, relevance]`, the first three
            in nanoseconds, relevance -1 where moments are not ranked.
        prefilled: whether the memory had been read for an earlier question, so that the first token came sooner.
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
    moments: tuple[tuple[float, ...], ...] | None = None
    prefilled: bool | None = None

    def to_json(self) -> str:
        """The row as one line, without what is not known."""
        required = ("id", "question", "answer", "response")
        fields = dataclasses.asdict(self)
        kept = {key: value for key, value in fields.items() if key in required or value not in (None, "")}
        return json.dumps(kept)

    @classmethod
    def from_record(cls, record: Record) -> AnswerRow:
        """The row of a record.

        Raises:
            DataError: if a field is unknown, missing or of the wrong type.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = record.keys() - known
        if unknown:
            raise record.error(f"field {min(unknown)!r} is unknown; the fields are {', '.join(sorted(known))}")
        return cls(
            id=record.identity(),
            question=record.text("question"),
            answer=_answer(record),
            response=_response(record, "response"),
            answered_s=record.optional("answered_s", record.number),
            first_token_s=record.optional("first_token_s", record.number),
            total_s=record.optional("total_s", record.number),
            config=record.optional("config", record.text) or "",
            error=record.optional("error", record.text) or "",
            memory_version=record.optional("memory_version", record.integer),
            memory_steps=record.optional("memory_steps", record.integer),
            moments=record.optional("moments", lambda key: _moments(record, key)),
            prefilled=record.optional("prefilled", record.boolean),
        )


def _moments(record: Record, key: str) -> tuple[tuple[float, ...], ...]:
    """Five numbers a moment; integers stay integers, because a stamp in a float would lose its nanoseconds."""
    for value in record.items(key):
        numbers = value if isinstance(value, list) else []
        right = [isinstance(part, int | float) and not isinstance(part, bool) for part in numbers]
        if len(right) != _MOMENT_NUMBERS or not all(right):
            raise record.error(f"field {key!r} holds {value}, [stamp, start, end, weight, relevance] expected")
    return tuple(tuple(value) for value in record.items(key))


@dataclass(frozen=True)
class Prediction:
    """What a model answered to one question.

    Attributes:
        response: None if there is none.
        answered_s: see `AnswerRow.answered_s`.
    """

    id: str
    response: str | None
    answered_s: float | None = None


@dataclass(frozen=True)
class PredictionFile:
    """Predictions of one or more files of one form.

    Attributes:
        predictions: by id, in the order of the files.
        questions: what the files themselves tell about the questions; scored by where there are no annotations.
        rows: where each prediction was read, by id, for messages.
    """

    predictions: dict[str, Prediction]
    questions: list[BenchmarkQuestion]
    rows: dict[str, Record]


def read_predictions(paths: Sequence[Path]) -> PredictionFile:
    """Finished predictions of any of the known forms, which are told apart by their fields.

    Shards are joined. A question answered twice is an error, unless both answers are the same.

    Raises:
        DataError: for a file or a row that has no known form, two different answers to one question, or answers of
            two configurations.
    """
    rows: dict[str, tuple[Record, BenchmarkQuestion, Prediction]] = {}
    configured: Record | None = None
    for path in paths:
        for record, question, prediction in _rows(path):
            if "config" in record:
                configured = configured or record
                _check_same_config(configured, record)
            before = rows.get(question.id)
            if before is None:
                rows[question.id] = (record, question, prediction)
            elif before[1:] != (question, prediction):
                raise DataError(
                    record.file,
                    record.item,
                    f"question {question.id!r} has another answer in {before[0].file}, {before[0].item}; "
                    "give the shards of one run only",
                )
    return PredictionFile(
        predictions={identity: prediction for identity, (_, _, prediction) in rows.items()},
        questions=[question for _, question, _ in rows.values()],
        rows={identity: record for identity, (record, _, _) in rows.items()},
    )


def _check_same_config(first: Record, record: Record) -> None:
    if record.raw("config") != first.raw("config"):
        raise record.error(
            f"made with config {record.raw('config')!r} here and {first.raw('config')!r} in {first.file}, "
            f"{first.item}; score one run at a time"
        )


_Row = tuple[Record, BenchmarkQuestion, Prediction]


def _rows(path: Path) -> Iterator[_Row]:
    if not read_text(path).strip():
        raise DataError(path, "", "is empty, predictions expected")
    whole = _whole(path)
    if isinstance(whole, dict) and set(ovo_bench.TASKS) & set(whole):
        yield from _ovo_bench_rows(Record(path, "", whole))
        return
    if isinstance(whole, list):
        yield from _streaming_bench_rows(path)
        return
    for record in read_lines(path):
        if "pred" in record:
            yield _flash_vstream_row(record)
        elif "response" in record:
            yield _answer_row(record)
        else:
            raise record.error(
                "neither a row of answers.jsonl (id, question, answer, response) nor of Flash-VStream's results "
                "(id, question, answer, pred)"
            )


def _whole(path: Path) -> Any:
    """The file as one JSON value; None if it is none, as a file of several lines."""
    try:
        return read_json(path)
    except DataError:
        return None


def _answer_row(record: Record) -> _Row:
    row = AnswerRow.from_record(record)
    return record, _told(row.id, row.question, row.answer), Prediction(row.id, row.response, row.answered_s)


def _flash_vstream_row(record: Record) -> _Row:
    identity, text = record.identity(), record.text("question")
    response = record.raw("pred")
    if not isinstance(response, str):
        raise record.error("field 'pred' is no string, what the model wrote expected")
    return record, _told(identity, text, record.integer("answer")), Prediction(identity, response)


def _told(identity: str, text: str, answer: Answer | None) -> BenchmarkQuestion:
    """What a row tells about its question: a choice where its answer is an index."""
    choice = isinstance(answer, int) and not isinstance(answer, bool)
    return BenchmarkQuestion(
        id=identity,
        video=identity,
        question=text,
        prompt=text,
        kind=AnswerKind.CHOICE if choice else AnswerKind.TEXT,
        answer="" if answer is None else answer,
        options=inline_options(text),
    )


def _ovo_bench_rows(file: Record) -> Iterator[_Row]:
    modes = set(ovo_bench.TASKS)
    if file.keys() != modes:
        raise file.error(f"modes {', '.join(sorted(file.keys()))} found, {', '.join(sorted(modes))} expected")
    for mode in ovo_bench.TASKS:
        for record in file.records(mode):
            record = record.named(f"{record.item.lstrip(', ')}, id {record.identity()}")
            task, task_mode = ovo_bench.task_mode(record)
            if task_mode != mode:
                raise record.error(f"task {task} belongs to {task_mode}, found in {mode}")
            if mode != "forward":
                yield _ovo_bench_choice(record, task, mode)
                continue
            for probe, question in ovo_bench.forward_probes(record, task):
                yield probe, question, Prediction(question.id, _response(probe, "response"))


def _ovo_bench_choice(record: Record, task: str, mode: str) -> _Row:
    letter = record.text("ground_truth")
    if len(letter) != 1 or letter not in LETTERS:
        raise record.error(f"field 'ground_truth' is {letter!r}, one capital letter expected")
    text = record.text("question")
    question = BenchmarkQuestion(
        id=record.identity(),
        video=record.text("video"),
        question=text,
        prompt=text,
        kind=AnswerKind.CHOICE,
        answer=LETTERS.index(letter),
        task=task,
        mode=mode,
    )
    return record, question, Prediction(question.id, _response(record, "response"))


def _streaming_bench_rows(path: Path) -> Iterator[_Row]:
    """StreamingBench's output: its annotations, with what the model wrote in each question under the model's name."""
    name = ""
    for record, _, question in streaming_bench.located(path):
        record = record.named(f"{record.item}, id {question.id}")
        models = sorted(record.keys() - streaming_bench.FIELDS)
        if len(models) > 1 or (models and name not in ("", models[0])):
            raise record.error(f"answers of {' and '.join(sorted({*models, name} - {''}))}; keep those of one model")
        name = name or "".join(models)
        if models:
            answered = _proactive if question.kind is AnswerKind.PROACTIVE else _written
            yield record, question, answered(record, question.id, models[0])
    if not name:
        raise DataError(path, "", "holds no answers: no question has a field with a model's name")


def _written(record: Record, identity: str, model: str) -> Prediction:
    return Prediction(identity, _response(record, model))


def _proactive(record: Record, identity: str, model: str) -> Prediction:
    """The last answer of the dialogue, which is the output where the model said that it was time."""
    history = record.record(model).records("dialog_history")
    if not history:
        return Prediction(identity, None)
    return Prediction(identity, _response(history[-1], "content"), history[-1].number("time"))


def _response(record: Record, key: str) -> str | None:
    value = record.raw(key)
    if value is not None and not isinstance(value, str):
        raise record.error(f"field {key!r} is no string and not null, what the model wrote expected")
    return value


def _answer(record: Record) -> Answer | None:
    value = record.raw("answer")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return record.numbers("answer")
