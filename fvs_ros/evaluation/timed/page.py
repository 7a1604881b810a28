"""`report.html`: one page that needs nothing else, with the scores, the plots and every answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.timed.breakdowns import AGE, ALL, CORRECT, FAMILY, BreakdownTable, Difference
from fvs_ros.evaluation.timed.console import shown
from fvs_ros.evaluation.timed.controls import MEMORY
from fvs_ros.evaluation.timed.plots import accuracy_plot, difference_plot, latency_plot, memory_plot, timeline_plot
from fvs_ros.evaluation.timed.replay import ReplayResult
from fvs_ros.evaluation.timed.report import EvaluationReport, Latency, Timings
from fvs_ros.sources.frame import SECOND_NS

# More rows than a person reads would only make the page slow; answers.jsonl has them all.
_MOST_ANSWERS = 1000

_CSS = """
:root { --ink: #1c2330; --soft: #5a6372; --line: #e3e6ea; --accent: #0072b2; --good: #00795a; --bad: #b84a00; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #f6f7f9; font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 0 0 10px; }
p { margin: 6px 0; color: var(--soft); }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin: 18px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(132px, 1fr)); gap: 12px; margin: 18px 0; }
.tile { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.tile b { display: block; font-size: 23px; line-height: 1.3; white-space: nowrap; color: var(--accent); }
.tile span { color: var(--soft); font-size: 13px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; margin: 6px 0 14px; }
th { text-align: left; color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--line); }
th, td { padding: 4px 10px 4px 0; vertical-align: top; } td { border-bottom: 1px solid #f0f2f4; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
caption { text-align: left; font-weight: 600; padding: 6px 0; }
details summary { cursor: pointer; color: var(--accent); margin: 4px 0; }
svg { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
code { background: #f0f2f4; border-radius: 4px; padding: 1px 5px; font-size: 12.5px; }
"""


def replay_notes(result: ReplayResult) -> list[str]:
    """What a reader of a replay's scores must know."""
    notes = []
    lost = result.statistics.dropped + result.statistics.late + sum(result.statistics.rejected.values())
    if lost:
        rejected = ", ".join(f"{count} {reason}" for reason, count in sorted(result.statistics.rejected.items()))
        notes.append(
            f"{lost} of {result.statistics.received} frames never came into memory: {result.statistics.dropped} "
            f"dropped, {result.statistics.late} late{', ' if rejected else ''}{rejected}."
        )
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
    """The page of an evaluation.

    Args:
        report: its scores.
        timings: of its answers.
        answers: rows of each condition by the question's id.
        result: of the replay where it was one, whose stream and answers are shown too.
    """
    parts = [_heading(report, result), _tiles(_score_tiles(report, timings.latency) + _memory_tiles(result))]
    right: dict[str, float | None] = {}
    if result is not None:
        memory = answers.get(MEMORY.name, {})
        right = {
            one.id: one.grade(memory[one.id].response if one.id in memory else None).correct for one in result.questions
        }
        parts.append(_section("The stream", timeline_plot(result, right, "timeline")))
    parts += _accuracy_sections(report)
    timed = [condition for condition in report.conditions if condition in answers]
    latency = latency_plot(answers, "latency") + _latency_table(timings.latency) + _folded(timings.tables, timed)
    parts.append(_section("Latency", latency))
    if result is not None:
        parts.append(_section("Memory over time", memory_plot(result, "memory")))
    drawn = f"<p>Intervals are 95 % bootstrap, drawn by {escape(report.drawn_with)}.</p>"
    parts.append(_section("All tables", drawn + _folded(report.tables, report.conditions)))
    if result is not None:
        parts.append(_answers_section(report, result, right))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(report.title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_CSS}</style></head><body><main>\n{chr(10).join(parts)}\n</main></body></html>\n"
    )


def _accuracy_sections(report: EvaluationReport) -> list[str]:
    """Plots of what is correct: by age, by family, and what the memory differences."""
    found = []
    for breakdown, title, name in (
        (AGE, "Accuracy against the age of the evidence", "age"),
        (FAMILY, "Accuracy by family", "family"),
    ):
        table = report.table(CORRECT.name, breakdown)
        if table is not None:
            found.append(
                _section(title, accuracy_plot(table, report.conditions, name) + _table(table, report.conditions))
            )
    if report.differences:
        found.append(
            _section(
                "Where the memory pays",
                "<p>Each control answered the same questions. Left of zero it was right more often than the memory.</p>"
                + difference_plot(
                    [difference for difference in report.differences if difference.breakdown in (ALL, FAMILY, AGE)],
                    "differences",
                )
                + f"<details><summary>all groups</summary>{_differences(report.differences)}</details>",
            )
        )
    return found


def _folded(tables: Sequence[BreakdownTable], conditions: Sequence[str]) -> str:
    return "".join(
        f"<details><summary>{escape(metric)}</summary>"
        + "".join(_table(table, conditions) for table in tables if table.metric == metric)
        + "</details>"
        for metric in dict.fromkeys(table.metric for table in tables)
    )


def _heading(report: EvaluationReport, result: ReplayResult | None) -> str:
    about = f"{report.questions} questions"
    if result is not None:
        length_s = (result.end_ns - result.start_ns) / SECOND_NS
        about = f"{length_s:.0f} s of stream, {result.statistics.received} frames, {result.statistics.ingested} kept"
    model = f"model {report.settings.get('weights', '')} on {report.settings.get('device', '')}"
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    return f"<h1>{escape(report.title)}</h1><p>{escape(f'{about}; {model}')}</p>{notes}"


def _score_tiles(report: EvaluationReport, latency: Sequence[Latency]) -> list[tuple[str, str]]:
    """What is correct from each condition, and how soon the memory answers: a figure and a line about it."""
    tiles = []
    table = report.table(CORRECT.name, ALL)
    for condition in report.conditions if table is not None else ():
        value = table.rows[0].values[condition] if table is not None else None
        text = "-" if value is None else f"{100 * value.value:.1f} %"
        low, high = (None, None) if value is None else (value.low, value.high)
        interval = "" if low is None or high is None else f", {100 * low:.0f} to {100 * high:.0f}"
        tiles.append((text, f"correct, {condition}{interval}"))
    first = next((one for one in latency if one.condition == MEMORY.name), None)
    if first is not None:
        slow = f"to the first token, median; p95 {first.first_token_p95_s:.2f} s"
        tiles.append((f"{first.first_token_p50_s:.2f} s", slow))
    return tiles


def _memory_tiles(result: ReplayResult | None) -> list[tuple[str, str]]:
    if result is None or not result.memory:
        return []
    return [(f"{result.memory[-1].bytes / 1e6:.1f} MB", f"memory, {result.memory[-1].steps} steps seen")]


def _tiles(tiles: Iterable[tuple[str, str]]) -> str:
    cells = (f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in tiles)
    return f'<div class="tiles">{"".join(cells)}</div>'


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _table(table: BreakdownTable, conditions: Sequence[str]) -> str:
    rows = [
        [escape(row.name), str(row.questions), *(shown(row.values[condition], table.unit) for condition in conditions)]
        for row in table.rows
    ]
    return _html_table(f"{table.metric}, {table.unit}: {table.breakdown}", ["", "questions", *conditions], rows, 1)


def _differences(differences: Sequence[Difference]) -> str:
    classes = {"memory better": "good", "control better": "bad"}
    rows = [
        [
            escape(difference.group),
            escape(difference.control),
            str(difference.points.count),
            shown(difference.points, "%"),
            f'<span class="{classes.get(difference.verdict, "")}">{difference.verdict}</span>',
        ]
        for difference in differences
    ]
    return _html_table("points gained", ["", "control", "questions", "points", ""], rows, 2, 4)


def _latency_table(latency: Sequence[Latency]) -> str:
    headings = ["condition", "memory read", "answers", "first token p50, s", "p95", "last token p50, s", "p95"]
    return _html_table("", headings, [[escape(cell) for cell in one.cells()] for one in latency], 2)


def _html_table(
    caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]], first: int, last: int = 99
) -> str:
    """A table of HTML cells; the columns `first` to `last` hold numbers."""

    def attribute(column: int) -> str:
        return ' class="n"' if first <= column < last else ""

    head = "".join(f"<th{attribute(column)}>{escape(text)}</th>" for column, text in enumerate(headings))
    body = "".join(
        "<tr>" + "".join(f"<td{attribute(column)}>{cell}</td>" for column, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    named = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{named}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _answers_section(report: EvaluationReport, result: ReplayResult, right: Mapping[str, float | None]) -> str:
    rows = [
        [
            f"{(one.time_ns - result.start_ns) / SECOND_NS:.1f}",
            escape(one.family),
            escape(one.question),
            escape(one.answer_text),
            *(_response(one, result, condition) for condition in report.conditions),
        ]
        for one in sorted(result.questions, key=lambda one: one.time_ns)[:_MOST_ANSWERS]
    ]
    wrong = sum(value == 0 for value in right.values())
    table = _html_table("", ["at, s", "family", "question", "right answer", *report.conditions], rows, 0, 1)
    return _section("Answers", f"<details><summary>{len(rows)} questions, {wrong} wrong</summary>{table}</details>")


def _response(question: TimedQuestion, result: ReplayResult, condition: str) -> str:
    row = result.answers[condition].get(question.id)
    graded = question.grade(None if row is None else row.response)
    style = "" if graded.correct is None else "good" if graded.correct else "bad"
    text = "(none)" if row is None or row.response is None else row.response.strip() or "(empty)"
    return f'<span class="{style}">{escape(text[:200])}</span>'
