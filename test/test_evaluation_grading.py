from __future__ import annotations

import pytest

from fvs_ros.evaluation.benchmarks.predictions import AnswerRow
from fvs_ros.evaluation.grading import Grade, evidence_age_s, grade, missed_s
from fvs_ros.evaluation.questions import TimedQuestion

SECOND_NS = 1_000_000_000


def question(answer=None, choices=(), family="", at_s=100.0, proof_s=()) -> TimedQuestion:
    proof = tuple((round(start * SECOND_NS), round(end * SECOND_NS)) for start, end in proof_s)
    return TimedQuestion("q", round(at_s * SECOND_NS), False, "What?", choices, answer, proof, family)


def row(*moments: tuple[float, float, float]) -> AnswerRow:
    """A row whose moments have these seconds, weights and relevances."""
    numbers = tuple((round(second * SECOND_NS), 0, 0, weight, relevance) for second, weight, relevance in moments)
    return AnswerRow("q", "What?", None, "yes", moments=numbers)


@pytest.mark.parametrize(
    ("asked", "response", "expected"),
    [
        # Texts: exact, but for spaces around.
        (question("red box"), " red box\n", Grade(1, 1)),
        (question("red box"), "Red box", Grade(0, 0)),
        (question("red box"), "a red box", Grade(0, 0)),
        (question("red box"), "", Grade(0, 0, missing=True)),
        (question("red box"), None, Grade(0, 0, missing=True)),
        # Choices: strictly parsed; what cannot be read is unparsed, never guessed.
        (question(1, ("yes", "no")), "no", Grade(1, 1, 1)),
        (question(1, ("yes", "no")), "B) no", Grade(1, 0, 1)),
        (question(1, ("yes", "no")), "(A)", Grade(0, 0, 0)),
        (question(1, ("yes", "no")), "perhaps", Grade(0, 0, 0, unparsed=True)),
        (question(1, ("yes", "no")), None, Grade(0, 0, 0, missing=True)),
        # Yes or no, counts, spans of time in minutes, places in metres.
        (question(True), "Yes, it is.", Grade(1)),
        (question(False), "yes", Grade(0)),
        (question(True), "it may be", Grade(0, unparsed=True)),
        (question(3), "There are 3.", Grade(1)),
        (question(3), "2 or 3", Grade(0, unparsed=True)),
        (question(5.0), "6.5 minutes ago", Grade(1, minutes=1.5)),
        (question(5, family="time"), "30 seconds", Grade(0, minutes=4.5)),
        (question(5.0, family="duration"), "long", Grade(0, unparsed=True)),
        (question((3.0, 4.0, 0.0)), "[0, 0, 0]", Grade(1, position_m=5.0)),
        (question((30.0, 40.0, 0.0)), "[0, 0, 0]", Grade(0, position_m=50.0)),
        (question((3.0, 4.0)), "over there", Grade(0, unparsed=True)),
        # Without a known answer there is nothing to be right or wrong.
        (question(), "anything", Grade()),
        (question(), None, Grade(missing=True)),
    ],
)
def test_grades(asked, response, expected) -> None:
    assert grade(asked, response) == expected


@pytest.mark.parametrize(
    ("proof_s", "age_s"),
    [
        ((), None),
        (((10, 20),), 80),
        (((10, 20), (50, 60)), 40),
        (((90, 100),), 0),
        (((90, 120),), 0),
        (((110, 120),), None),
    ],
)
def test_the_age_is_that_of_the_newest_proof_before_the_question(proof_s, age_s) -> None:
    assert evidence_age_s(question(proof_s=proof_s)) == age_s


def test_moments_are_ranked_by_weight_where_they_are_not_by_relevance() -> None:
    asked = question(proof_s=((10, 20),))
    by_weight = row((50, 9, -1), (15, 5, -1), (30, 7, -1), (5, 1, -1))
    assert [missed_s(asked, by_weight, top) for top in (1, 2, 3, None)] == [30, 10, 0, 0]
    by_relevance = row((50, 9, 0.1), (15, 5, 0.9), (30, 7, 0.5))
    assert missed_s(asked, by_relevance, 1) == 0


def test_a_miss_is_counted_to_the_nearest_end_of_a_proof() -> None:
    asked = question(proof_s=((10, 20), (60, 70)))
    assert missed_s(asked, row((23, 1, -1)), 1) == 3
    assert missed_s(asked, row((55, 1, -1)), 1) == 5


def test_without_proofs_or_moments_nothing_is_missed() -> None:
    assert missed_s(question(), row((1, 1, -1)), 1) is None
    assert missed_s(question(proof_s=((10, 20),)), row(), 1) is None
