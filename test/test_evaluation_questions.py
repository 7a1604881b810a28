"""Files of timed questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fvs_ros.evaluation import records
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.questions import TimedQuestion, read_questions, write_questions
from fvs_ros.sources.frame import SECOND_NS


def test_the_form(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"id": "q1", "t": 12.5, "question": "What?", "choices": ["a cup", "a key"], "answer": 1, '
        '"proof": [[3.0, 4.5]], "family": "object"}\n\n'
        '{"id": 2, "stamp": 1700000000.000000005, "question": "Where?", "answer": [1, 2.5, 0]}\n'
        '{"id": "q3", "t": 0, "question": "Which?", "choices": ["x", "y"], "answer": "x"}\n'
        '{"id": "q4", "t": 3, "question": "Rain?", "answer": false}\n'
        '{"id": "q5", "t": 3, "question": "How long?", "answer": 1.5}\n'
        '{"id": "q6", "t": 3, "question": "What now?"}',
        encoding="utf-8",
    )
    assert read_questions(path) == [
        TimedQuestion(
            "q1", 12_500_000_000, True, "What?", ("a cup", "a key"), 1, ((3_000_000_000, 4_500_000_000),), "object"
        ),
        TimedQuestion("2", 1_700_000_000_000_000_005, False, "Where?", answer=(1.0, 2.5, 0.0)),
        TimedQuestion("q3", 0, True, "Which?", ("x", "y"), 0),
        TimedQuestion("q4", 3_000_000_000, True, "Rain?", answer=False),
        TimedQuestion("q5", 3_000_000_000, True, "How long?", answer=1.5),
        TimedQuestion("q6", 3_000_000_000, True, "What now?"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": None}, "field 'id' is null"),
        ({"t": None}, "field 't' holds None, seconds expected"),
        ({"t": "12"}, "field 't' holds 12, seconds expected"),
        ({"t": True}, "seconds expected"),
        ({"t": -1}, "field 't' holds -1, seconds from 0"),
        ({"t": float("nan")}, "seconds expected"),
        ({"stamp": 1}, "one of the fields 't' and 'stamp' expected, both found"),
        ({"question": " "}, "field 'question' is \" \", a string that is not blank"),
        ({"choices": []}, "field 'choices' is .*, a list of strings"),
        ({"choices": ["a", "b"], "answer": 2}, "field 'answer' is 2, the text of one choice or an index from 0 to 1"),
        ({"choices": ["a", "a"], "answer": "a"}, "field 'answer' is 'a', the text of one choice"),
        ({"answer": {}}, "field 'answer' is {}, a text"),
        ({"answer": [1, "x"]}, "field 'answer' is \"x\", a finite number"),
        ({"proof": [1, 2]}, "field 'proof' holds 1, intervals"),
        ({"proof": [[2, 1]]}, "which ends before it starts"),
        ({"time": 3}, "field 'time' is unknown; the fields are age_s, answer, choices"),
        ({"family": 3}, "field 'family' is 3, a string"),
        ({"id": "\ud83d"}, r"holds '\\ud83d', half of a character"),
        ({"question": "What \ud83d?"}, r"holds '\\ud83d', half of a character"),
        ({"choices": ["\udc00", "b"], "answer": 1}, r"holds '\\udc00', half of a character"),
    ],
)
def test_a_broken_line_is_refused_with_its_number(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    good = {"id": "a", "t": 1, "question": "What?"}
    path = tmp_path / "q.jsonl"
    lines = [good, good | {"id": "b"} | changes]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with pytest.raises(DataError, match=f"line 2: .*{message}"):
        read_questions(path)


@pytest.mark.parametrize("seconds", ["1e999999999", "1e400", "99999999999"])
def test_a_time_beyond_all_clocks_is_refused(tmp_path: Path, seconds: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(f'{{"id": "a", "t": {seconds}, "question": "What?"}}', encoding="utf-8")
    with pytest.raises(DataError, match="line 1: field 't' holds"):
        read_questions(path)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"id": "a", "t": 1, "question": "What?"}\n{"id": "a", "t": 2, "question": "Why?"}', encoding="utf-8"
    )
    with pytest.raises(DataError, match="line 2: id 'a' occurs before, in line 1"):
        read_questions(path)
    path.write_text('{"id": "a", "question": "What?"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1: .* neither found"):
        read_questions(path)
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1: \[1\] found, an object"):
        read_questions(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no questions"):
        read_questions(path)


TIMES = st.integers(0, 2**31 * 10**9 - 1)


@given(
    TIMES,
    st.booleans(),
    st.text(min_size=1).filter(str.strip),
    st.lists(st.tuples(TIMES, TIMES).map(sorted), max_size=2),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, time_ns: int, relative: bool, text: str, proof: list[list[int]]
) -> None:
    path = tmp_path_factory.mktemp("q") / "q.jsonl"
    question = TimedQuestion("a", time_ns, relative, text, proof_ns=tuple((start, end) for start, end in proof))
    write_questions(path, [question])
    assert read_questions(path) == [question]


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
def test_the_age_is_that_of_the_newest_proof_before_the_question(
    proof_s: tuple[tuple[int, int], ...], age_s: float | None
) -> None:
    proof_ns = tuple((start * SECOND_NS, end * SECOND_NS) for start, end in proof_s)
    question = TimedQuestion("q", 100 * SECOND_NS, False, "What?", proof_ns=proof_ns)
    assert question.age_s == age_s


def test_whole_characters_beyond_sixteen_bits_are_text(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"id": "a", "t": 1, "question": "Where is \\ud83e\\udd16?"}', encoding="utf-8")
    assert read_questions(path)[0].question == "Where is \U0001f916?"


def test_a_file_that_is_too_large_is_refused_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_BYTES", 100)
    path = tmp_path / "q.jsonl"
    path.write_text("x" * 101, encoding="utf-8")
    with pytest.raises(DataError, match="is too large: 101 bytes or more are there, and at most 100 are read"):
        read_questions(path)
