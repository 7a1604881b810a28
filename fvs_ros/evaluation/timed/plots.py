"""Plots of an evaluation as SVG that stands inside a page. The same data gives the same bytes."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fvs_ros.evaluation.answers import ANSWERS, AnswerRow
from fvs_ros.evaluation.timed.breakdowns import ALL, ALL_QUESTIONS, BreakdownTable, Difference
from fvs_ros.evaluation.timed.controls import MEMORY
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.stream.types import Moment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fvs_ros.evaluation.timed.days import DayReport
    from fvs_ros.evaluation.timed.replay import ReplayResult

# The memory stands out; controls keep their colours whichever of them are there (Okabe and Ito, for all eyes).
COLOURS = {
    MEMORY.name: "#0072b2",
    "uniform": "#e69f00",
    "question-only": "#999999",
    "csm-only": "#56b4e9",
    "dam-only": "#cc79a7",
    "guess": "#c9ced6",
    "oracle": "#009e73",
    "random": "#cc79a7",
    "newest": "#56b4e9",
    "recall": "#000000",
}
_LAST_COLOUR = "#d55e00"
RIGHT, WRONG, UNKNOWN = "#009e73", "#d55e00", "#8a8f98"
# Any: matplotlib types its settings by the names of all of them.
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#3c4350",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": "#3c4350",
    "ytick.color": "#3c4350",
    "grid.color": "#e3e6ea",
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": ANSWERS,
}


def require_plots() -> None:
    """Refuses to begin what would end without its page.

    Raises:
        ValueError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("the report's plots need matplotlib; pip install matplotlib, or fvs_ros with its extra 'eval'")


def colour(condition: str) -> str:
    """What a condition is drawn in."""
    return COLOURS.get(condition, _LAST_COLOUR)


@contextmanager
def _figure(name: str, height: float) -> Iterator[tuple[Axes, list[str]]]:
    """One pair of axes, `height` inches high; what it became is appended to the list at the end.

    Ids begin with `name`, since one page holds several plots.
    """
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        # Not through pyplot, which would look for a display and keep figures.
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.2, height), layout="constrained")
        made: list[str] = []
        yield figure.add_subplot(), made
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
        svg = text.getvalue()
        svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", svg[svg.index("<svg") :], count=1)
        svg = re.sub(r'\bid="', f'id="{name}-', svg)
        made.append(re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg))


def accuracy_plot(table: BreakdownTable, conditions: Sequence[str], name: str) -> str:
    """Shares of the rows of a table, condition beside condition, with their intervals."""
    rows = table.rows
    with _figure(name, 3.4) as (axes, made):
        width = 0.8 / len(conditions)
        for number, condition in enumerate(conditions):
            places, shares, spans = [], [], []
            for place, row in enumerate(rows):
                value = row.values[condition]
                if value is None:
                    continue
                places.append(place + (number - (len(conditions) - 1) / 2) * width)
                shares.append(100 * value.value)
                low, high = (value.value if bound is None else bound for bound in (value.low, value.high))
                spans.append((100 * max(0.0, value.value - low), 100 * max(0.0, high - value.value)))
            axes.bar(places, shares, width * 0.92, color=colour(condition), label=condition)
            if spans:
                axes.errorbar(places, shares, np.array(spans).T, fmt="none", ecolor="#3c4350", elinewidth=1)
        labels = [f"{row.name.split(' (')[0]}\nn = {row.questions}" for row in rows]
        axes.set_xticks(range(len(rows)), labels)
        axes.set(ylim=(0, 100), ylabel="correct, %")
        axes.grid(axis="y")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(conditions))
    return made[0]


def length_plot(report: DayReport, name: str) -> str:
    """Shares of right answers against the length of the patrol, a line a condition, with their intervals."""
    with _figure(name, 3.8) as (axes, made):
        for number, condition in enumerate(report.conditions):
            # Side by side, so that intervals at one length do not hide each other.
            aside = 1.02 ** (number - (len(report.conditions) - 1) / 2)
            hours, shares, lows, highs = [], [], [], []
            for one in report.lengths:
                row = one.row(ALL, ALL_QUESTIONS)
                value = row.values[condition] if row else None
                if value is None:
                    continue
                low, high = (value.value if bound is None else bound for bound in (value.low, value.high))
                hours.append(one.hours * aside)
                shares.append(100 * value.value)
                lows.append(100 * max(0.0, value.value - low))
                highs.append(100 * max(0.0, high - value.value))
            width = 2.2 if condition == MEMORY.name else 1.3
            spans, shade = np.array([lows, highs]), colour(condition)
            axes.errorbar(
                hours, shares, spans, marker="o", capsize=2, label=condition, color=shade, linewidth=width, elinewidth=1
            )
        lengths = [one.hours for one in report.lengths]
        axes.set(xscale="log", ylim=(0, 100), xlabel="hours of patrol", ylabel="exact answers, %")
        axes.set_xticks(lengths, [f"{one.hours:g}\nn = {one.questions}" for one in report.lengths])
        axes.set_xticks([], minor=True)
        axes.grid(axis="y")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return made[0]


def difference_plot(differences: Sequence[Difference], name: str) -> str:
    """Points that the memory differences over each control, by group; left of zero it loses."""
    groups = list(dict.fromkeys(difference.group for difference in differences))
    controls = list(dict.fromkeys(difference.control for difference in differences))
    with _figure(name, 0.9 + 0.16 * len(groups) * (len(controls) + 1)) as (axes, made):
        axes.axvline(0, color="#3c4350", linewidth=1)
        for difference in differences:
            row = groups.index(difference.group) * (len(controls) + 1) + controls.index(difference.control)
            points = difference.points
            shade = colour(difference.control)
            if points.low is not None and points.high is not None:
                axes.plot([100 * points.low, 100 * points.high], [row, row], color=shade, linewidth=2, alpha=0.7)
            axes.plot(100 * points.value, row, "o", color=shade, markersize=5)
        middle = (len(controls) - 1) / 2
        axes.set_yticks([number * (len(controls) + 1) + middle for number in range(len(groups))], groups)
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.set_xlabel("points that the memory is better by, with 95 % intervals")
        for control in controls:
            axes.plot([], [], "o-", color=colour(control), label=f"over {control}")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(controls))
    return made[0]


def latency_plot(answers: Mapping[str, Mapping[str, AnswerRow]], name: str) -> str:
    """Share of answers whose first token came within a time, condition by condition."""
    with _figure(name, 2.8) as (axes, made):
        for condition, rows in answers.items():
            for prefilled, style in ((False, "-"), (True, ":")):
                timed = sorted(
                    row.first_token_s
                    for row in rows.values()
                    if row.first_token_s is not None and bool(row.prefilled) is prefilled
                )
                if timed:
                    shares = 100 * np.arange(1, len(timed) + 1) / len(timed)
                    axes.step([timed[0], *timed], [0, *shares], style, where="post", color=colour(condition))
        for condition in answers:
            axes.plot([], [], color=colour(condition), label=condition)
        for label, style in (("memory read with the question", "-"), ("memory read before it", ":")):
            axes.plot([], [], style, color="#3c4350", label=label)
        axes.set(xscale="log", xlabel="seconds to the first token", ylabel="answers, %", ylim=(0, 101))
        axes.grid()
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return made[0]


def memory_plot(result: ReplayResult, name: str) -> str:
    """Bytes of the stream's state and of the whole process over the stream's time, and how the slots fill."""
    with _figure(name, 2.8) as (axes, made):
        times = [point.time_s for point in result.memory]
        axes.step(times, [point.bytes / 1e6 for point in result.memory], where="post", color=COLOURS["memory"])
        axes.plot([], [], color=COLOURS["memory"], label="memory of the stream")
        if result.resident:
            seconds, sizes = zip(*result.resident, strict=True)
            axes.plot(seconds, [size / 1e6 for size in sizes], color=UNKNOWN, label="whole process")
        axes.set(xlabel="seconds of stream", ylabel="MB", ylim=(0, None))
        axes.grid()
        slots: Any = axes.twinx()
        for label, values, line in (
            ("CSM slots", [point.csm_slots for point in result.memory], "--"),
            ("DAM slots", [point.dam_slots for point in result.memory], ":"),
        ):
            slots.step(times, values, line, where="post", color="#e69f00")
            axes.plot([], [], line, color="#e69f00", label=label)
        slots.set(ylabel="slots filled", ylim=(0, None))
        slots.spines["right"].set_visible(True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)
    return made[0]


def timeline_plot(result: ReplayResult, right: dict[str, float | None], name: str) -> str:
    """The stream from left to right: keyframes with what they stand for, then questions with their proofs.

    Args:
        result: of a replay.
        right: whether each question was answered correctly from the memory, None where that is not known.
        name: of the plot, unique in its page.
    """
    questions = sorted(result.questions, key=lambda one: (one.time_ns, one.id))
    keyframes = _last_keyframes(result)

    def seconds(stamp_ns: float) -> float:
        return (stamp_ns - result.start_ns) / SECOND_NS

    # Rows of a tenth of an inch, closer together where there are hundreds.
    with _figure(name, 1.6 + min(0.09 * len(questions), 5.5) + min(0.07 * len(keyframes), 2.1)) as (axes, made):
        row = 0.0
        for one in keyframes:
            span = [seconds(one.start_ns), seconds(one.end_ns)]
            axes.plot(span, [row, row], color=COLOURS["csm-only"], linewidth=1.6, alpha=0.6)
            axes.plot(seconds(one.stamp_ns), row, "|", color=COLOURS["memory"], markersize=7, markeredgewidth=1.6)
            row += 0.8
        first_question = row = row + 1.5
        axes.axhline(row - 1.2, color="#e3e6ea", linewidth=1)
        for question in questions:
            shade = {None: UNKNOWN, 1.0: RIGHT, 0.0: WRONG}[right.get(question.id)]
            for start, end in question.proof_ns:
                axes.plot([seconds(start), seconds(min(end, question.time_ns))], [row, row], color=shade, linewidth=2.2)
            axes.plot(seconds(question.time_ns), row, "o", color=shade, markersize=3.2)
            row += 1.0
        axes.set(xlabel="seconds of stream", xlim=(0, max(seconds(result.end_ns), 1e-9)), ylim=(row, -1.2))
        axes.set_yticks(
            [max(first_question - 2.3, 0) / 2, (first_question + row) / 2],
            [f"{len(keyframes)} keyframes\nat the last\nquestion", f"{len(questions)}\nquestions"],
        )
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.plot([], [], "|", color=COLOURS["memory"], markeredgewidth=1.6, label="keyframe")
        axes.plot([], [], color=COLOURS["csm-only"], label="its cluster")
        for label, shade in (("right", RIGHT), ("wrong", WRONG), ("not scored", UNKNOWN)):
            if label != "not scored" or None in right.values():
                axes.plot([], [], "o-", color=shade, markersize=4, label=f"question and its proof, {label}")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, fontsize=8)
    return made[0]


def _last_keyframes(result: ReplayResult) -> Sequence[Moment]:
    """Moments of the newest memory that was asked."""
    rows = [row for row in result.answers.get(MEMORY.name, {}).values() if row.moments]
    newest = max(rows, key=lambda row: row.memory_version or 0, default=None)
    return () if newest is None or newest.moments is None else newest.moments
