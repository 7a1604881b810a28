"""Whether answers are as right as they are sure, and the calibration that makes them so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.timed.breakdowns import GradedAnswer, tables
from fvs_ros.evaluation.timed.confidence import calibration_error, confidence_scores, covered_accuracy
from fvs_ros.evaluation.timed.confidence_fit import fit_calibration
from fvs_ros.patrol.templates import NOT_SEEN

QUESTION = TimedQuestion("0", 10, False, "Where?", answer="kitchen", proof_ns=((0, 5),), family="recall")


def graded(number: int, confidence: float, response: str, answer: str = "kitchen") -> GradedAnswer:
    question = replace(QUESTION, id=str(number), answer=answer)
    row = AnswerRow(question.id, "Where?", answer, response, confidence=confidence, calibrated=True)
    return GradedAnswer.of(question, "memory", replace(row, not_seen=response == NOT_SEEN), number)


def test_the_error_is_the_mean_distance_from_what_is_right() -> None:
    confidence, correct = np.array([0.9, 0.9, 0.9, 0.9, 0.1, 0.1]), np.array([1.0, 1, 1, 0, 0, 0])
    assert calibration_error(confidence, correct) == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)
    assert calibration_error(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0


def test_the_surest_answers_are_counted() -> None:
    confidence, correct = np.array([0.1, 0.9, 0.8, 0.7, 0.6]), np.array([0.0, 1, 1, 1, 0])
    assert covered_accuracy(confidence, correct) == 0.75
    assert covered_accuracy(confidence, correct, 0.6) == 1
    assert covered_accuracy(confidence[:1], correct[:1], 0.1) == 0


def test_each_condition_has_its_scores() -> None:
    answers = [graded(0, 0.9, "kitchen"), graded(1, 0.5, "hall")]
    none = replace(answers[0], condition="guess", row=AnswerRow("0", "Where?", "kitchen", "kitchen"))
    (scores,) = confidence_scores([*answers, none], ["memory", "guess"])
    assert (scores.condition, scores.answers, scores.calibrated) == ("memory", 2, True)
    assert scores.confidence == pytest.approx(0.7)
    assert scores.accuracy == 0.5
    assert scores.calibration_error == pytest.approx((0.1 + 0.5) / 2)
    assert scores.covered_accuracy == 0.5


def test_not_seen_is_scored_where_nothing_was_and_where_something_was() -> None:
    answers = [
        graded(0, 1, NOT_SEEN, NOT_SEEN),
        graded(1, 1, "hall", NOT_SEEN),
        graded(2, 1, NOT_SEEN),
        graded(3, 1, "kitchen"),
        graded(4, 1, "hall"),
        graded(5, 1, "hall"),
    ]
    found = {table.metric: table.rows[0].values["memory"] for table in tables(answers, ["memory"])}
    missing, there = found["says not seen, where nothing was"], found["says not seen, where it was seen"]
    assert missing is not None
    assert there is not None
    assert (missing.value, missing.count, there.value, there.count) == (0.5, 2, 0.25, 4)


def test_a_calibration_tells_how_many_are_right_and_never_falls() -> None:
    generator = np.random.default_rng(0)
    raw = generator.random(4_000)
    correct = (generator.random(4_000) < raw**2).astype(float)
    points, right = fit_calibration(raw, correct)
    assert points == sorted(set(points))
    assert right == sorted(right)
    assert np.interp([0.3, 0.6, 0.9], points, right) == pytest.approx([0.09, 0.36, 0.81], abs=0.06)
    calibrated = np.interp(raw, points, right)
    assert calibration_error(calibrated, correct) < 0.03 < calibration_error(raw, correct)
    assert fit_calibration(raw, correct) == (points, right)


def test_where_all_are_right_not_all_will_be() -> None:
    raw = np.linspace(0, 1, 80)
    assert fit_calibration(raw, np.ones(80))[1] == [pytest.approx(40.5 / 41)] * 2


def test_too_few_or_equal_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="79 answers; at least 80"):
        fit_calibration(np.linspace(0, 1, 79), np.ones(79))
    with pytest.raises(ValueError, match=r"all of 100 answers have a raw confidence of about 0\.5"):
        fit_calibration(np.full(100, 0.5), np.ones(100))
