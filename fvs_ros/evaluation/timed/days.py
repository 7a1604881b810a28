"""Patrols of several lengths side by side: accuracy against length, age and exposure of the evidence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from fvs_ros.evaluation.statistics import CONFIDENCE, RESAMPLES, SEED, grouped
from fvs_ros.evaluation.timed.breakdowns import (
    AGE,
    ALL,
    ALL_QUESTIONS,
    CORRECT,
    FAMILY,
    BreakdownRow,
    GradedAnswer,
    breakdown_row,
)

DAYS, DAYS_PLOT = "days.json", "days.svg"
EXPOSURE = "exposure of the evidence"
ONCE_S = 20.0
"""What was in view for at most as long was seen once."""
RECALL = "recall"
ONCE = f"recall, up to {ONCE_S:g} s"

_AGES: tuple[tuple[float, str], ...] = (
    (60.0, "up to 1 min old"),
    (600.0, "1 to 10 min old"),
    (3600.0, "10 min to 1 h old"),
    (21600.0, "1 to 6 h old"),
    (float("inf"), "6 h and older"),
)
_EXPOSURES: tuple[tuple[float, str], ...] = (
    (ONCE_S, "in view up to 20 s"),
    (60.0, "20 s to 1 min"),
    (300.0, "1 to 5 min"),
    (float("inf"), "more than 5 min"),
)
"""Largest value of each band, and its name."""


@dataclass(frozen=True)
class LengthScores:
    """The scores of patrols of one length.

    Attributes:
        hours: the length.
        episodes: patrols.
        questions: asked.
        rows: shares of right answers, by breakdown: of all questions, by family, by age and by exposure. Questions
            whose answer is that something was nowhere have neither age nor exposure.
    """

    hours: float
    episodes: int
    questions: int
    rows: Mapping[str, tuple[BreakdownRow, ...]]

    def row(self, breakdown: str, name: str) -> BreakdownRow | None:
        """One of `rows`."""
        return next((row for row in self.rows.get(breakdown, ()) if row.name == name), None)


@dataclass(frozen=True)
class DayReport:
    """Scores of several lengths.

    Attributes:
        lengths: the shortest first.
        conditions: their names.
    """

    lengths: tuple[LengthScores, ...]
    conditions: tuple[str, ...]

    def names(self, breakdown: str) -> list[str]:
        """Names of a breakdown's rows at any length, in order."""
        order = {
            AGE: [name for _, name in _AGES],
            EXPOSURE: [name for _, name in _EXPOSURES],
        }.get(breakdown)
        found = dict.fromkeys(row.name for one in self.lengths for row in one.rows.get(breakdown, ()))
        return list(found) if order is None else [name for name in order if name in found]

    def to_json(self) -> str:
        """The report as text; shares are from 0 to 1."""
        fields = asdict(self)
        fields["bootstrap"] = {"seed": SEED, "resamples": RESAMPLES, "confidence": CONFIDENCE}
        return json.dumps(fields, indent=1, sort_keys=True, allow_nan=False) + "\n"


def length_scores(hours: float, graded: Sequence[GradedAnswer], conditions: Sequence[str]) -> LengthScores:
    """Scores the graded answers about patrols of one length."""
    families = grouped(graded, lambda one: [one.question.family])
    shown = [one for one in graded if one.question.exposure_s is not None]
    once = [one for one in shown if one.question.family == RECALL and _exposure_s(one) <= ONCE_S]
    groups = {
        ALL: {ALL_QUESTIONS: list(graded)} | ({ONCE: once} if once else {}),
        FAMILY: dict(sorted(families.items())),
        AGE: _banded(shown, _AGES, lambda one: one.question.age_s or 0.0),
        EXPOSURE: _banded(shown, _EXPOSURES, _exposure_s),
    }
    return LengthScores(
        hours=hours,
        episodes=len({one.drawn_with for one in graded}),
        questions=len({(one.drawn_with, one.question.id) for one in graded}),
        rows={
            breakdown: tuple(breakdown_row(name, members, CORRECT, conditions) for name, members in some.items())
            for breakdown, some in groups.items()
        },
    )


def _exposure_s(one: GradedAnswer) -> float:
    return one.question.exposure_s or 0.0


def _banded(
    graded: Sequence[GradedAnswer], bands: Sequence[tuple[float, str]], value: Callable[[GradedAnswer], float]
) -> dict[str, list[GradedAnswer]]:
    members = grouped(graded, lambda one: [next(name for bound, name in bands if value(one) <= bound)])
    return {name: members[name] for _, name in bands if name in members}
