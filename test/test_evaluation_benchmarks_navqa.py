"""NaVQA: rows and windows, poses, formed questions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import SAMPLES

from fvs_ros.evaluation.benchmarks import BenchmarkQuestion, navqa
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.grading import AnswerKind

START_S = 1673980000.0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    shutil.copytree(SAMPLES / "navqa", tmp_path / "navqa")
    return tmp_path / "navqa"


def by_task(path: Path) -> dict[str, BenchmarkQuestion]:
    return {question.task: question for question in navqa.read(path)}


def test_questions(data: Path) -> None:
    questions = by_task(data / "data.csv")
    assert list(questions) == ["position", "time", "duration", "binary", "text"]
    # 10:28:20 at UTC-8 is 100 s after the start: half way between the poses at 50 s and 150 s.
    assert questions["position"].answer == pytest.approx((10.0, 20.0, 0.5))
    assert questions["time"].answer == pytest.approx(200 / 60)
    assert questions["duration"].answer == 1.5
    assert questions["binary"].answer is True
    assert questions["text"].answer == "a red door"
    time = questions["time"]
    assert (time.start_time_s, time.ask_time_s) == (START_S, START_S + 300)
    assert (time.video, time.groups) == ("3", {"length": ("long",)})
    assert time.kind is AnswerKind.MINUTES_AGO
    assert time.prompt.startswith(
        "You started moving at 2023-01-17 10:26:40. The current time is 2023-01-17 10:31:40 and you are located at "
        "[30.00, 60.00, 0.50]. \n When did you pass the gate?\n"
    )


def edit(path: Path, old: str, new: str) -> Path:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("data.csv", "UUID", "ID", "line 1: column 'UUID' is missing"),
        ("data.csv", "3_LONG_t", "3_LONG_p", "row 2: id '3_LONG_p' occurs before, in row 1"),
        ("data.csv", "3_LONG_t", "other", "row 2: UUID 'other' is unknown to 3/qa_unfilled.json"),
        ("data.csv", ",time,", ",colour,", "type 'colour' is unknown, one of position, time"),
        ("data.csv", "10:28:20", "ten", "annotated time 'ten'"),
        ("data.csv", "10:28:20", "25:00:00", "annotated time '25:00:00'"),
        ("data.csv", "10:28:20", '"10:28:20, 10:28:30"', "2 annotated times, one expected for a position"),
        ("data.csv", "1.5,", "long,", "parsable answer 'long', a number of minutes"),
        ("data.csv", "Yes", "maybe", "answer 'maybe', yes or no expected"),
        ("data.csv", "[position],", "[position],,,", "row 1: has more than the 8 columns"),
        ("data.csv", "3_LONG_p,3", "3_LONG_p,../3", "column 'Seq ID' is '../3', a number"),
        ("3/qa_unfilled.json", '"end_time": 1673980300.0', '"end_time": 1.0', "start_time .* is not before end_time"),
        ("poses/dense/3.txt", " 0.5 1.0", " 0.5", "line 1: eight numbers expected"),
        ("poses/dense/3.txt", "1673980150.0", "1673980001.0", "line 3: time .* does not follow"),
    ],
)
def test_what_is_broken_is_named(data: Path, file: str, old: str, new: str, message: str) -> None:
    edit(data / file, old, new)
    with pytest.raises(DataError, match=message):
        navqa.read(data / "data.csv")


def test_missing_poses_are_named(data: Path) -> None:
    (data / "poses" / "dense" / "3.txt").unlink()
    with pytest.raises(DataError, match=r"dense/3\.txt: does not exist"):
        navqa.read(data / "data.csv")


def formed(folder: Path, **changes: Any) -> Path:
    rows: list[dict[str, Any]] = [
        {"id": "p", "type": "position", "answers": {"position": [1.0, 2.0, 3.0]}},
        {"id": "t", "type": "time", "answers": {"text": ["3.3 minutes ago"], "time": 3.3}},
        {"id": "b", "type": "binary", "answers": {"text": ["no", "no"]}},
        {"id": "x", "type": "text", "answers": {"text": ["a red door"]}},
    ]
    for row in rows:
        row |= {
            "question": "You started moving. \n Where?",
            "length_category": "SHORT",
            "start_time": 5.0,
            "end_time": 9.0,
        }
        row |= changes
    path = folder / "16" / "human_qa.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"version": 0.1, "data": rows}), encoding="utf-8")
    return folder


def test_formed_questions(tmp_path: Path) -> None:
    questions = by_task(formed(tmp_path))
    assert [question.answer for question in questions.values()] == [(1.0, 2.0, 3.0), 3.3, False, "a red door"]
    assert questions["position"].question == "Where?"
    assert questions["position"].video == "16"


def test_formed_questions_that_are_broken(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no <sequence>/human_qa"):
        navqa.read(tmp_path)
    with pytest.raises(DataError, match=r"data\[1\], id p: id 'p' occurs before"):
        navqa.read(formed(tmp_path, id="p"))


def test_poses_are_interpolated_and_held_at_the_ends() -> None:
    poses = navqa.Poses((0.0, 10.0), ((0.0, 0.0, 0.0), (10.0, 20.0, 5.0)))
    assert poses.at(-5.0) == (0.0, 0.0, 0.0)
    assert poses.at(2.0) == pytest.approx((2.0, 4.0, 1.0))
    assert poses.at(10.0) == (10.0, 20.0, 5.0)
    assert poses.at(99.0) == (10.0, 20.0, 5.0)
