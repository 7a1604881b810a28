"""The readers: made-up samples in the published formats, and what breaks them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import SAMPLES, changed

from fvs_ros.commands.evaluation import BENCHMARK_NAMES
from fvs_ros.evaluation.benchmarks import BENCHMARKS, BenchmarkQuestion
from fvs_ros.evaluation.errors import DataError
from fvs_ros.evaluation.grading import AnswerKind

LONG_VIDEO = ("egoschema", "mlvu", "lvbench", "mvbench", "videomme")
INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, or D) of the correct option."
)


def read(name: str, file: Path | None = None) -> list[BenchmarkQuestion]:
    return BENCHMARKS[name].read(file or SAMPLES / f"{name}.json")


def test_the_command_line_knows_all_benchmarks() -> None:
    assert set(BENCHMARK_NAMES) == set(BENCHMARKS)


@pytest.mark.parametrize(
    ("name", "ids", "answers", "videos"),
    [
        ("egoschema", ["6", "7"], [3, 4], 2),
        ("mlvu", ["000000", "000001", "000002"], [0, 1, 2], 2),
        ("lvbench", ["55", "56"], [3, 0], 1),
        ("mvbench", ["000000", "000001"], [2, 0], 2),
        ("videomme", ["001-1", "001-2", "601-1"], [2, 0, 1], 2),
    ],
)
def test_long_video_sets(name: str, ids: list[str], answers: list[int], videos: int) -> None:
    questions = read(name)
    assert [question.id for question in questions] == ids
    assert [question.answer for question in questions] == answers
    assert len({question.video for question in questions}) == videos
    for question in questions:
        assert question.kind is AnswerKind.CHOICE
        assert question.prompt == INSTRUCTION + question.question
        assert question.answer_prefix == "Best option: ("
        assert question.ask_time_s is None


def test_options_tasks_and_groups() -> None:
    assert read("egoschema")[0].options[3] == "C mends a bicycle."
    assert [len(question.options) for question in read("mvbench")] == [4, 1]
    assert [question.task for question in read("mlvu")] == ["plotQA", "plotQA", "count"]
    assert read("lvbench")[1].groups["question_type"] == ("reasoning", "entity recognition")
    assert read("videomme")[2].groups == {
        "duration": ("long",),
        "domain": ("Multilingual",),
        "sub_category": ("Multilingual",),
        "task_type": ("OCR Problems",),
    }
    assert read("videomme")[0].options == ("One.", "Two.", "Three.", "Four.")


@pytest.mark.parametrize("name", LONG_VIDEO)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda items: items[1].pop("video_id"), r"item 1, id \w+.*: field 'video_id' is missing"),
        (lambda items: items[0].update(answer="A"), "item 0.*field 'answer' is \"A\", an integer expected"),
        (lambda items: items[0].update(answer=True), "field 'answer' is true, an integer expected"),
        (lambda items: items[0].update(answer=5), r"field 'answer' is 5, an index from 0 to \d expected"),
        (lambda items: items[0].update(answer=-1), "field 'answer' is -1"),
        (lambda items: items[1].update(id=items[0]["id"]), r"item 1.*occurs before, in item 0, id"),
        (lambda items: items[1].update(id=None), "item 1: field 'id' is null, a string or an integer expected"),
        (lambda items: items[0].update(question="What?"), "item 0.*lists no options"),
        (lambda items: items[0].update(question=["What?"]), "field 'question' is .*a string that is not blank"),
        (lambda items: items.append("text"), r"item \d: \"text\" found, an object with named fields expected"),
        (lambda items: items.clear(), "the list is empty"),
    ],
)
def test_a_broken_item_is_named(tmp_path: Path, name: str, change: Callable[[Any], None], message: str) -> None:
    path = changed(tmp_path, f"{name}.json", change)
    with pytest.raises(DataError, match=message) as error:
        read(name, path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mlvu", lambda items: items[0].pop("type"), "field 'type' is missing"),
        ("mlvu", lambda items: items[0].update(duration="246"), "field 'duration' is \"246\", a finite number"),
        ("lvbench", lambda items: items[0].update(question_type=[]), "field 'question_type' is \\[\\], a list of str"),
        ("mvbench", lambda items: items[0].update(task_type=3), "field 'task_type' is 3, a string"),
        ("videomme", lambda items: items[0].pop("domain"), "field 'domain' is missing"),
    ],
)
def test_a_field_of_one_set_is_checked(tmp_path: Path, name: str, change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(name, changed(tmp_path, f"{name}.json", change))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json: does not exist"):
        read("mlvu", tmp_path / "absent.json")
    with pytest.raises(DataError, match="is a folder"):
        read("mlvu", tmp_path)
    path = tmp_path / "file.json"
    path.write_text('[{"id": 1},\n}', encoding="utf-8")
    with pytest.raises(DataError, match="line 2: is no JSON"):
        read("mlvu", path)
    path.write_text('{"id": 1}', encoding="utf-8")
    with pytest.raises(DataError, match="a list of objects expected"):
        read("mlvu", path)
    path.write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match="byte 2: is no UTF-8 text"):
        read("mlvu", path)
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(DataError, match="nested too deeply"):
        read("mlvu", path)


def test_ovo_bench() -> None:
    questions = {question.id: question for question in read("ovo-bench", SAMPLES / "ovo_bench_new.json")}
    assert list(questions) == ["0", "483", "297", "1319", "1558_0", "1558_1", "1516_0", "1516_1", "1468_0", "1468_1"]
    assert [question.mode for question in questions.values()] == ["backward"] * 3 + ["realtime"] + ["forward"] * 6
    assert questions["0"].answer_letter == "C"
    assert "A. in the sink; B. on the table; C. on the shelf; D. in a box;" in questions["0"].prompt
    assert questions["483"].ask_time_s == 36.5
    repetition = questions["1558_1"]
    assert (repetition.kind, repetition.answer, repetition.ask_time_s) == (AnswerKind.COUNT, 2, 19.0)
    assert "how many times did they jump?" in repetition.prompt
    assert [questions[f"1516_{probe}"].answer for probe in (0, 1)] == [True, False]
    assert "\ncomb\n" in questions["1516_0"].prompt
    assert [questions[f"1468_{probe}"].answer for probe in (0, 1)] == [False, True]
    assert "Which way does she go?" in questions["1468_0"].prompt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda items: items[0].update(task="XYZ"), "item 0, id 0: field 'task' is 'XYZ', one of EPM"),
        (lambda items: items[0].update(gt=4), "field 'gt' is 4, an index from 0 to 3"),
        (lambda items: items[0].update(options=["one", ""]), "field 'options' .* strings that are not blank"),
        (lambda items: items[0].update(realtime=-1), "field 'realtime' is -1, seconds from 0 on"),
        (lambda items: items[4].update(test_info=[]), "id 1558: field 'test_info' is empty"),
        (lambda items: items[4]["test_info"][1].pop("count"), r"id 1558, test_info\[1\]: field 'count' is missing"),
        (lambda items: items[5]["test_info"][0].update(type=2), r"test_info\[0\]: field 'type' is 2, 0 \(no\) or 1"),
        (lambda items: items[6].pop("question"), "id 1468: field 'question' is missing"),
    ],
)
def test_ovo_bench_names_what_is_broken(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read("ovo-bench", changed(tmp_path, "ovo_bench_new.json", change))


def streaming(name: str) -> list[BenchmarkQuestion]:
    return read("streamingbench", SAMPLES / f"questions_{name}.json")


def test_streaming_bench() -> None:
    real = streaming("real")
    assert [question.id for question in real] == ["real_0_0", "real_1_0", "real_1_1"]
    assert [question.ask_time_s for question in real] == [31.0, 65.0, 70.0]
    assert [question.answer_letter for question in real] == ["C", "A", "B"]
    assert real[0].prompt.endswith(
        "\n\nQuestion: How many pans?\n\nOptions:\nA. One.\nB. Two.\nC. Three.\nD. Four.\n\nThe best option is:"
    )
    assert [question.id for question in streaming("real_stream")] == ["real_0_0"]
    assert streaming("proactive")[0].answer == "3"
    assert streaming("proactive")[0].answer_time_s == 29.0
    assert streaming("proactive")[0].kind is AnswerKind.PROACTIVE


def test_streaming_bench_repairs_options_that_were_cut_or_repeated() -> None:
    assert streaming("omni")[0].options == ("A river that runs dry.", "A lake.", "A pond.", "A sea.")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["A. one", "C. three", "B. two", "D. four"], ("one", "two", "three", "four")),
        (["A. one", "B. two", "B. three", "D. four"], ("one", "two", "three", "four")),
        (["A.one", "two", "three", "four"], ("one", "two", "three", "four")),
    ],
)
def test_streaming_bench_reads_four_options_by_their_letters_or_places(
    tmp_path: Path, options: list[str], expected: tuple[str, ...]
) -> None:
    path = changed(tmp_path, "questions_real.json", lambda items: items[0]["questions"][0].update(options=options))
    assert read("streamingbench", path)[0].options == expected


def test_sequential_questions_are_told_the_ones_before() -> None:
    first, second = streaming("sqa")
    assert [first.id, second.id] == ["sqa_0_0_0", "sqa_0_1_0"]
    assert "Who serves?; Options: A. Ann., B. Bo., C. Cy., D. Di.; Answer: A; " in second.prompt
    assert "Here are the contextual information" not in first.prompt
    (alone,) = first.conversation
    assert second.conversation[:2] == (alone, "A")
    assert alone.endswith("Who serves?\n\nOptions:\nA. Ann.\nB. Bo.\nC. Cy.\nD. Di.\n\nThe best option is:")
    assert [turn.startswith("You are an advanced") for turn in second.conversation] == [True, False, False]
    assert second.question in second.conversation[2]
    assert streaming("real")[0].conversation == ()


def first(items: Any) -> Any:
    return items[0]["questions"][0]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("real", lambda items: first(items).update(time_stamp="31 s"), r"item 0, questions\[0\].*'31 s', a time"),
        ("real", lambda items: first(items).update(answer="E"), "field 'answer' is 'E', one letter of ABCD"),
        ("real", lambda items: first(items).update(options=["A. one"]), "gives 1 options, 4"),
        ("real", lambda items: items[0].update(questions=[]), "item 0: field 'questions' is empty"),
        ("real", lambda items: items[0].pop("video_path"), "field 'video_path' is missing"),
        ("sqa", lambda items: items.append({}), "item 1: a list of objects expected"),
        ("proactive", lambda items: first(items).pop("ground_truth_output"), "'ground_truth_output' is missing"),
    ],
)
def test_streaming_bench_names_what_is_broken(
    tmp_path: Path, name: str, change: Callable[[Any], None], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read("streamingbench", changed(tmp_path, f"questions_{name}.json", change))


def test_a_file_of_streaming_bench_is_known_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    shutil.copy(SAMPLES / "questions_real.json", path)
    with pytest.raises(
        DataError, match="the name must begin with one of real, omni, sqa, proactive, or with questions_"
    ):
        read("streamingbench", path)
