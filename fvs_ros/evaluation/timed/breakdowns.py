"""Questions broken down into groups, conditions side by side: means with intervals and numbers of questions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.grading import MINUTES, AnswerKind, Grade
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.statistics import Estimate, Stratum, estimate, grouped, stratum
from fvs_ros.patrol.templates import NOT_SEEN
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.types import Moment

ALL, FAMILY, AGE = "all", "family", "age of the evidence"
THIRD, FAMILY_THIRD = "third by age", "third by age within a family"
ALL_QUESTIONS = "all questions"
# How many of the best ranked moments count; None for all.
TOP = (1, 3, None)
_MOMENTS = ("the first moment", "the first 3 moments", "any moment")
# A moment this far from a proof hits it: one grid step at the default rate of frames.
GRID_STEP_S = 2.0
NO_DIFFERENCE = "no difference shown"
AGE_BANDS_S = (0.0, 10.0, 60.0, 300.0, 1800.0, 7200.0)
THIRDS = ("youngest third", "middle third", "oldest third")
# With fewer questions a third says nothing.
_FEWEST_IN_THIRDS = 9


@dataclass(frozen=True)
class GradedAnswer:
    """An answer under one condition, and what it is worth.

    Attributes:
        question: with its times on the recording's clock.
        condition: its name.
        row: None counts as no answer.
        drawn_with: questions with equal values are not independent, and are drawn together for intervals.
        grade: of the response.
        missed_s: by how many seconds the first 1, 3 and all moments miss the proof.
    """

    question: TimedQuestion
    condition: str
    row: AnswerRow | None
    drawn_with: Hashable
    grade: Grade
    missed_s: tuple[float | None, ...]

    @classmethod
    def of(cls, question: TimedQuestion, condition: str, row: AnswerRow | None, drawn_with: Hashable) -> GradedAnswer:
        """Grades a row."""
        moments = () if row is None else row.moments or ()
        missed = tuple(missed_s(question, moments, top) for top in TOP)
        return cls(question, condition, row, drawn_with, question.grade(None if row is None else row.response), missed)

    def error(self, *kinds: AnswerKind) -> float | None:
        """How far off an answer of these kinds is."""
        return self.grade.error if self.question.kind in kinds else None


def graded_answers(
    questions: Sequence[tuple[TimedQuestion, Hashable]], answers: Mapping[str, Mapping[str, AnswerRow]]
) -> list[GradedAnswer]:
    """Grades all answers.

    Args:
        questions: each with what it is drawn with, see `GradedAnswer`.
        answers: rows of each condition, by its name, by the question's id.
    """
    return [
        GradedAnswer.of(question, condition, rows.get(question.id), drawn_with)
        for condition, rows in answers.items()
        for question, drawn_with in questions
    ]


def missed_s(question: TimedQuestion, moments: Sequence[Moment], top: int | None) -> float | None:
    """Seconds from the best of the first `top` keyframes to the nearest proof, 0 where one lies within it.

    Moments come in the order of their relevance where they were ranked, else of their clusters' weight, which is how
    the memory itself ranks them; equal ones in order of time.

    Returns:
        None where there is no proof, or no moment.
    """
    if not question.proof_ns or not moments:
        return None

    def rank(moment: Moment) -> tuple[float, float, int]:
        return -1.0 if moment.relevance is None else moment.relevance, moment.weight, -moment.stamp_ns

    stamps = [moment.stamp_ns for moment in sorted(moments, key=rank, reverse=True)[:top]]
    return min(max(start - at, at - end, 0) for at in stamps for start, end in question.proof_ns) / SECOND_NS


@dataclass(frozen=True)
class Metric:
    """Something that is averaged.

    Attributes:
        name: for headings.
        unit: `%` for shares, which are kept from 0 to 1 and shown times 100.
        value: of one answer; None where it has none.
    """

    name: str
    unit: str
    value: Callable[[GradedAnswer], float | None]


def _hit(place: int) -> Callable[[GradedAnswer], float | None]:
    def hit(one: GradedAnswer) -> float | None:
        missed = one.missed_s[place]
        return None if missed is None else float(missed <= GRID_STEP_S)

    return hit


def _hit_where(correct: bool) -> Callable[[GradedAnswer], float | None]:
    hit = _hit(0)
    return lambda one: hit(one) if one.grade.correct is not None and (one.grade.correct == 1) == correct else None


def _says_not_seen(missing: bool) -> Callable[[GradedAnswer], float | None]:
    """Of the questions whose right answer is that it was not seen, or of the others that have a proof."""

    def says(one: GradedAnswer) -> float | None:
        if one.row is None or one.row.not_seen is None or not one.question.proof_ns:
            return None
        return float(one.row.not_seen) if (one.question.answer_text == NOT_SEEN) == missing else None

    return says


def _missed(place: int) -> Callable[[GradedAnswer], float | None]:
    return lambda one: one.missed_s[place]


CORRECT = Metric("correct", "%", lambda one: one.grade.correct)
SAYS_MISSING = Metric("says not seen, where nothing was", "%", _says_not_seen(missing=True))
SAYS_THERE = Metric("says not seen, where it was seen", "%", _says_not_seen(missing=False))
METRICS = (
    CORRECT,
    Metric("exact match", "%", lambda one: one.grade.exact),
    Metric("choice accuracy", "%", lambda one: one.grade.correct if one.question.choices else None),
    Metric("unparsed", "%", lambda one: float(one.grade.unparsed)),
    Metric("no answer", "%", lambda one: float(one.grade.missing)),
    Metric("position error", "m", lambda one: one.error(AnswerKind.POSITION)),
    Metric("time error", "min", lambda one: one.error(*MINUTES)),
    *(Metric(f"proof hit by {which}", "%", _hit(place)) for place, which in enumerate(_MOMENTS)),
    Metric("proof hit by the first moment of a right answer", "%", _hit_where(True)),
    Metric("proof hit by the first moment of a wrong answer", "%", _hit_where(False)),
    SAYS_MISSING,
    SAYS_THERE,
    *(Metric(f"proof missed by {which}", "s", _missed(place)) for place, which in enumerate(_MOMENTS)),
)

# Measured with a clock, so that they stand in no report that is compared byte by byte.
LATENCY_METRICS = (
    Metric("first token", "s", lambda one: None if one.row is None else one.row.first_token_s),
    Metric("last token", "s", lambda one: None if one.row is None else one.row.total_s),
)


@dataclass(frozen=True)
class BreakdownRow:
    """One group of questions.

    Attributes:
        questions: in the group.
        values: mean of each condition, by its name; None where the metric applies to none of the group's questions.
    """

    name: str
    questions: int
    values: Mapping[str, Estimate | None]


@dataclass(frozen=True)
class BreakdownTable:
    """One metric over the groups of one breakdown.

    Attributes:
        metric, unit: see `Metric`.
        breakdown: what the rows differ in.
    """

    metric: str
    unit: str
    breakdown: str
    rows: tuple[BreakdownRow, ...]


@dataclass(frozen=True)
class Difference:
    """How much more often the memory is right than a control on the same questions.

    Attributes:
        breakdown: the breakdown that the group is of.
        group: of questions.
        control: the condition's name.
        points: mean of the differences between paired answers, from -1 to 1.
        verdict: `memory better`, `control better` or `no difference shown`, by the interval.
    """

    breakdown: str
    group: str
    control: str
    points: Estimate
    verdict: str


Groups = dict[str, list[GradedAnswer]]


def breakdowns(graded: Sequence[GradedAnswer]) -> dict[str, Groups]:
    """All breakdowns: of all questions, by family, by age in bands, by age in thirds, and by thirds of each family."""
    aged = [one for one in graded if one.question.age_s is not None]
    found: dict[str, Groups] = {
        ALL: {ALL_QUESTIONS: list(graded)},
        FAMILY: dict(sorted(_families(graded).items())),
        AGE: by_band(aged, _age_s),
        THIRD: _thirds(aged, ""),
        FAMILY_THIRD: {},
    }
    for family, members in sorted(_families(aged).items()):
        found[FAMILY_THIRD] |= _thirds(members, f"{family}, ")
    return {name: groups for name, groups in found.items() if groups}


def _families(graded: Iterable[GradedAnswer]) -> Groups:
    return grouped(graded, lambda one: [one.question.family] if one.question.family else [])


def _age_s(one: GradedAnswer) -> float:
    return one.question.age_s or 0.0


def by_band(graded: Iterable[GradedAnswer], seconds: Callable[[GradedAnswer], float]) -> Groups:
    """Answers in the bands of `AGE_BANDS_S`, by their names, in order; nothing is below 0."""
    bands = grouped(graded, lambda one: [max(start for start in AGE_BANDS_S if start <= max(0.0, seconds(one)))])
    return {_band_name(start): bands[start] for start in sorted(bands)}


def _band_name(start_s: float) -> str:
    later = [bound for bound in AGE_BANDS_S if bound > start_s]
    return f"{_span(start_s)} to {_span(later[0])}" if later else f"{_span(start_s)} and more"


def _span(seconds: float) -> str:
    for unit, factor in (("h", 3600.0), ("min", 60.0)):
        if seconds >= factor:
            return f"{seconds / factor:g} {unit}"
    return f"{seconds:g} s"


def _thirds(graded: Sequence[GradedAnswer], prefix: str) -> Groups:
    """Questions by age in three parts as equal as ages allow; none where ages do not differ, or there are too few."""
    ages = {one.question.id: _age_s(one) for one in graded}
    if len(ages) < _FEWEST_IN_THIRDS:
        return {}
    first, second = np.quantile(list(ages.values()), [1 / 3, 2 / 3])
    if first == second:
        return {}
    thirds = grouped(graded, lambda one: [int(_age_s(one) > first) + int(_age_s(one) > second)])
    found = {}
    for third, members in sorted(thirds.items()):
        youngest, oldest = min(map(_age_s, members)), max(map(_age_s, members))
        found[f"{prefix}{THIRDS[third]} ({youngest:.0f}-{oldest:.0f} s)"] = members
    return found


def tables(
    graded: Sequence[GradedAnswer], conditions: Sequence[str], metrics: Sequence[Metric] = METRICS
) -> list[BreakdownTable]:
    """Every metric that has values, over every breakdown."""
    used = [metric for metric in metrics if any(metric.value(one) is not None for one in graded)]
    rows: dict[tuple[Metric, str], list[BreakdownRow]] = {}
    # Group by group: all metrics of a group draw the same resamples, which are made once.
    for breakdown, groups in breakdowns(graded).items():
        for name, members in groups.items():
            for metric in used:
                rows.setdefault((metric, breakdown), []).append(breakdown_row(name, members, metric, conditions))
    found = [BreakdownTable(one.name, one.unit, breakdown, tuple(some)) for (one, breakdown), some in rows.items()]
    names = [metric.name for metric in used]
    return sorted(found, key=lambda table: names.index(table.metric))


def breakdown_row(name: str, graded: Sequence[GradedAnswer], metric: Metric, conditions: Sequence[str]) -> BreakdownRow:
    """The metric's mean in one group, for each condition."""
    of = grouped(graded, lambda one: [one.condition])
    values = {
        condition: estimate([stratum(of.get(condition, ()), metric.value, lambda one: one.drawn_with)])
        for condition in conditions
    }
    return BreakdownRow(name, len({one.question.id for one in graded}), values)


def differences(graded: Sequence[GradedAnswer], memory: str, controls: Sequence[str]) -> list[Difference]:
    """Where the memory pays: each control against it, over all questions, by family and by age."""
    found = []
    for breakdown, groups in breakdowns(graded).items():
        for name, members in groups.items():
            correct = {(one.condition, one.question.id): one.grade.correct for one in members}
            for control in controls:
                points = estimate([_paired(members, correct, memory, control)])
                if points is None:
                    continue
                verdict = NO_DIFFERENCE
                if points.low is not None and points.low > 0:
                    verdict = "memory better"
                elif points.high is not None and points.high < 0:
                    verdict = "control better"
                found.append(Difference(breakdown, name, control, points, verdict))
    return found


def _paired(
    graded: Sequence[GradedAnswer], correct: Mapping[tuple[str, str], float | None], memory: str, control: str
) -> Stratum:
    """The memory's points minus the control's, of the questions that both have points for."""

    def points(one: GradedAnswer) -> float | None:
        other = correct.get((control, one.question.id))
        return None if one.grade.correct is None or other is None else one.grade.correct - other

    return stratum((one for one in graded if one.condition == memory), points, lambda one: one.drawn_with)
