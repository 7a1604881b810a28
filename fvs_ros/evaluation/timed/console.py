"""An evaluation's scores for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from fvs_ros.evaluation.benchmarks.report import printable
from fvs_ros.evaluation.statistics import Estimate
from fvs_ros.evaluation.timed.breakdowns import (
    AGE,
    ALL,
    CORRECT,
    FAMILY,
    FAMILY_THIRD,
    NO_DIFFERENCE,
    Gain,
    GroupRow,
    GroupTable,
)
from fvs_ros.evaluation.timed.report import EvaluationReport, Latency

WIDTH = 80
# With a name of 30 columns and the number of questions, so many intervals fit beside each other.
_VIEWS_A_TABLE = 3


def print_evaluation(
    report: EvaluationReport, latency: Sequence[Latency], console: Console, in_thirds: Sequence[str] = ()
) -> None:
    """Prints what is correct by family and age, the other measures over all questions, and what was gained.

    Args:
        report: whose tables and gains.
        latency: of its answers.
        console: where to.
        in_thirds: families that are also shown in thirds by age.
    """
    console = Console(file=console.file, width=min(console.width, WIDTH), highlight=False)
    console.print(printable(report.title), style="bold")
    console.print(f"{report.questions} questions; intervals are 95 % bootstrap, drawn by {report.drawn_with}")
    groups = {one.grouping: one.rows for one in report.tables if one.measure == CORRECT.name}
    thirds = [row for row in groups.get(FAMILY_THIRD, ()) if row.name.startswith(tuple(f"{one}," for one in in_thirds))]
    _print_correct([*(groups.get(name, ()) for name in (ALL, FAMILY, AGE)), thirds], report.views, console)
    others = [table for table in report.tables if table.measure != CORRECT.name and table.grouping == ALL]
    if others:
        _print_measures(others, report.views, console)
    if report.gains:
        _print_gains([gain for gain in report.gains if gain.grouping in (ALL, FAMILY, AGE)], console)
    if latency:
        console.print(_latency_table(latency))
    for note in report.notes:
        console.print(note, markup=False)


def shown(value: Estimate | None, unit: str) -> str:
    """A figure with its interval: a share in per cent, anything else in its unit."""
    if value is None:
        return "-"
    factor, digits, bounds = (100.0, 1, 0) if unit == "%" else (1.0, 2, 1)
    text = f"{factor * value.value:.{digits}f}"
    if value.low is None or value.high is None:
        return text
    return f"{text} [{factor * value.low:.{bounds}f}, {factor * value.high:.{bounds}f}]"


def _print_correct(groups: Sequence[Sequence[GroupRow]], views: Sequence[str], console: Console) -> None:
    for some in _chunks(views):
        made = _table("correct, %")
        made.add_column("", overflow="fold", max_width=34)
        made.add_column("n", justify="right")
        for view in some:
            made.add_column(view, justify="right", no_wrap=True)
        for rows in groups:
            for row in rows:
                values = (shown(row.values[view], CORRECT.unit) for view in some)
                made.add_row(printable(row.name), str(row.questions), *values)
            made.add_section()
        console.print(made)


def _print_measures(tables: Iterable[GroupTable], views: Sequence[str], console: Console) -> None:
    tables = list(tables)
    for some in _chunks(views):
        made = _table("other measures (by family and age in report.html and report.json)")
        made.add_column("", overflow="fold", max_width=36)
        for view in some:
            made.add_column(view, justify="right", no_wrap=True)
        for table in tables:
            values = table.rows[0].values
            made.add_row(f"{table.measure}, {table.unit}", *(shown(values[view], table.unit) for view in some))
        console.print(made)


def _print_gains(gains: Sequence[Gain], console: Console) -> None:
    """The differences that are shown by the interval; the others in a sentence."""
    told = [gain for gain in gains if gain.verdict != NO_DIFFERENCE]
    if told:
        made = _table("where the memory pays: points over a control on the same questions")
        for heading in ("", "control"):
            made.add_column(heading, overflow="fold", max_width=30)
        for heading in ("n", "points"):
            made.add_column(heading, justify="right", no_wrap=True)
        made.add_column("")
        for gain in told:
            made.add_row(
                printable(gain.group),
                gain.control,
                str(gain.points.count),
                shown(gain.points, "%"),
                gain.verdict,
                style="green" if gain.points.value > 0 else "red",
            )
        console.print(made)
    console.print(f"{len(gains) - len(told)} of {len(gains)} comparisons with a control show no difference")


def _latency_table(latency: Iterable[Latency]) -> Table:
    made = _table("seconds to the first and to the last token, median and 95th percentile")
    for heading in ("view", "memory read"):
        made.add_column(heading)
    for heading in ("n", "first p50", "p95", "last p50", "p95"):
        made.add_column(heading, justify="right")
    for one in latency:
        times = (one.first_token_p50_s, one.first_token_p95_s, one.total_p50_s, one.total_p95_s)
        made.add_row(one.view, one.memory_read, str(one.answers), *(f"{value:.3f}" for value in times))
    return made


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def _chunks(views: Sequence[str]) -> list[Sequence[str]]:
    return [views[start : start + _VIEWS_A_TABLE] for start in range(0, len(views), _VIEWS_A_TABLE)]
