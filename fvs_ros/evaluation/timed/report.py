"""The results of an evaluation: `report.json`, the same for equal answers, and `timings.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.statistics import CONFIDENCE, RESAMPLES, SEED
from fvs_ros.evaluation.timed.breakdowns import (
    AGE,
    ALL,
    FAMILY,
    LATENCY_METRICS,
    BreakdownTable,
    Difference,
    GradedAnswer,
    differences,
    tables,
)
from fvs_ros.evaluation.timed.confidence import ConfidenceScores, confidence_scores
from fvs_ros.evaluation.timed.controls import MEMORY
from fvs_ros.evaluation.timed.not_seen import not_seen_by_length

REPORT, TIMINGS, PAGE = "report.json", "timings.json", "report.html"


@dataclass(frozen=True)
class EvaluationReport:
    """Scores of one evaluation. Nothing in it was measured with a clock, so that it can be compared byte by byte.

    Attributes:
        title: what was evaluated.
        settings: what the answers depend on.
        conditions: names, the memory first where it is there.
        questions: asked.
        drawn_with: what is drawn for the confidence intervals.
        tables: every metric over every breakdown, and those of `not_seen` by the length of the stream.
        differences: the memory against each control.
        confidence: how sure answers were, and how right.
        streams: of each recording, what was taken in of it.
        notes: what a reader must know.
    """

    title: str
    settings: Mapping[str, object]
    conditions: tuple[str, ...]
    questions: int
    drawn_with: str
    tables: tuple[BreakdownTable, ...]
    differences: tuple[Difference, ...]
    confidence: tuple[ConfidenceScores, ...]
    streams: Mapping[str, object]
    notes: tuple[str, ...] = ()

    @property
    def main_differences(self) -> list[Difference]:
        """Those over all questions, by family and by age."""
        return [one for one in self.differences if one.breakdown in (ALL, FAMILY, AGE)]

    def table(self, metric: str, breakdown: str) -> BreakdownTable | None:
        """One of `tables`."""
        return next((one for one in self.tables if (one.metric, one.breakdown) == (metric, breakdown)), None)

    def to_json(self) -> str:
        """The report as text; shares are from 0 to 1."""
        fields = asdict(self)
        fields["bootstrap"] = {"seed": SEED, "resamples": RESAMPLES, "confidence": CONFIDENCE}
        return json.dumps(fields, indent=1, sort_keys=True, allow_nan=False) + "\n"


def evaluation_report(
    title: str,
    settings: Mapping[str, object],
    graded: Sequence[GradedAnswer],
    conditions: Sequence[str],
    drawn_with: str,
    streams: Mapping[str, object],
    notes: Iterable[str] = (),
) -> EvaluationReport:
    """Scores graded answers; see `EvaluationReport`."""
    controls = [condition for condition in conditions if condition != MEMORY.name]
    return EvaluationReport(
        title=title,
        settings=settings,
        conditions=tuple(conditions),
        questions=len({one.question.id for one in graded}),
        drawn_with=drawn_with,
        tables=(*tables(graded, conditions), *not_seen_by_length(graded, conditions)),
        differences=tuple(differences(graded, MEMORY.name, controls)) if MEMORY.name in conditions else (),
        confidence=tuple(confidence_scores(graded, conditions)),
        streams=streams,
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class Latency:
    """How long answers under one condition took, seconds.

    Attributes:
        condition: its name.
        memory_read: `with the question`, where the question waited for the memory's prefill, or `before it`, where an
            earlier question at the same memory had it done.
        answers: measured.
    """

    condition: str
    memory_read: str
    answers: int
    first_token_p50_s: float
    first_token_p95_s: float
    total_p50_s: float
    total_p95_s: float

    def cells(self) -> list[str]:
        """A row of a table, in the order of the fields."""
        times = (self.first_token_p50_s, self.first_token_p95_s, self.total_p50_s, self.total_p95_s)
        return [self.condition, self.memory_read, str(self.answers), *(f"{value:.3f}" for value in times)]


def latencies(answers: Mapping[str, Mapping[str, AnswerRow]]) -> list[Latency]:
    """Latencies of each condition's rows, by its name, apart for questions that waited for the prefill."""
    found = []
    for condition, rows in answers.items():
        for name, prefilled in (("with the question", False), ("before it", True)):
            timed = [
                (row.first_token_s, row.total_s)
                for row in rows.values()
                if row.prefilled is prefilled and row.first_token_s is not None and row.total_s is not None
            ]
            if timed:
                first, total = np.quantile(np.array(timed), [0.5, 0.95], axis=0).T.tolist()
                found.append(Latency(condition, name, len(timed), first[0], first[1], total[0], total[1]))
    return found


@dataclass(frozen=True)
class Timings:
    """What a clock measured of an evaluation: `timings.json`, which differs from run to run.

    Attributes:
        latency: of its answers.
        tables: the same over every breakdown.
        run: of the run as a whole, by name.
    """

    latency: tuple[Latency, ...]
    tables: tuple[BreakdownTable, ...]
    run: Mapping[str, object]

    @classmethod
    def of(
        cls, graded: Sequence[GradedAnswer], answers: Mapping[str, Mapping[str, AnswerRow]], run: Mapping[str, object]
    ) -> Timings:
        """Those of `answers`: the rows of each condition by the question's id."""
        by_group = tables(graded, list(answers), LATENCY_METRICS)
        return cls(tuple(latencies(answers)), tuple(by_group), run)

    def to_json(self) -> str:
        """The timings as text."""
        fields = {"latency": list(map(asdict, self.latency)), "tables": list(map(asdict, self.tables))}
        return json.dumps({**self.run, **fields}, indent=1, sort_keys=True) + "\n"
