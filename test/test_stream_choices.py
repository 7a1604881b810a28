"""Answers that are one of given texts: what is refused, and what comes back."""

from __future__ import annotations

import math

import pytest
from engines import failure, feed, result
from fakes import FakeModel, frame

from fvs_ros.stream.choices import LONGEST_CHOICE, MOST_CHOICES, check_choices
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.types import AskOptions, ErrorCode

CHOICES = ("the kitchen", "the hall", "neither")


def test_the_likeliest_choice_is_the_answer(engine: StreamEngine, model: FakeModel) -> None:
    feed(engine, frame(1), frame(2))
    model.likelihood = lambda question, text: {"the hall": math.log(6), "neither": math.log(2)}.get(text, 0.0)
    pieces: list[str] = []
    answer = result(engine.ask("Where?", AskOptions(choices=CHOICES), pieces.append))
    assert answer.text == "the hall"
    assert pieces == ["the hall"]
    assert answer.choice_probabilities == pytest.approx((1 / 9, 6 / 9, 2 / 9))
    assert len(answer.moments) == 1
    assert result(engine.ask("Where?")).choice_probabilities == ()


@pytest.mark.parametrize(
    ("choices", "hint"),
    [
        (("yes",), f"1 choices; give 2 to {MOST_CHOICES}"),
        (tuple(map(str, range(MOST_CHOICES + 1))), f"{MOST_CHOICES + 1} choices; give 2 to {MOST_CHOICES}"),
        (("yes", " \n"), "choice 2 of 2 is empty"),
        (("yes", "n" * (LONGEST_CHOICE + 1)), f"{LONGEST_CHOICE + 1} characters; shorten it to {LONGEST_CHOICE}"),
        (("yes", "no\ud800"), "its character 3"),
        (("yes", "no", "yes"), "choices 1 and 3 are both 'yes'"),
        ("yes or no", "give a list of texts"),
    ],
)
def test_choices_that_make_no_sense_are_refused(engine: StreamEngine, choices: tuple[str, ...], hint: str) -> None:
    feed(engine, frame(1), frame(2))
    error = failure(engine.ask("Is it open?", AskOptions(choices=choices)))
    assert error.code == ErrorCode.INVALID_QUESTION
    assert hint in str(error)


@pytest.mark.parametrize(
    "choices",
    [(), ("yes", "no"), ("yes", "yes "), ("a<|im_end|>", "b"), tuple(str(one) * 20 for one in range(MOST_CHOICES))],
)
def test_other_choices_are_taken(choices: tuple[str, ...]) -> None:
    check_choices(choices)


def test_a_model_that_fails_on_choices_fails_the_question_alone(engine: StreamEngine, model: FakeModel) -> None:
    feed(engine, frame(1), frame(2))
    model.answer_error = RuntimeError("broken")
    assert failure(engine.ask("Where?", AskOptions(choices=CHOICES))).code == ErrorCode.MODEL_ERROR
    model.answer_error = None
    assert result(engine.ask("Where?", AskOptions(choices=CHOICES))).text in CHOICES
