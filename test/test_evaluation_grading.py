from __future__ import annotations

import pytest

from fvs_ros.evaluation.answers import Answer
from fvs_ros.evaluation.grading import Grade
from fvs_ros.evaluation.questions import TimedQuestion


def question(answer: Answer | None = None, choices: tuple[str, ...] = (), family: str = "") -> TimedQuestion:
    return TimedQuestion("q", 0, False, "What?", choices, answer, family=family)


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
        (question(1, ("yes", "no")), "no", Grade(1, 1)),
        (question(1, ("yes", "no")), "B) no", Grade(1, 0)),
        (question(1, ("yes", "no")), "(A)", Grade(0, 0)),
        (question(1, ("yes", "no")), "perhaps", Grade(0, 0, unparsed=True)),
        (question(1, ("yes", "no")), None, Grade(0, 0, missing=True)),
        # Yes or no, counts, spans of time in minutes, places in metres.
        (question(True), "Yes, it is.", Grade(1)),
        (question(False), "yes", Grade(0)),
        (question(True), "it may be", Grade(0, unparsed=True)),
        (question(3), "There are 3.", Grade(1)),
        (question(3), "2 or 3", Grade(0, unparsed=True)),
        (question(5.0), "6.5 minutes ago", Grade(1, error=1.5)),
        (question(5, family="time"), "30 seconds", Grade(0, error=4.5)),
        (question(5.0, family="duration"), "long", Grade(0, unparsed=True)),
        (question((3.0, 4.0, 0.0)), "[0, 0, 0]", Grade(1, error=5.0)),
        (question((30.0, 40.0, 0.0)), "[0, 0, 0]", Grade(0, error=50.0)),
        (question((3.0, 4.0)), "over there", Grade(0, unparsed=True)),
        # Without a known answer there is nothing to be right or wrong.
        (question(), "anything", Grade()),
        (question(), None, Grade(missing=True)),
    ],
)
def test_grades(asked: TimedQuestion, response: str | None, expected: Grade) -> None:
    assert asked.grade(response) == expected
