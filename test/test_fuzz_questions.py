"""Files of timed questions with anything wrong: questions that can be written, asked and graded, or a `DataError`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from fuzzing import TEXTS, Edit, bounded_memory, broken, check_message, damaged, edits, fuzz
from hypothesis import example, given
from hypothesis import strategies as st

from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.questions import TimedQuestion, read_questions, write_questions

WHOLE: list[dict[str, Any]] = [
    {"id": "q1", "t": 12.5, "question": "What?", "choices": ["a cup", "a key"], "answer": 1, "proof": [[3.0, 4.5]]},
    {"id": 2, "stamp": 1700000000.000000005, "question": "Where?", "answer": [1, 2.5, 0], "family": "place"},
    {"id": "q3", "t": 0, "question": "Which?", "choices": ["x", "y"], "answer": "x", "age_s": 3.0},
    {"id": "q4", "t": 3, "question": "Rain?", "answer": False},
    {"id": "q5", "t": 3, "question": "How long?", "answer": 1.5, "family": "duration"},
]


def lines(records: Any) -> bytes:
    """A JSON-lines file; what is no list is one line."""
    records = records if isinstance(records, list) else [records]
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def read(content: bytes, response: str = "") -> list[TimedQuestion] | None:
    """The questions, or None if the file was refused as documented."""
    with tempfile.TemporaryDirectory() as name, bounded_memory():
        path = Path(name, "questions.jsonl")
        path.write_bytes(content)
        try:
            questions = read_questions(path)
        except DataError as error:
            check_message(error, str(path))
            return None
        for question in questions:
            grade = question.grade(response)
            assert grade.correct in (0, 1, None)
            assert grade.error is None or grade.error >= 0
            assert isinstance(question.answer_text, str)
            question.on_clock(5)
        # Nanoseconds and all.
        write_questions(path, questions)
        assert [one.time_ns for one in read_questions(path)] == [one.time_ns for one in questions]
    return questions


def test_the_whole_file_is_read() -> None:
    questions = read(lines(WHOLE))
    assert questions is not None
    assert len(questions) == len(WHOLE)


@given(broken(WHOLE), TEXTS)
@fuzz(400)
def test_other_values(records: Any, response: str) -> None:
    read(lines(records), response)


@given(edits)
@fuzz(200)
def test_damaged_bytes(places: list[Edit]) -> None:
    read(damaged(lines(WHOLE), places))


NUMBERS = st.one_of(
    st.from_regex(r"-?[0-9]{1,12}(\.[0-9]{0,12})?([eE][+-]?[0-9]{1,12})?", fullmatch=True),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "1" * 5000, "1e999999999999", "0." + "1" * 5000, "-0.0"]),
)


@example("1" * 5000, "1", "1", "t")
@example("1", "1e999", "1", "t")
@example("1", "1" + "0" * 400, "1", "t")
@example("1e99999999999999999999", "1", "1", "t")
@given(NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["t", "stamp"]))
@fuzz(300)
def test_any_number(time: str, answer: str, proof: str, clock: str) -> None:
    read(
        f'{{"id": 1, "{clock}": {time}, "question": "What?", "answer": {answer}, "proof": [[0, {proof}]]}}'.encode(),
        "about 3 minutes",
    )


@given(st.sampled_from(["[", '{"a":', '"', "[[1,", "\ufeff", "\x00", "\u2028", "\x85"]), st.integers(1, 50_000))
@example("[", 100_000)
@fuzz(20)
def test_endless_nesting(opening: str, count: int) -> None:
    read((opening * count).encode())
