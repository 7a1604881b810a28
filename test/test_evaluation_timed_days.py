"""Accuracy against length, age and exposure: groups and figures by hand."""

from __future__ import annotations

import io
import json

import pytest
from needs import needed
from rich.console import Console

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.timed.breakdowns import AGE, ALL, FAMILY, GradedAnswer
from fvs_ros.evaluation.timed.console import WIDTH, print_days
from fvs_ros.evaluation.timed.days import EXPOSURE, ONCE, DayReport, LengthScores, length_scores
from fvs_ros.evaluation.timed.plots import length_plot

SECOND_NS = 10**9
NOW_S = 80_000
CONDITIONS = ("memory", "oracle")
# Family, age and exposure in seconds (None: it was nowhere), and whether memory and oracle are right.
ASKED: list[tuple[str, float, float | None, str]] = [
    ("recall", 30, 20, "11"),
    ("recall", 3_000, 12, "01"),
    ("recall", 30_000, 21, "01"),
    ("recall", 0, None, "10"),
    ("order", 600, 300, "00"),
    ("order", 601, 301, "01"),
    ("range", 21_601, 59, "10"),
]


def graded(episodes: int = 2) -> list[GradedAnswer]:
    found = []
    for episode in range(episodes):
        for number, (family, age_s, exposure_s, right) in enumerate(ASKED):
            proof = ((0, round((NOW_S - age_s) * SECOND_NS)),)
            asked = TimedQuestion(
                f"{episode}-{number}", NOW_S * SECOND_NS, False, "?", (), "yes", proof, family, exposure_s
            )
            for condition, hit in zip(CONDITIONS, right, strict=True):
                row = AnswerRow(asked.id, "?", "yes", "yes" if hit == "1" else "no")
                found.append(GradedAnswer.of(asked, condition, row, drawn_with=episode))
    return found


@pytest.fixture(scope="module")
def scores() -> LengthScores:
    return length_scores(6.0, graded(), CONDITIONS)


def shares(scores: LengthScores, breakdown: str) -> dict[str, tuple[int, float, float]]:
    found = {}
    for row in scores.rows[breakdown]:
        memory, oracle = row.values["memory"], row.values["oracle"]
        assert memory is not None
        assert oracle is not None
        found[row.name] = (row.questions, round(memory.value, 3), round(oracle.value, 3))
    return found


def test_questions_are_grouped_by_family_age_and_exposure(scores: LengthScores) -> None:
    assert (scores.hours, scores.episodes, scores.questions) == (6.0, 2, 14)
    assert shares(scores, ALL) == {"all questions": (14, 0.429, 0.571), ONCE: (4, 0.5, 1.0)}
    assert shares(scores, FAMILY) == {"order": (4, 0, 0.5), "range": (2, 1, 0), "recall": (8, 0.5, 0.75)}
    # What was nowhere has no age: it counts in none of the bands.
    assert shares(scores, AGE) == {
        "up to 1 min old": (2, 1, 1),
        "1 to 10 min old": (2, 0, 0),
        "10 min to 1 h old": (4, 0, 1),
        "6 h and older": (4, 0.5, 0.5),
    }
    assert shares(scores, EXPOSURE) == {
        "in view up to 20 s": (4, 0.5, 1),
        "20 s to 1 min": (4, 0.5, 0.5),
        "1 to 5 min": (2, 0, 0),
        "more than 5 min": (2, 0, 1),
    }


def test_intervals_draw_whole_episodes(scores: LengthScores) -> None:
    row = scores.row(ALL, "all questions")
    assert row is not None
    value = row.values["memory"]
    assert value is not None
    # Both episodes are alike.
    assert (value.low, value.high, value.count) == (value.value, value.value, 14)
    (single,) = (one for one in length_scores(6.0, graded(1), CONDITIONS).rows[ALL] if one.name == "all questions")
    assert single.values["memory"] is not None
    assert single.values["memory"].low is None


def test_the_table_has_a_column_a_length_and_fits_a_terminal(scores: LengthScores) -> None:
    few = length_scores(0.3, graded()[:4], CONDITIONS)
    lengths = (few, *(length_scores(hours, graded(), CONDITIONS) for hours in (1.7, 6.0, 24.0)))
    stream = io.StringIO()
    print_days(DayReport(lengths, CONDITIONS), Console(file=stream, width=200))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= WIDTH
    headings = next(line.split() for line in lines if "24 h" in line)
    assert headings == ["0.3", "h", "1.7", "h", "6", "h", "24", "h"]
    at = next(index for index, line in enumerate(lines) if line.strip().startswith("6 h and older"))
    assert lines[at].split()[4:] == ["-", "n", "=", "4", "n", "=", "4", "n", "=", "4"]
    assert lines[at + 1].split()[:3] == ["memory", "-", "50"]
    assert all(name in stream.getvalue() for name in (*CONDITIONS, " recall, up to 20 s "))


def test_the_report_is_json_and_the_same_for_equal_answers(scores: LengthScores) -> None:
    report = DayReport((scores,), CONDITIONS)
    assert report.to_json() == DayReport((length_scores(6.0, graded(), CONDITIONS),), CONDITIONS).to_json()
    kept = json.loads(report.to_json())
    assert kept["conditions"] == list(CONDITIONS)
    assert kept["lengths"][0]["rows"][ALL][0]["values"]["oracle"]["count"] == 14


def test_the_plot_shows_each_condition_and_each_length(scores: LengthScores) -> None:
    needed("matplotlib", "needs matplotlib: pip install 'fvs_ros[eval]'")
    lengths = tuple(length_scores(hours, graded(), CONDITIONS) for hours in (0.3, 24.0))
    plot = length_plot(DayReport(lengths, CONDITIONS), "length")
    assert plot.startswith("<svg")
    assert plot == length_plot(DayReport(lengths, CONDITIONS), "length")
    # A line with its two points, as matplotlib draws paths: one of each condition's colour.
    assert all(colour in plot for colour in ("#0072b2", "#009e73"))
