"""What came of an evaluation, as data: `report.json`, which is the same for equal answers, and `timings.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fvs_ros.evaluation.answers import replace_text
from fvs_ros.evaluation.benchmarks.predictions import AnswerRow
from fvs_ros.evaluation.statistics import CONFIDENCE, RESAMPLES, SEED
from fvs_ros.evaluation.timed.breakdowns import Gain, GroupTable, Outcome, gains, tables
from fvs_ros.evaluation.timed.controls import MEMORY

REPORT, TIMINGS, PAGE = "report.json", "timings.json", "report.html"


@dataclass(frozen=True)
class EvaluationReport:
    """Scores of one evaluation. Nothing in it was measured with a clock, so that it can be compared byte by byte.

    Attributes:
        title: what was evaluated.
        settings: what the answers depend on.
        views: names, the memory first where it is there.
        questions: asked.
        drawn_with: what is drawn for the confidence intervals.
        tables: every measure over every breakdown.
        gains: the memory against each control.
        streams: of each recording, what was taken in of it.
        notes: what a reader must know.
    """

    title: str
    settings: Mapping[str, object]
    views: tuple[str, ...]
    questions: int
    drawn_with: str
    tables: tuple[GroupTable, ...]
    gains: tuple[Gain, ...]
    streams: Mapping[str, object]
    notes: tuple[str, ...] = ()

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the views that are not the memory."""
        return tuple(view for view in self.views if view != MEMORY.name)

    def table(self, measure: str, grouping: str) -> GroupTable | None:
        """One of `tables`."""
        return next((one for one in self.tables if (one.measure, one.grouping) == (measure, grouping)), None)

    def to_json(self) -> str:
        """The report as text; shares are from 0 to 1."""
        fields = dataclasses.asdict(self)
        fields["bootstrap"] = {"seed": SEED, "resamples": RESAMPLES, "confidence": CONFIDENCE}
        return json.dumps(fields, indent=1, sort_keys=True, allow_nan=False) + "\n"


def evaluation_report(
    title: str,
    settings: Mapping[str, object],
    outcomes: Sequence[Outcome],
    views: Sequence[str],
    drawn_with: str,
    streams: Mapping[str, object],
    notes: Iterable[str] = (),
) -> EvaluationReport:
    """Scores outcomes; see `EvaluationReport`."""
    controls = [view for view in views if view != MEMORY.name]
    return EvaluationReport(
        title=title,
        settings=settings,
        views=tuple(views),
        questions=len({one.question.id for one in outcomes}),
        drawn_with=drawn_with,
        tables=tuple(tables(outcomes, views)),
        gains=tuple(gains(outcomes, MEMORY.name, controls)) if MEMORY.name in views else (),
        streams=streams,
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class Latency:
    """How long answers of one view took, seconds.

    Attributes:
        view: its name.
        memory_read: `with the question`, where the memory's tokens were read first, or `before it`, where an earlier
            question at the same memory had them read.
        answers: measured.
    """

    view: str
    memory_read: str
    answers: int
    first_token_p50_s: float
    first_token_p95_s: float
    total_p50_s: float
    total_p95_s: float


def latencies(rows: Mapping[str, Iterable[AnswerRow]]) -> list[Latency]:
    """Latencies of each view's rows, by its name, apart for questions that read the memory first."""
    found = []
    for view, answers in rows.items():
        answers = list(answers)
        for name, prefilled in (("with the question", False), ("before it", True)):
            timed = [
                (row.first_token_s, row.total_s)
                for row in answers
                if row.prefilled is prefilled and row.first_token_s is not None and row.total_s is not None
            ]
            if timed:
                first, total = np.quantile(np.array(timed), [0.5, 0.95], axis=0).T.tolist()
                found.append(Latency(view, name, len(timed), first[0], first[1], total[0], total[1]))
    return found


def write_report(report: EvaluationReport, timings: Mapping[str, object], page: str, out: Path) -> None:
    """Writes `report.json`, `timings.json` and `report.html` to a folder.

    Raises:
        OSError: if they cannot be written.
    """
    replace_text(out / REPORT, report.to_json())
    replace_text(out / TIMINGS, json.dumps(timings, indent=1, sort_keys=True) + "\n")
    replace_text(out / PAGE, page)
