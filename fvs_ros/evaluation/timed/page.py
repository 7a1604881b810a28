"""`report.html`: one page that needs nothing else, with the scores, the plots and every answer."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.statistics import grouped
from fvs_ros.evaluation.timed.breakdowns import AGE, ALL, CORRECT, FAMILY
from fvs_ros.evaluation.timed.console import shown
from fvs_ros.evaluation.timed.controls import MEMORY
from fvs_ros.evaluation.timed.page_pictures import pictured_questions, styles
from fvs_ros.evaluation.timed.plots import accuracy_plot, difference_plot, latency_plot, memory_plot, timeline_plot
from fvs_ros.evaluation.timed.replay import ReplayResult
from fvs_ros.evaluation.timed.report import EvaluationReport, Timings
from fvs_ros.sources.frame import SECOND_NS

# More rows than a person reads would only make the page slow; answers.jsonl has them all.
_MOST_ANSWERS = 1000


def replay_notes(result: ReplayResult) -> list[str]:
    """What a reader of a replay's scores must know."""
    notes = []
    if result.statistics.lost:
        notes.append(result.statistics.describe_lost())
    failed = {row.error.partition(":")[0] for rows in result.answers.values() for row in rows.values() if row.error}
    if failed:
        notes.append(f"Some questions got no answer ({', '.join(sorted(failed))}); they count as wrong.")
    if any(one.answer is None for one in result.questions):
        unknown = sum(one.answer is None for one in result.questions)
        notes.append(f"{unknown} questions have no known answer and are in no score.")
    return notes


def page(
    report: EvaluationReport,
    timings: Timings,
    answers: Mapping[str, Mapping[str, AnswerRow]],
    result: ReplayResult | None = None,
) -> str:
    """The page of an evaluation, from the template `report.html.jinja`.

    Args:
        report: its scores.
        timings: of its answers.
        answers: rows of each condition by the question's id.
        result: of the replay where it was one, whose stream and answers are shown too.
    """
    plots = {"latency": latency_plot(answers, "latency")}
    if report.differences:
        plots["differences"] = difference_plot(report.main_differences, "differences")
    right: dict[str, float | None] = {}
    if result is not None:
        memory = answers.get(MEMORY.name, {})
        right = {
            one.id: one.grade(memory[one.id].response if one.id in memory else None).correct for one in result.questions
        }
        plots |= {"timeline": timeline_plot(result, right, "timeline"), "memory": memory_plot(result, "memory")}
    accuracy = [
        (title, Markup(accuracy_plot(table, report.conditions, name)), table)
        for breakdown, title, name in (
            (AGE, "Accuracy against the age of the evidence", "age"),
            (FAMILY, "Accuracy by family", "family"),
        )
        if (table := report.table(CORRECT.name, breakdown)) is not None
    ]
    pictured = [] if result is None else pictured_questions(result.questions, answers.get(MEMORY.name, {}))
    of_stamps, addresses = styles({} if result is None else result.pictures)
    environment = Environment(loader=PackageLoader("fvs_ros.evaluation.timed", ""), autoescape=True)
    environment.filters |= {
        "shown": shown,
        "seconds": lambda nanoseconds: nanoseconds / SECOND_NS,
        "by_metric": lambda tables: grouped(tables, lambda table: [table.metric]),
    }
    return environment.get_template("report.html.jinja").render(
        report=report,
        timings=timings,
        result=result,
        conditions=list(report.conditions),
        timed=[condition for condition in report.conditions if condition in answers],
        tiles=_tiles(report, timings, result),
        plots={name: Markup(svg) for name, svg in plots.items()},
        accuracy=accuracy,
        questions=sorted(result.questions, key=lambda one: one.time_ns)[:_MOST_ANSWERS] if result else (),
        wrong=sum(value == 0 for value in right.values()),
        pictured=pictured if addresses else (),
        picture_of=of_stamps,
        addresses=addresses,
    )


def _tiles(report: EvaluationReport, timings: Timings, result: ReplayResult | None) -> list[tuple[str, str]]:
    """What is correct from each condition, how soon the memory answers and its size: a figure and a line about it."""
    tiles = []
    table = report.table(CORRECT.name, ALL)
    for condition, value in table.rows[0].values.items() if table is not None else ():
        text = "-" if value is None else f"{100 * value.value:.1f} %"
        low, high = (None, None) if value is None else (value.low, value.high)
        interval = "" if low is None or high is None else f", {100 * low:.0f} to {100 * high:.0f}"
        tiles.append((text, f"correct, {condition}{interval}"))
    first = next((one for one in timings.latency if one.condition == MEMORY.name), None)
    if first is not None:
        slow = f"to the first token, median; p95 {first.first_token_p95_s:.2f} s"
        tiles.append((f"{first.first_token_p50_s:.2f} s", slow))
    if result is not None and result.memory:
        tiles.append((f"{result.memory[-1].bytes / 1e6:.1f} MB", f"memory, {result.memory[-1].steps} steps seen"))
    return tiles
