import logging

import pytest

from fvs_ros.stream.log import ThrottledLog, quotes, traceback_without


def test_repeated_messages_are_held_back_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    log = ThrottledLog(logging.getLogger("throttled"), period_s=5.0, clock=lambda: now[0])
    for _ in range(3):
        log.log(logging.WARNING, "image", "bad image")
    log.log(logging.WARNING, "pose", "no pose")
    now[0] = 105.0
    log.log(logging.WARNING, "image", "bad image")
    assert caplog.messages == ["bad image", "no pose", "bad image (2 more like this before)"]


QUESTION = "Where did I leave\nmy пароль?"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no token for " + QUESTION, True),
        (f"no token for {QUESTION!r}", True),
        (f"no token for {QUESTION!a}", True),
        ("no token for did I leave", True),
        ("no token for I leave", False),
        ("", False),
    ],
)
def test_a_piece_of_a_question_is_recognised(text: str, told: bool) -> None:
    assert quotes(text, ["Why?", QUESTION]) is told


@pytest.mark.parametrize(("question", "told"), [("Why?", True), ("Why", False), ("", False)])
def test_a_short_question_is_recognised_whole(question: str, told: bool) -> None:
    assert quotes("it says Why? and ends", [question]) is told


def test_a_traceback_is_told_without_the_question() -> None:
    try:
        try:
            raise KeyError(QUESTION)
        except KeyError as error:
            raise ValueError("the shape is 3, 4 expected") from error
    except ValueError as error:
        text = traceback_without(error, [QUESTION])
    lines = text.splitlines()
    assert lines[-1] == "ValueError: the shape is 3, 4 expected"
    assert lines.count("(a line that quotes the question is left out; the log level debug shows it)") == 1
    assert sum("raise KeyError(QUESTION)" in line for line in lines) == 1
    assert "leave" not in text
