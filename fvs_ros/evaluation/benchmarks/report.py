"""Scores for people and for programs: tables of at most 100 columns, and JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fvs_ros.evaluation.benchmarks import BENCHMARKS
from fvs_ros.evaluation.benchmarks.scoring import MeasureRow, ScoreReport, ScoreTable
from fvs_ros.evaluation.statistics import Estimate

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
    if report.measures:
        console.print(_measure_table(report.measures))
    if report.missing:
        shown = ", ".join(printable(identity).plain for identity in report.missing[:_SHOWN_IDS])
        more = len(report.missing) - _SHOWN_IDS
        rest = f" and {more} more; --json lists all" if more > 0 else ""
        console.print(f"missing ({len(report.missing)}, wrong): {shown}{rest}", markup=False, highlight=False)
    for note in report.notes:
        console.print(note, markup=False, highlight=False)


def printable(text: str) -> Text:
    """Text of a file as it is: nothing in it is markup, and what no encoding knows is written out."""
    return Text("".join(character if character.isprintable() else ascii(character)[1:-1] for character in text))


def _score_table(table: ScoreTable) -> Table:
    # One column between, and "n": in a terminal of 80 columns names keep 14.
    shown = Table(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("", overflow="fold")
    for heading in ("n", "published", "strict", "unparsed", "missing"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in table.rows:
        shown.add_row(
            printable(row.name),
            str(row.questions),
            _percent(row.published),
            _percent(row.strict),
            str(row.unparsed),
            str(row.missing),
        )
    return shown


def _measure_table(rows: tuple[MeasureRow, ...]) -> Table:
    shown = Table(title="errors", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("")
    shown.add_column("unit")
    for heading in ("questions", "parsed", "mean", "median"):
        shown.add_column(heading, justify="right")
    for row in rows:
        parsed = "0" if row.error is None else str(row.error.count)
        median = "-" if row.median is None else f"{row.median:.2f}"
        shown.add_row(row.name, row.unit, str(row.questions), parsed, _interval(row.error, 1.0), median)
    return shown


def _percent(value: Estimate | None) -> str:
    return _interval(value, 100.0)


def _interval(value: Estimate | None, factor: float) -> str:
    if value is None:
        return "-"
    text = f"{factor * value.value:.2f}"
    if value.low is None or value.high is None:
        return text
    return f"{text} [{factor * value.low:.1f}, {factor * value.high:.1f}]"


def write_json(report: ScoreReport, path: Path) -> None:
    """Writes a report as JSON; shares are from 0 to 1.

    Raises:
        OSError: if the file cannot be written.
    """
    path.write_text(json.dumps(dataclasses.asdict(report), indent=2) + "\n", encoding="utf-8")
