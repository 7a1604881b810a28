"""An evaluation's scores for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fvs_ros.evaluation.statistics import Estimate
from fvs_ros.evaluation.timed.breakdowns import (
    AGE,
    ALL,
    CORRECT,
    FAMILY,
    FAMILY_THIRD,
    NO_DIFFERENCE,
    SAYS_MISSING,
    SAYS_THERE,
    Difference,
)
from fvs_ros.evaluation.timed.confidence import COVERAGE
from fvs_ros.evaluation.timed.days import EXPOSURE, ONCE, ONCE_S, DayReport
from fvs_ros.evaluation.timed.not_seen import LENGTH
from fvs_ros.evaluation.timed.report import EvaluationReport, Latency
from fvs_ros.terminal import printable

WIDTH = 80
# Intervals that fit beside a name of 30 columns and the number of questions.
_CONDITIONS_A_TABLE = 3

# The leading cells of a line, the values by condition, and their unit.
_Line = tuple[Sequence[str], Mapping[str, Estimate | None], str]


def print_evaluation(
    report: EvaluationReport, latency: Sequence[Latency], console: Console, in_thirds: Sequence[str] = ()
) -> None:
    """Prints what is correct by family and age, the other metrics over all questions, and where the memory pays.

    Args:
        report: to print.
        latency: of its answers.
        console: where to.
        in_thirds: families that are also shown in thirds by age.
    """
    console = Console(file=console.file, width=min(console.width, WIDTH), highlight=False)
    console.print(printable(report.title), style="bold", markup=False)
    console.print(f"{report.questions} questions; intervals are 95 % bootstrap, drawn by {report.drawn_with}")
    groups = {one.breakdown: one.rows for one in report.tables if one.metric == CORRECT.name}
    thirds = [row for row in groups.get(FAMILY_THIRD, ()) if row.name.startswith(tuple(f"{one}," for one in in_thirds))]
    correct = [
        [((row.name, str(row.questions)), row.values, CORRECT.unit) for row in rows]
        for rows in (*(groups.get(name, ()) for name in (ALL, FAMILY, AGE)), thirds)
    ]
    _print_lines("correct, %", ("", "n"), correct, report.conditions, console)
    others = [
        ((f"{table.metric}, {table.unit}",), table.rows[0].values, table.unit)
        for table in report.tables
        if table.metric != CORRECT.name and table.breakdown == ALL
    ]
    if others:
        title = "other metrics (by family and age in report.html and report.json)"
        _print_lines(title, ("",), [others], report.conditions, console)
    _print_not_seen(report, console)
    if report.differences:
        _print_differences(report.main_differences, console)
    if report.confidence:
        title = "how sure answers were; calibration error (ECE), and right ones among the surest, %"
        table = plain_table(title, ("condition",), ("n", "confidence", "right", "ECE", f"right of {COVERAGE:.0%}"))
        for scores in report.confidence:
            figures = (scores.confidence, scores.accuracy, scores.calibration_error, scores.covered_accuracy)
            name = printable(scores.condition) + " (raw)" * (not scores.calibrated)
            table.add_row(Text(name), str(scores.answers), *(f"{100 * figure:.1f}" for figure in figures))
        console.print(table)
    if latency:
        title = "seconds to the first and to the last token, median and 95th percentile"
        table = plain_table(title, ("condition", "memory read"), ("n", "first p50", "p95", "last p50", "p95"))
        for one in latency:
            table.add_row(*one.cells())
        console.print(table)
    for note in report.notes:
        console.print(note, markup=False)


def print_days(report: DayReport, console: Console) -> None:
    """Prints what is correct against length: by condition, family, age and exposure, a column a length."""
    console = Console(file=console.file, width=min(console.width, WIDTH), highlight=False)
    console.print("patrols with a clock: exact answers, %, with 95 % bootstrap intervals, drawn by")
    console.print(f"episodes; {ONCE!r} is recall of what was in view for at most {ONCE_S:g} s in all", markup=False)
    for breakdown in (ALL, FAMILY, AGE, EXPOSURE):
        table = plain_table(breakdown, ("",), [f"{one.hours:g} h" for one in report.lengths], widest=20)
        for name in report.names(breakdown):
            rows = [one.row(breakdown, name) for one in report.lengths]
            table.add_row(Text(name, style="bold"), *(f"n = {row.questions}" if row else "-" for row in rows))
            for condition in report.conditions:
                values = [row.values[condition] if row else None for row in rows]
                table.add_row(f"  {condition}", *("-" if one is None else one.text(100.0, 0, 0) for one in values))
        console.print(table)


def shown(value: Estimate | None, unit: str) -> str:
    """A figure with its interval: a share in per cent, anything else in its unit."""
    if value is None:
        return "-"
    return value.text(100.0, digits=1, bound_digits=0) if unit == "%" else value.text()


def plain_table(title: str, names: Sequence[str], figures: Sequence[str], widest: int | None = None) -> Table:
    """A table without borders: columns of names, which are folded beyond `widest`, then columns of figures."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in names:
        table.add_column(heading, overflow="fold", max_width=widest)
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _print_lines(
    title: str, headings: Sequence[str], groups: Sequence[Sequence[_Line]], conditions: Sequence[str], console: Console
) -> None:
    """A column a condition, in as many tables as the width asks for."""
    for start in range(0, len(conditions), _CONDITIONS_A_TABLE):
        some = conditions[start : start + _CONDITIONS_A_TABLE]
        table = plain_table(title, headings[:1], (*headings[1:], *some), widest=34 if len(headings) > 1 else 36)
        for lines in groups:
            for cells, values, unit in lines:
                figures = (shown(values[condition], unit) for condition in some)
                table.add_row(Text(printable(cells[0])), *cells[1:], *figures)
            table.add_section()
        console.print(table)


def _print_not_seen(report: EvaluationReport, console: Console) -> None:
    """How often each condition says "not seen", rightly and falsely, by length of stream and age of evidence."""
    asked = [
        (label, row.name, breakdown)
        for label, breakdown in (("all", ALL), ("length", LENGTH), ("age", AGE))
        if (found := report.table(SAYS_THERE.name, breakdown)) is not None
        for row in found.rows
    ]
    for condition in report.conditions if len(asked) > 1 else ():
        title = f'{condition}: says "not seen", %, by length of the stream and age of the evidence'
        table = plain_table(title, ("", ""), ("n", "where nothing was", "n", "where it was seen"))
        for label, name, breakdown in asked:
            # What was never there has no age.
            missing = None if breakdown == AGE else _value(report, SAYS_MISSING.name, breakdown, name, condition)
            values = (missing, _value(report, SAYS_THERE.name, breakdown, name, condition))
            if any(values):
                cells = [cell for one in values for cell in ("-" if one is None else str(one.count), shown(one, "%"))]
                table.add_row(label, "" if breakdown == ALL else name, *cells)
        if table.rows:
            console.print(table)


def _value(report: EvaluationReport, metric: str, breakdown: str, group: str, condition: str) -> Estimate | None:
    table = report.table(metric, breakdown)
    return next((row.values[condition] for row in (table.rows if table else ()) if row.name == group), None)


def _print_differences(differences: Sequence[Difference], console: Console) -> None:
    """The differences that the interval shows; the others in a sentence."""
    clear = [one for one in differences if one.verdict != NO_DIFFERENCE]
    if clear:
        title = "where the memory pays: points over a control on the same questions"
        table = plain_table(title, ("", "control"), ("n", "points"), widest=30)
        table.add_column("")
        for one in clear:
            style = "green" if one.points.value > 0 else "red"
            cells = (one.control, str(one.points.count), shown(one.points, "%"), one.verdict)
            table.add_row(Text(printable(one.group)), *cells, style=style)
        console.print(table)
    console.print(
        f"{len(differences) - len(clear)} of {len(differences)} comparisons with a control show no difference"
    )
