import json
from pathlib import Path
from typing import Any

import pytest
from conftest import require_ros

require_ros()

from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.questions import QUESTIONS_FILE
from fvs_ros.ros_tools.demo_questions import (
    DemoQuestion,
    for_any_video,
    is_right,
    of_recording,
    right_answers,
)

START_NS = 1_750_000_000 * 10**9


def write(folder: Path, *questions: dict[str, Any]) -> None:
    (folder / QUESTIONS_FILE).write_text("".join(json.dumps(question) + "\n" for question in questions))


def timed(number: int, at_s: float, **fields: Any) -> dict[str, Any]:
    return {"id": str(number), "stamp": 1_750_000_000 + at_s, "question": f"question {number}?", **fields}


def test_questions_for_any_video_are_spread_over_it_and_the_last_is_streamed() -> None:
    questions = for_any_video(40.0)
    assert [question.at_s for question in questions] == [6.0, 16.0, 26.0, 36.0]
    assert [question.door for question in questions] == ["service /ask"] * 3 + ["action /ask_stream"]
    assert all(question.truth is None for question in questions)


def test_a_recordings_questions_are_asked_a_moment_after_their_stamps_in_order(tmp_path: Path) -> None:
    choices = {"choices": ["yes", "no"], "answer": 1}
    write(
        tmp_path,
        timed(1, 20, answer="red ball", family="recall"),
        timed(0, 4, **choices),
        {"id": "2", "t": 30, "question": "question 2?"},
        timed(3, 40),
        timed(4, 99, answer="never"),
    )
    assert of_recording(tmp_path, START_NS, 60.0) == [
        DemoQuestion(4.5, "question 0?", "no"),
        DemoQuestion(20.5, "question 1?", "red ball", "recall"),
        DemoQuestion(30.5, "question 2?"),
        DemoQuestion(40.5, "question 3?", streamed=True),
    ]


def test_a_recording_without_questions_has_none_and_a_broken_file_is_named(tmp_path: Path) -> None:
    assert of_recording(tmp_path, START_NS, 60.0) == []
    (tmp_path / QUESTIONS_FILE).write_text("not JSON\n")
    with pytest.raises(DataError, match=QUESTIONS_FILE):
        of_recording(tmp_path, START_NS, 60.0)


def test_only_answers_whose_truth_is_known_are_counted() -> None:
    questions = [DemoQuestion(0, "a?", "yes"), DemoQuestion(1, "b?"), DemoQuestion(2, "c?", "red ball")]
    assert right_answers(questions, [" yes\n", "whatever", "red box"]) == (1, 2)
    assert is_right("red ball", "red ball")
    assert not is_right("a red ball", "red ball")
