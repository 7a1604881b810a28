"""Scores of a benchmark: tables by task and group, each figure with its interval and number of questions."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fvs_ros.evaluation.benchmarks import BENCHMARKS, ovo_bench, streaming_bench
from fvs_ros.evaluation.benchmarks.predictions import Prediction, read_predictions
from fvs_ros.evaluation.benchmarks.published_rules import Judgement, judge
from fvs_ros.evaluation.benchmarks.question import BenchmarkQuestion
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.grading import AnswerKind
from fvs_ros.evaluation.statistics import SEED, Estimate, Stratum, estimate, grouped, stratum

# Means of the tasks' means, beside the mean of all questions.
_MACRO = ("mlvu", "mvbench")
# Benchmarks whose own result files name the mode of each question.
_MODES = {"ovo-bench": tuple(ovo_bench.TASKS), "streamingbench": streaming_bench.PARTS}
_ERRORS = {
    AnswerKind.POSITION: ("position", "distance, metres"),
    AnswerKind.MINUTES_AGO: ("time", "difference in minutes ago"),
    AnswerKind.DURATION: ("duration", "difference, minutes"),
}


@dataclass(frozen=True)
class ScoreRow:
    """One line of a table.

    Attributes:
        questions: annotated ones, the denominator of `strict`.
        published: share that is right by the published rule, 0 to 1, over the questions that rule counts; None where
            it counts none.
        strict: share that is right by the strict parse, over all questions; None where only a person can judge.
        unparsed: responses that the strict parse cannot read.
        missing: questions without a response.
    """

    name: str
    questions: int
    published: Estimate | None
    strict: Estimate | None
    unparsed: int
    missing: int


@dataclass(frozen=True)
class ErrorRow:
    """How far answers are off, over those that give a number.

    Attributes:
        unit: what is measured, and in what.
        questions: asked.
        error: mean, over the answers that were parsed.
        median: of the same, None if there are none.
    """

    name: str
    unit: str
    questions: int
    error: Estimate | None
    median: float | None


@dataclass(frozen=True)
class ScoreTable:
    """Lines of one breakdown; `title` names it."""

    title: str
    rows: tuple[ScoreRow, ...]


@dataclass(frozen=True)
class ScoreReport:
    """All scores of one set of predictions.

    Attributes:
        benchmark: its name.
        files: what was scored.
        annotations: what it was scored against; empty where the files describe their questions.
        tables: overall first.
        errors: in their units, empty where the benchmark has none.
        missing: ids of questions without a response, each counted as wrong by the strict parse.
        drawn: answers that the published rule drew at random.
        seed: of those draws.
        bootstrap_seed: of the intervals.
        notes: what a reader must know to compare the figures.
    """

    benchmark: str
    files: tuple[str, ...]
    annotations: tuple[str, ...]
    tables: tuple[ScoreTable, ...]
    errors: tuple[ErrorRow, ...]
    missing: tuple[str, ...]
    drawn: int
    seed: int
    bootstrap_seed: int
    notes: tuple[str, ...]


def score(name: str, files: Sequence[Path], annotations: Sequence[Path] = (), seed: int = 0) -> ScoreReport:
    """Scores finished predictions.

    Args:
        name: of the benchmark, a key of `BENCHMARKS`.
        files: predictions; shards are joined.
        annotations: the benchmark's file, or several parts of it; without one only the questions in the predictions
            are scored: in full from OVO-Bench's and StreamingBench's own results, without breakdowns from
            Flash-VStream's.
        seed: of the random draws of Flash-VStream's rule.

    Raises:
        DataError: for files that break their form, do not fit together, or need annotations.
    """
    found = read_predictions(files)
    questions = [question for path in annotations for question in BENCHMARKS[name].read(path)]
    if len({question.id for question in questions}) < len(questions):
        raise DataError(annotations[-1], "", "holds questions of the annotations before it; give each part once")
    if questions:
        _check_annotated(questions, found)
    else:
        questions = [prediction.question for prediction in found.values()]
        _check_described(name, questions, files[0])
    judgements = judge(name, questions, {one: prediction.row for one, prediction in found.items()}, seed)
    return ScoreReport(
        benchmark=name,
        files=tuple(str(path) for path in files),
        annotations=tuple(str(path) for path in annotations),
        tables=tuple(_tables(name, judgements)),
        errors=tuple(_errors(judgements)),
        missing=tuple(one.question.id for one in judgements if one.strict.missing and one.strict.correct is not None),
        drawn=sum(judgement.drawn for judgement in judgements),
        seed=seed,
        bootstrap_seed=SEED,
        notes=tuple(_notes(name, judgements, bool(annotations))),
    )


def _check_described(name: str, questions: Sequence[BenchmarkQuestion], source: Path) -> None:
    """Refuses files that do not describe their questions well enough to be scored alone."""
    modes = {question.mode for question in questions}
    if name in _MODES:
        fits = modes <= set(_MODES[name])
    else:
        fits = all(one.kind is AnswerKind.CHOICE for one in questions) and modes == {""} and name != "navqa"
    if not fits:
        files = ", ".join(BENCHMARKS[name].annotations)
        raise DataError(
            source,
            "",
            f"does not describe its questions well enough to be scored as {name}; add --annotations ({files})",
        )


def _check_annotated(questions: Sequence[BenchmarkQuestion], found: Mapping[str, Prediction]) -> None:
    """Refuses predictions made for other annotations: their questions or right answers differ."""
    annotated = {question.id: question for question in questions}
    for identity, prediction in found.items():
        described, error = prediction.question, prediction.record.error
        if identity not in annotated:
            raise error(f"id {identity!r} is none of the {len(annotated)} annotated questions; wrong annotations?")
        answer = annotated[identity].answer
        if described.kind is not AnswerKind.TEXT and isinstance(answer, int) and answer != described.answer:
            raise error(
                f"the right answer of id {identity!r} is {described.answer} here and {answer} in the annotations; "
                "wrong annotations?"
            )


def _tables(name: str, judgements: Sequence[Judgement]) -> Iterable[ScoreTable]:
    by_task = grouped(judgements, lambda judgement: (judgement.question.task,))
    if name == "ovo-bench":
        yield from _ovo_bench_tables(by_task)
        return
    # Texts of NaVQA are for a person to judge, and no part of its overall correctness.
    overall = [judgement for judgement in judgements if judgement.strict.correct is not None]
    rows = [_row("all questions", overall)]
    tasks = {task: members for task, members in by_task.items() if task}
    if name in _MACRO and tasks:
        rows.append(_mean_row("mean of tasks", [list(tasks.values())]))
    yield ScoreTable("overall", tuple(rows))
    parts = grouped(judgements, lambda judgement: (judgement.question.mode,))
    if len(parts) > 1:
        yield ScoreTable("part", tuple(_row(part, members) for part, members in parts.items()))
    if tasks:
        yield ScoreTable("task", tuple(_row(task, members) for task, members in sorted(tasks.items())))
    proactive = [judgement for judgement in judgements if judgement.in_time is not None]
    if proactive:
        yield ScoreTable("proactive output", (_in_time_row(proactive),))
    for key in dict.fromkeys(key for judgement in judgements for key in judgement.question.groups):
        groups = grouped(overall, lambda judgement, key=key: judgement.question.groups.get(key, ()))  # type: ignore[misc]
        yield ScoreTable(key, tuple(_row(value, members) for value, members in groups.items()))


def _ovo_bench_tables(by_task: Mapping[str, Sequence[Judgement]]) -> Iterable[ScoreTable]:
    modes = {
        mode: {task: by_task[task] for task in tasks if task in by_task} for mode, tasks in ovo_bench.TASKS.items()
    }
    rows = [_mean_row(f"{mode}: mean of tasks", [list(tasks.values())]) for mode, tasks in modes.items() if tasks]
    if all(modes.values()):
        rows.append(_mean_row("total: mean of modes", [list(tasks.values()) for tasks in modes.values()]))
    yield ScoreTable("overall", tuple(rows))
    for mode, tasks in modes.items():
        if tasks:
            yield ScoreTable(mode, tuple(_row(task, members) for task, members in tasks.items()))


def _row(name: str, judgements: Sequence[Judgement]) -> ScoreRow:
    return _mean_row(name, [[judgements]])


def _mean_row(name: str, modes: Sequence[Sequence[Sequence[Judgement]]]) -> ScoreRow:
    """The mean over modes of the mean over tasks of the mean over questions."""
    members = [judgement for tasks in modes for task in tasks for judgement in task]
    return ScoreRow(
        name=name,
        questions=len(members),
        published=_mean(modes, lambda judgement: judgement.published),
        strict=_mean(modes, lambda judgement: judgement.strict.correct),
        unparsed=sum(judgement.strict.unparsed for judgement in members),
        missing=sum(judgement.strict.missing for judgement in members),
    )


def _mean(
    modes: Sequence[Sequence[Sequence[Judgement]]], value: Callable[[Judgement], float | None]
) -> Estimate | None:
    """See `_mean_row`. Tasks without a value do not count, as in the published scorers; a mode without any is None."""
    strata = [[_stratum(task, value) for task in tasks] for tasks in modes]
    strata = [[stratum for stratum in tasks if stratum.values] for tasks in strata]
    if not all(strata):
        return None
    weights = [1 / len(strata) / len(tasks) for tasks in strata for _ in tasks]
    return estimate([stratum for tasks in strata for stratum in tasks], weights)


def _in_time_row(judgements: Sequence[Judgement]) -> ScoreRow:
    """Whether the moment was right, whatever the output: StreamingBench's time accuracy."""
    return ScoreRow(
        name="in time, within 2 s",
        questions=len(judgements),
        published=estimate([_stratum(judgements, lambda one: None if one.published is None else one.in_time)]),
        strict=estimate([_stratum(judgements, lambda one: one.in_time)]),
        unparsed=0,
        missing=sum(judgement.strict.missing for judgement in judgements),
    )


def _stratum(judgements: Iterable[Judgement], value: Callable[[Judgement], float | None]) -> Stratum:
    return stratum(judgements, value, lambda judgement: judgement.question.video)


def _errors(judgements: Sequence[Judgement]) -> Iterable[ErrorRow]:
    for kind, (name, unit) in _ERRORS.items():
        members = [judgement for judgement in judgements if judgement.question.kind is kind]
        if members:
            known = _stratum(members, lambda one: one.strict.error)
            median = statistics.median(known.values) if known.values else None
            yield ErrorRow(name, unit, len(members), estimate([known]), median)


def _notes(name: str, judgements: Sequence[Judgement], annotated: bool) -> Iterable[str]:
    left_out = sum(judgement.published is None for judgement in judgements)
    texts = sum(judgement.strict.correct is None for judgement in judgements)
    drawn = sum(judgement.drawn for judgement in judgements)
    if not annotated:
        yield "Without annotations only the questions in the files are scored; one left out there is not missed."
    if left_out - texts:
        yield (
            f"The published rule leaves {left_out - texts} questions without a response out; the strict parse counts "
            "them wrong."
        )
    if drawn:
        yield (
            f"The published rule drew {drawn} answers at random among A to E, for want of a letter; the benchmark's "
            "own scorer draws others each time."
        )
    if texts:
        yield f"{texts} text questions are for a person to judge, and in no score."
    if name == "navqa":
        yield "Right: within 15 metres, within 2 minutes, or the right yes or no. Means are over parsed answers."
    if name == "ovo-bench" and len({judgement.question.mode for judgement in judgements}) < len(ovo_bench.TASKS):
        yield "There is no total: it is the mean of three modes, and not all are here."
