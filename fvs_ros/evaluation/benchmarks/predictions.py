"""Finished answers: our `answers.jsonl`, and the result files of Flash-VStream, OVO-Bench and StreamingBench."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fvs_ros.evaluation.answers import AnswerRow, read_response
from fvs_ros.evaluation.benchmarks import ovo_bench, streaming_bench
from fvs_ros.evaluation.benchmarks.question import BenchmarkQuestion
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.grading import AnswerKind
from fvs_ros.evaluation.parsing import LETTERS, inline_options
from fvs_ros.evaluation.records import Record, read_json, read_lines, read_text


@dataclass(frozen=True)
class Prediction:
    """A finished answer.

    Attributes:
        record: where it was read, for messages.
        question: as far as the file itself describes it, which is what is scored without annotations.
        row: the answer.
    """

    record: Record
    question: BenchmarkQuestion
    row: AnswerRow

    @property
    def content(self) -> tuple[BenchmarkQuestion, str | None, float | None]:
        """What two files must agree on where both hold an answer to one question."""
        return self.question, self.row.response, self.row.answered_s


def read_predictions(paths: Sequence[Path]) -> dict[str, Prediction]:
    """Finished predictions by id, in the order of the files, of any of the known forms.

    Shards are joined. A question answered twice is an error, unless both answers are the same.

    Raises:
        DataError: for a file or a row of an unknown form, two different answers to one question, or answers of two
            configurations.
    """
    found: dict[str, Prediction] = {}
    configured: Prediction | None = None
    for path in paths:
        for one in _predictions(path):
            if one.row.config:
                configured = configured or one
                if one.row.config != configured.row.config:
                    raise one.record.error(
                        f"made with config {one.row.config!r} here and {configured.row.config!r} in "
                        f"{configured.record.file}, {configured.record.item}; score one run at a time"
                    )
            first = found.setdefault(one.question.id, one)
            if first.content != one.content:
                raise one.record.error(
                    f"question {one.question.id!r} has another answer in {first.record.file}, {first.record.item}; "
                    "give the shards of one run only"
                )
    return found


def _predictions(path: Path) -> Iterator[Prediction]:
    if not read_text(path).strip():
        raise DataError(path, "", "is empty, predictions expected")
    whole = _whole(path)
    if isinstance(whole, dict) and set(ovo_bench.TASKS) & set(whole):
        yield from _ovo_bench(Record(path, "", whole))
        return
    if isinstance(whole, list) and not any(map(_is_row, whole)):
        yield from _streaming_bench(path)
    elif isinstance(whole, list):
        yield from (_row(Record(path, f"row {number}", value)) for number, value in enumerate(whole))
    elif _is_row(whole):
        yield _row(Record(path, "line 1", whole))
    else:
        yield from map(_row, read_lines(path))


def _whole(path: Path) -> Any:
    """The file as one JSON value; None if it holds several lines."""
    try:
        return read_json(path)
    except DataError:
        return None


def _is_row(value: object) -> bool:
    return isinstance(value, dict) and bool({"pred", "response"} & set(value))


def _row(record: Record) -> Prediction:
    if "pred" in record:
        identity, text = record.identity(), record.text("question")
        response = record.raw("pred")
        if not isinstance(response, str):
            raise record.error("field 'pred' is no string, what the model wrote expected")
        return _described(record, AnswerRow(identity, text, record.integer("answer"), response))
    if "response" in record:
        return _described(record, AnswerRow.from_record(record))
    raise record.error(
        "neither a row of answers.jsonl (id, question, answer, response) nor of Flash-VStream's results "
        "(id, question, answer, pred)"
    )


def _described(record: Record, row: AnswerRow) -> Prediction:
    """A row that describes its question itself: a choice where its right answer is an index."""
    choice = isinstance(row.answer, int) and not isinstance(row.answer, bool)
    options = inline_options(row.question)
    if isinstance(row.answer, int) and choice and options and not 0 <= row.answer < len(options):
        raise record.error(
            f"field 'answer' is {row.answer}, but the question has {len(options)} options, 0 to {len(options) - 1}"
        )
    question = BenchmarkQuestion(
        id=row.id,
        video=row.id,
        question=row.question,
        prompt=row.question,
        kind=AnswerKind.CHOICE if choice else AnswerKind.TEXT,
        answer="" if row.answer is None else row.answer,
        options=options,
    )
    return Prediction(record, question, row)


def _of(record: Record, question: BenchmarkQuestion, response: str | None, at_s: float | None = None) -> Prediction:
    return Prediction(record, question, AnswerRow(question.id, question.question, question.answer, response, at_s))


def _ovo_bench(file: Record) -> Iterator[Prediction]:
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
                yield _of(record, _ovo_bench_choice(record, task, mode), read_response(record, "response"))
                continue
            for probe, question in ovo_bench.forward_probes(record, task):
                yield _of(probe, question, read_response(probe, "response"))


def _ovo_bench_choice(record: Record, task: str, mode: str) -> BenchmarkQuestion:
    letter = record.text("ground_truth")
    if len(letter) != 1 or letter not in LETTERS:
        raise record.error(f"field 'ground_truth' is {letter!r}, one capital letter expected")
    text = record.text("question")
    return BenchmarkQuestion(
        id=record.identity(),
        video=record.text("video"),
        question=text,
        prompt=text,
        kind=AnswerKind.CHOICE,
        answer=LETTERS.index(letter),
        task=task,
        mode=mode,
    )


def _streaming_bench(path: Path) -> Iterator[Prediction]:
    """StreamingBench's output: its annotations, with what the model wrote in each question under the model's name."""
    name = ""
    for record, question in streaming_bench.located(path):
        record = record.named(f"{record.item}, id {question.id}")
        models = sorted(record.keys() - streaming_bench.FIELDS)
        if len(models) > 1 or (models and name not in ("", models[0])):
            raise record.error(f"answers of {' and '.join(sorted({*models, name} - {''}))}; keep those of one model")
        name = name or "".join(models)
        if models and question.kind is AnswerKind.PROACTIVE:
            yield _of(record, question, *_last_of_dialogue(record, name))
        elif models:
            yield _of(record, question, read_response(record, name))
    if not name:
        raise DataError(path, "", "holds no answers: no question has a field with a model's name")


def _last_of_dialogue(record: Record, model: str) -> tuple[str | None, float | None]:
    """The last answer and its second: the output, if the model said that it was time."""
    history = record.record(model).records("dialog_history")
    if not history:
        return None, None
    return read_response(history[-1], "content"), history[-1].number("time")
