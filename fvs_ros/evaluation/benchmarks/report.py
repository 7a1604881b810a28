"""Scores for people and for programs: tables of at most 100 columns, and JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fvs_ros.evaluation.benchmarks import BENCHMARKS
from fvs_ros.evaluation.benchmarks.scoring import ErrorRow, ScoreReport, ScoreTable
from fvs_ros.evaluation.statistics import Estimate
from fvs_ros.evaluation.timed.console import plain_table
from fvs_ros.terminal import printable

WIDTH = 100
# Ids of missing questions that are shown; all of them are in the JSON.
_SHOWN_IDS = 10


def print_report(report: ScoreReport, console: Console | None = None) -> None:
    """Prints all tables of a report, no line longer than 100 columns."""
    console = console or Console()
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    console.print(f"[bold]{BENCHMARKS[report.benchmark].title}[/bold], per cent right with 95 % bootstrap intervals")
    for table in report.tables:
        console.print(_score_table(table))
    if report.errors:
        console.print(_error_table(report.errors))
    if report.missing:
        shown = ", ".join(printable(identity) for identity in report.missing[:_SHOWN_IDS])
        more = len(report.missing) - _SHOWN_IDS
        rest = f" and {more} more; --json lists all" if more > 0 else ""
        console.print(f"missing ({len(report.missing)}, wrong): {shown}{rest}", markup=False, highlight=False)
    for note in report.notes:
        console.print(note, markup=False, highlight=False)


def _score_table(table: ScoreTable) -> Table:
    # One column between, and "n": in a terminal of 80 columns names keep 14.
    shown = plain_table(table.title, ("",), ("n", "published", "strict", "unparsed", "missing"))
    for row in table.rows:
        shown.add_row(
            Text(printable(row.name)),
            str(row.questions),
            _percent(row.published),
            _percent(row.strict),
            str(row.unparsed),
            str(row.missing),
        )
    return shown


def _error_table(rows: tuple[ErrorRow, ...]) -> Table:
    shown = plain_table("errors", ("", "unit"), ("questions", "parsed", "mean", "median"))
    for row in rows:
        parsed, mean = ("0", "-") if row.error is None else (str(row.error.count), row.error.text())
        median = "-" if row.median is None else f"{row.median:.2f}"
        shown.add_row(row.name, row.unit, str(row.questions), parsed, mean, median)
    return shown


def _percent(value: Estimate | None) -> str:
    return "-" if value is None else value.text(100.0)


def write_json(report: ScoreReport, path: Path) -> None:
    """Writes a report as JSON; shares are from 0 to 1.

    Raises:
        OSError: if the file cannot be written.
    """
    path.write_text(json.dumps(dataclasses.asdict(report), indent=2) + "\n", encoding="utf-8")
