"""Files of predictions: their forms, shards, and what breaks them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import SAMPLES, write_lines

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.benchmarks.predictions import Prediction, read_predictions
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.grading import AnswerKind
from fvs_ros.evaluation.records import Record
from fvs_ros.stream.types import Moment

MOMENT = {"stamp_ns": 1, "start_ns": 1, "end_ns": 2, "weight": 1.0}
PROBE = {"realtime": 1, "type": 1}


def published(identity: object, pred: object = "B", answer: object = 1) -> dict[str, Any]:
    return {"id": identity, "question": "What?\n(A) one\n(B) two", "answer": answer, "pred": pred}


def three_modes(**changes: Any) -> dict[str, Any]:
    modes = {
        "backward": [
            {"id": 0, "video": "x.mp4", "task": "EPM", "question": "Where?", "response": None, "ground_truth": "C"}
        ],
        "realtime": [],
        "forward": [
            {
                "id": 9,
                "task": "REC",
                "video": "y.mp4",
                "activity": "jump",
                "test_info": [
                    {"realtime": 3, "count": 1, "response": "1"},
                    {"realtime": 5, "count": 2, "response": ""},
                ],
            }
        ],
    }
    return modes | changes


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
    return path


def responses(found: dict[str, Prediction]) -> dict[str, str | None]:
    return {identity: one.row.response for identity, one in found.items()}


def test_answers_survive_a_round_trip(tmp_path: Path) -> None:
    rows = [
        AnswerRow("1", "What?", 2, "C", first_token_s=0.2, total_s=0.5, config="abc"),
        AnswerRow("2", "Where?", (1.0, 2.0, 3.0), None),
        AnswerRow("3", "Rain?", True, "Yes\nit does"),
        AnswerRow("4", "When?", None, "now", answered_s=4.5),
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(row.to_json() + "\n" for row in rows), encoding="utf-8")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [AnswerRow.from_record(Record(path, "line", json.loads(line))) for line in lines] == rows
    assert json.loads(lines[1]) == {"id": "2", "question": "Where?", "answer": [1.0, 2.0, 3.0], "response": None}
    found = read_predictions([path])
    assert [one.row for one in found.values()] == rows
    assert [one.question.kind for one in found.values()] == [AnswerKind.CHOICE] + [AnswerKind.TEXT] * 3


def test_shards_are_joined(tmp_path: Path) -> None:
    shards = [write_lines(tmp_path / f"2_{shard}.json", [published(shard), published(shard + 2)]) for shard in (0, 1)]
    found = read_predictions(shards)
    assert list(found) == ["0", "2", "1", "3"]
    assert found["0"].question.options == ("one", "two")


def test_shards_that_overlap(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "2_0.json", [published(0), published(1)])
    same = write_lines(tmp_path / "2_1.json", [published(1)])
    assert list(read_predictions([first, same])) == ["0", "1"]
    other = write_lines(tmp_path / "3_1.json", [published(2), published(1, pred="A")])
    with pytest.raises(DataError, match=r"3_1\.json: line 2: question '1' has another answer in .*2_0\.json, line 2"):
        read_predictions([first, other])
    id_as_text = write_lines(tmp_path / "4.json", [published("1", answer=0)])
    with pytest.raises(DataError, match="question '1' has another answer"):
        read_predictions([first, id_as_text])


def test_three_modes(tmp_path: Path) -> None:
    found = read_predictions([write(tmp_path / "model_1.json", three_modes())])
    assert responses(found) == {"0": None, "9_0": "1", "9_1": ""}
    assert [one.question.answer for one in found.values()] == [2, 1, 2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": 1, "question": "What?"}, "line 1: neither a row of answers.jsonl"),
        ({"id": 1, "answer": 1, "pred": "A"}, "line 1: field 'question' is missing"),
        ({"id": 1, "question": "What?", "answer": "B", "pred": "A"}, "field 'answer' is \"B\", an integer"),
        ({"id": 1, "question": "What?", "answer": 1, "pred": None}, "field 'pred' is no string"),
        ({"id": 1.5, "question": "What?", "answer": 1, "pred": "A"}, "field 'id' is 1.5"),
        ({"id": 1, "question": "What?", "answer": 1, "response": ["A"]}, "field 'response' is no string and not null"),
        ({"id": 1, "question": "What?", "response": "A"}, "field 'answer' is missing"),
        ({"id": 1, "question": "What?", "answer": {}, "response": "A"}, "field 'answer' is {}, a list"),
        ({"id": 1, "question": "What?", "answer": 1, "response": "A", "extra": 1}, "field 'extra' is unknown"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_predictions([write_lines(tmp_path / "rows.jsonl", [row])])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"other": []}, "modes backward, forward, other, realtime found"),
        ({"backward": [{"id": 0, "task": "OCR"}]}, r"backward\[0\], id 0: task OCR belongs to realtime"),
        ({"backward": [{"id": 0, "task": "EPM", "ground_truth": "CD"}]}, "'ground_truth' is 'CD', one capital letter"),
        ({"realtime": {}}, "field 'realtime' is {}, a list expected"),
        (
            {"forward": [{"id": 9, "task": "CRR", "video": "y", "question": "q", "test_info": [PROBE]}]},
            r"test_info\[0\]: field 'response' is missing",
        ),
    ],
)  # fmt: skip
def test_three_modes_that_are_broken(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_predictions([write(tmp_path / "model.json", three_modes(**change))])


def test_a_mode_that_is_missing(tmp_path: Path) -> None:
    modes = three_modes()
    del modes["realtime"]
    with pytest.raises(DataError, match="modes backward, forward found, backward, forward, realtime expected"):
        read_predictions([write(tmp_path / "model.json", modes)])


def test_rows_in_one_json_array_or_a_pretty_printed_row(tmp_path: Path) -> None:
    rows = [published("1", "B"), published(2, "A")]
    assert responses(read_predictions([write(tmp_path / "array.json", rows)])) == {"1": "B", "2": "A"}
    assert responses(read_predictions([write(tmp_path / "one.json", rows[0])])) == {"1": "B"}
    ours = [json.loads(AnswerRow("1", "What?", 2, "C").to_json())]
    assert responses(read_predictions([write(tmp_path / "ours.json", ours)])) == {"1": "C"}
    with pytest.raises(DataError, match="row 1: neither a row"):
        read_predictions([write(tmp_path / "mixed.json", [rows[0], {"id": 3}])])
    with pytest.raises(DataError, match=r"row 0: '?\"?x"):
        read_predictions([write(tmp_path / "text.json", ["x", rows[0]])])


@pytest.mark.parametrize("answer", [2, 9, -1])
def test_a_right_answer_that_is_no_option(tmp_path: Path, answer: int) -> None:
    file = write_lines(tmp_path / "pred.json", [published("1"), published("2", answer=answer)])
    with pytest.raises(DataError, match=f"line 2: field 'answer' is {answer}, but the question has 2 options, 0 to 1"):
        read_predictions([file])


def test_files_without_predictions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_predictions([tmp_path / "absent.json"])
    (tmp_path / "empty.json").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="is empty, predictions expected"):
        read_predictions([tmp_path / "empty.json"])
    (tmp_path / "cut.json").write_text(json.dumps(published(0)) + '\n{"id": 1, "que', encoding="utf-8")
    with pytest.raises(DataError, match="line 2: is no JSON"):
        read_predictions([tmp_path / "cut.json"])


def streaming_bench(tmp_path: Path, part: str, responses: list[Any], name: str = "Made-Up-7B") -> Path:
    """StreamingBench's own output: the annotations with one more field in each question."""
    content = json.loads((SAMPLES / f"questions_{part}.json").read_text(encoding="utf-8"))
    entries = [subset for entry in content for subset in (entry if isinstance(entry, list) else [entry])]
    questions = [question for entry in entries for question in entry["questions"]]
    for question, response in zip(questions, responses, strict=True):
        if response is not None:
            question[name] = response
    return write(tmp_path / f"{part}_output_{name}.json", content)


def test_the_output_of_streaming_bench(tmp_path: Path) -> None:
    found = read_predictions([streaming_bench(tmp_path, "real", ["C. Three.", None, "B"])])
    assert responses(found) == {"real_0_0": "C. Three.", "real_1_1": "B"}
    assert [one.question.task for one in found.values()] == ["Counting", "Causal Reasoning"]
    assert [*read_predictions([streaming_bench(tmp_path, "sqa", ["A", "B"])])] == ["sqa_0_0_0", "sqa_0_1_0"]


def test_the_dialogue_of_a_proactive_question(tmp_path: Path) -> None:
    history = [
        {"role": "user", "content": "Is it time?", "time": 28, "cost": 0.1},
        {"role": "assistant", "content": "3", "time": 28, "cost": 0.1},
    ]
    path = streaming_bench(tmp_path, "proactive", [{"answered": 28, "dialog_history": history}])
    answer = read_predictions([path])["proactive_0_0"].row
    assert (answer.response, answer.answered_s) == ("3", 28.0)
    path = streaming_bench(tmp_path, "proactive", [{"answered": False, "dialog_history": []}])
    assert read_predictions([path])["proactive_0_0"].row.response is None


def test_broken_outputs_of_streaming_bench_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no question has a field with a model's name"):
        read_predictions([streaming_bench(tmp_path, "real", [None] * 3)])
    with pytest.raises(DataError, match="id real_0_0: field 'Made-Up-7B' is no string"):
        read_predictions([streaming_bench(tmp_path, "real", [3, None, None])])
    path = streaming_bench(tmp_path, "real", ["A", "B", "C"])
    content = json.loads(path.read_text(encoding="utf-8"))
    content[1]["questions"][0]["Other"] = "A"
    with pytest.raises(DataError, match="id real_1_0: answers of Made-Up-7B and Other; keep those of one model"):
        read_predictions([write(path, content)])


def test_moments_keep_their_nanoseconds(tmp_path: Path) -> None:
    stamps = (1_750_000_000_123_456_789, 1_750_000_000_000_000_001, 1_750_000_001_000_000_000)
    moments = (Moment(*stamps, weight=3.0), Moment(*stamps, weight=2.0, relevance=0.0))
    row = AnswerRow("1", "What?", 0, "A", memory_version=7, memory_steps=40, moments=moments, prefilled=False)
    record = Record(tmp_path, "line 1", json.loads(row.to_json()))
    assert AnswerRow.from_record(record) == row
    assert json.loads(row.to_json())["moments"][0] == dict(
        zip(("stamp_ns", "start_ns", "end_ns", "weight"), (*stamps, 3.0), strict=True)
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        # As rows were written before moments had names.
        (
            {"moments": [[1, 2, 3, 4, -1]]},
            r"line 1, moments\[0\]: .* found, an object with named fields",
        ),
        ({"moments": [{"stamp_ns": 1, "start_ns": 1, "end_ns": 2}]}, r"moments\[0\]: field 'weight' is missing"),
        ({"moments": [MOMENT | {"stamp_ns": 1.5}]}, "field 'stamp_ns' is 1.5, an integer expected"),
        ({"moments": [MOMENT | {"relevance": "high"}]}, "field 'relevance' is \"high\", a finite number"),
        ({"moments": [MOMENT | {"place": 1}]}, "field 'place' is unknown"),
        ({"moments": 5}, "field 'moments' is 5, a list expected"),
        ({"prefilled": 1}, "field 'prefilled' is 1, true or false expected"),
        ({"memory_steps": 1.5}, "field 'memory_steps' is 1.5, an integer expected"),
    ],
)
def test_what_an_answer_was_given_from_must_be_whole(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    row = {"id": 1, "question": "What?", "answer": 1, "response": "A"} | fields
    with pytest.raises(DataError, match=message):
        read_predictions([write_lines(tmp_path / "rows.jsonl", [row])])
