"""Questions in groups, views side by side: each figure a mean with its interval and its number of questions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fvs_ros.evaluation.benchmarks.predictions import AnswerRow
from fvs_ros.evaluation.grading import TOP, Grade, evidence_age_s, grade, missed_s
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.statistics import Estimate, Stratum, estimate

ALL, FAMILY, AGE = "all", "family", "age of the evidence"
THIRD, FAMILY_THIRD = "third by age", "third by age within a family"
NO_DIFFERENCE = "no difference shown"
AGE_BANDS_S = (0.0, 10.0, 60.0, 300.0, 1800.0, 7200.0)
THIRDS = ("youngest third", "middle third", "oldest third")
# With fewer questions a third says nothing.
_FEWEST_IN_THIRDS = 9


@dataclass(frozen=True)
class Outcome:
    """A question, what was answered to it from one view, and what that is worth.

    Attributes:
        view: its name.
        drawn_with: questions with equal values are not independent, and are drawn together for intervals.
        age_s: of the evidence, None without proofs.
        missed_s: by how many seconds the first 1, 3 and all moments miss the proof.
    """

    question: TimedQuestion
    view: str
    row: AnswerRow | None
    drawn_with: Hashable
    grade: Grade
    age_s: float | None
    missed_s: tuple[float | None, ...]


def outcome(question: TimedQuestion, view: str, row: AnswerRow | None, drawn_with: Hashable) -> Outcome:
    """Grades a row; None for none counts as no answer. `question` must have its times on the recording's clock."""
    misses = tuple(None if row is None else missed_s(question, row, top) for top in (*TOP, None))
    graded = grade(question, None if row is None else row.response)
    return Outcome(question, view, row, drawn_with, graded, evidence_age_s(question), misses)


@dataclass(frozen=True)
class Measure:
    """Something that is averaged.

    Attributes:
        name: for headings.
        unit: `%` for shares, which are kept from 0 to 1 and shown times 100.
        value: of one outcome; None where it has none.
        better: 1 where more is better, -1 where less is, 0 for neither.
    """

    name: str
    unit: str
    value: Callable[[Outcome], float | None]
    better: int = 1


def _hit(place: int) -> Callable[[Outcome], float | None]:
    return lambda one: None if one.missed_s[place] is None else float(one.missed_s[place] == 0)


def _missed(place: int) -> Callable[[Outcome], float | None]:
    return lambda one: one.missed_s[place]


CORRECT = Measure("correct", "%", lambda one: one.grade.correct)
MEASURES = (
    CORRECT,
    Measure("exact match", "%", lambda one: one.grade.exact),
    Measure("choice accuracy", "%", lambda one: one.grade.choice),
    Measure("unparsed", "%", lambda one: float(one.grade.unparsed), -1),
    Measure("no answer", "%", lambda one: float(one.grade.missing), -1),
    Measure("position error", "m", lambda one: one.grade.position_m, -1),
    Measure("time error", "min", lambda one: one.grade.minutes, -1),
    Measure("proof hit by the first moment", "%", _hit(0)),
    Measure("proof hit by the first 3 moments", "%", _hit(1)),
    Measure("proof hit by any moment", "%", _hit(2)),
    Measure("proof missed by the first moment", "s", _missed(0), -1),
    Measure("proof missed by the first 3 moments", "s", _missed(1), -1),
    Measure("proof missed by any moment", "s", _missed(2), -1),
)

# Measured with a clock, so that they stand in no report that is compared byte by byte.
LATENCY_MEASURES = (
    Measure("first token", "s", lambda one: None if one.row is None else one.row.first_token_s, -1),
    Measure("last token", "s", lambda one: None if one.row is None else one.row.total_s, -1),
)


@dataclass(frozen=True)
class GroupRow:
    """One group of questions.

    Attributes:
        questions: in the group.
        values: mean of each view, by its name; None where the measure applies to none of the group's questions.
    """

    name: str
    questions: int
    values: Mapping[str, Estimate | None]


@dataclass(frozen=True)
class GroupTable:
    """One measure over the groups of one breakdown.

    Attributes:
        measure, unit: see `Measure`.
        grouping: what the rows differ in.
    """

    measure: str
    unit: str
    grouping: str
    rows: tuple[GroupRow, ...]


@dataclass(frozen=True)
class Gain:
    """How much more often the memory is right than a control on the same questions.

    Attributes:
        grouping: the breakdown that the group is of.
        group: of questions.
        control: the view's name.
        points: mean of the differences between paired answers, from -1 to 1.
        verdict: `memory better`, `control better` or `no difference shown`, as the interval tells.
    """

    grouping: str
    group: str
    control: str
    points: Estimate
    verdict: str


Groups = dict[str, list[Outcome]]


def groupings(outcomes: Sequence[Outcome]) -> dict[str, Groups]:
    """All breakdowns: of all questions, by family, by age in bands, by age in thirds, and by thirds of each family."""
    found: dict[str, Groups] = {ALL: {"all questions": list(outcomes)}}
    families = _by(outcomes, lambda one: one.question.family or None)
    if families:
        found[FAMILY] = dict(sorted(families.items()))
    aged = [one for one in outcomes if one.age_s is not None]
    if aged:
        bands = _by(aged, lambda one: _band(one.age_s or 0.0))
        found[AGE] = {name: bands[name] for name in map(_band_name, AGE_BANDS_S) if name in bands}
        found[THIRD] = _thirds(aged, "")
    by_family: Groups = {}
    for family, members in sorted(_by(aged, lambda one: one.question.family or None).items()):
        by_family |= _thirds(members, f"{family}, ")
    if by_family:
        found[FAMILY_THIRD] = by_family
    return {name: groups for name, groups in found.items() if groups}


def _by(outcomes: Iterable[Outcome], key: Callable[[Outcome], str | None]) -> Groups:
    groups: Groups = {}
    for one in outcomes:
        name = key(one)
        if name is not None:
            groups.setdefault(name, []).append(one)
    return groups


def _band(age_s: float) -> str:
    return _band_name(max(start for start in AGE_BANDS_S if start <= age_s))


def _band_name(start_s: float) -> str:
    later = [bound for bound in AGE_BANDS_S if bound > start_s]
    return f"{_span(start_s)} to {_span(later[0])}" if later else f"{_span(start_s)} and more"


def _span(seconds: float) -> str:
    for unit, factor in (("h", 3600.0), ("min", 60.0)):
        if seconds >= factor:
            return f"{seconds / factor:g} {unit}"
    return f"{seconds:g} s"


def _thirds(outcomes: Sequence[Outcome], prefix: str) -> Groups:
    """Questions by age in three parts as equal as ages allow; none where ages do not differ, or there are too few."""
    ages = {one.question.id: one.age_s for one in outcomes}
    if len(ages) < _FEWEST_IN_THIRDS:
        return {}
    first, second = np.quantile([age for age in ages.values() if age is not None], [1 / 3, 2 / 3])
    if first == second:
        return {}
    groups = _by(outcomes, lambda one: THIRDS[int((one.age_s or 0.0) > first) + int((one.age_s or 0.0) > second)])
    return {
        f"{prefix}{name} ({min(one.age_s or 0.0 for one in groups[name]):.0f}-"
        f"{max(one.age_s or 0.0 for one in groups[name]):.0f} s)": groups[name]
        for name in THIRDS
        if name in groups
    }


def tables(
    outcomes: Sequence[Outcome], views: Sequence[str], measures: Sequence[Measure] = MEASURES
) -> list[GroupTable]:
    """Every measure that has values, over every breakdown."""
    used = [measure for measure in measures if any(measure.value(one) is not None for one in outcomes)]
    found: dict[tuple[str, str], list[GroupRow]] = {}
    # Group by group: all measures of a group draw the same resamples, which are made once.
    for grouping, groups in groupings(outcomes).items():
        for name, members in groups.items():
            for measure in used:
                found.setdefault((measure.name, grouping), []).append(group_row(name, members, measure, views))
    units = {measure.name: measure.unit for measure in used}
    return [
        GroupTable(name, units[name], grouping, tuple(rows))
        for measure in used
        for (name, grouping), rows in found.items()
        if name == measure.name
    ]


def group_row(name: str, outcomes: Sequence[Outcome], measure: Measure, views: Sequence[str]) -> GroupRow:
    """The measure's mean in one group, for each view."""
    values = {}
    for view in views:
        pairs = [(measure.value(one), one.drawn_with) for one in outcomes if one.view == view]
        known = [(value, drawn_with) for value, drawn_with in pairs if value is not None]
        values[view] = estimate([Stratum([value for value, _ in known], [group for _, group in known])])
    return GroupRow(name, len({one.question.id for one in outcomes}), values)


def gains(outcomes: Sequence[Outcome], memory: str, controls: Sequence[str]) -> list[Gain]:
    """Where the memory pays: each control against it, over all questions, by family and by age."""
    found = []
    for grouping, groups in groupings(outcomes).items():
        for name, members in groups.items():
            right = {(one.view, one.question.id): one for one in members if one.grade.correct is not None}
            for control in controls:
                pairs = [
                    (one.grade.correct or 0.0, right[control, one.question.id].grade.correct or 0.0, one.drawn_with)
                    for (view, _), one in right.items()
                    if view == memory and (control, one.question.id) in right
                ]
                points = estimate([Stratum([a - b for a, b, _ in pairs], [group for *_, group in pairs])])
                if points is not None:
                    found.append(Gain(grouping, name, control, points, _verdict(points)))
    return found


def _verdict(points: Estimate) -> str:
    if points.low is not None and points.low > 0:
        return "memory better"
    if points.high is not None and points.high < 0:
        return "control better"
    return NO_DIFFERENCE
