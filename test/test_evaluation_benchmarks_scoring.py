"""Scores by the published rules and by the strict parse, and how `fvs evaluate score` shows them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import SAMPLES, write_lines
from rich.console import Console

from fvs_ros import cli
from fvs_ros.evaluation.benchmarks import BENCHMARKS
from fvs_ros.evaluation.benchmarks.report import print_report
from fvs_ros.evaluation.benchmarks.scoring import ScoreReport, score
from fvs_ros.evaluation.errors import DataError


def rows_of(report: ScoreReport) -> dict[tuple[str, str], Any]:
    return {(table.title, row.name): row for table in report.tables for row in table.rows}


def answers(path: Path, name: str, file: str, responses: Mapping[str, str | None], **changes: Any) -> Path:
    """Our answers.jsonl with `responses` by question id."""
    questions = {question.id: question for question in BENCHMARKS[name].read(SAMPLES / file)}
    return write_lines(
        path,
        [
            {"id": identity, "question": "q", "answer": questions[identity].answer, "response": response} | changes
            for identity, response in responses.items()
        ],
    )


def published(path: Path, responses: Mapping[str, str | None], answers_by_id: dict[str, int]) -> Path:
    return write_lines(
        path,
        [
            {"id": identity, "question": "q", "answer": answers_by_id[identity], "pred": response}
            for identity, response in responses.items()
        ],
    )


VIDEOMME = {"001-1": 2, "001-2": 0, "601-1": 1}


def test_published_files_alone_are_scored_without_breakdowns(tmp_path: Path) -> None:
    # "An arch" is A to the published parser, and nothing to the strict one.
    file = published(tmp_path / "pred.json", {"001-1": "C)", "001-2": "An arch", "601-1": "D"}, VIDEOMME)
    report = score("videomme", [file])
    row = rows_of(report)["overall", "all questions"]
    assert row.published.value == pytest.approx(2 / 3)
    assert row.strict.value == pytest.approx(1 / 3)
    assert (row.questions, row.unparsed, row.missing) == (3, 1, 0)
    assert [table.title for table in report.tables] == ["overall"]
    assert "Without annotations" in report.notes[0]


def test_missing_predictions_are_wrong_and_named(tmp_path: Path) -> None:
    file = published(tmp_path / "pred.json", {"001-1": "C", "601-1": ""}, VIDEOMME)
    report = score("videomme", [file], [SAMPLES / "videomme.json"])
    row = rows_of(report)["overall", "all questions"]
    assert report.missing == ("001-2", "601-1")
    assert row.strict.value == pytest.approx(1 / 3)
    # The published scorer leaves a question without a row out, and draws for an empty answer.
    assert row.published.count == 2
    assert report.drawn == 1
    assert row.unparsed == 0


def test_random_draws_repeat_with_the_seed(tmp_path: Path) -> None:
    identity = {str(index): index % 4 for index in range(60)}
    file = published(tmp_path / "pred.json", dict.fromkeys(identity, "none"), identity)
    values = {
        seed: rows_of(score("mlvu", [file], seed=seed))["overall", "all questions"].published.value
        for seed in (1, 2, 3)
    }
    assert values[1] == rows_of(score("mlvu", [file], seed=1))["overall", "all questions"].published.value
    assert len(set(values.values())) > 1
    assert score("mlvu", [file]).drawn == 60


def test_video_mme_breakdowns(tmp_path: Path) -> None:
    file = published(tmp_path / "pred.json", {"001-1": "C", "001-2": "B", "601-1": "B"}, VIDEOMME)
    rows = rows_of(score("videomme", [file], [SAMPLES / "videomme.json"]))
    assert rows["duration", "short"].published.value == 0.5
    assert rows["duration", "long"].strict.value == 1.0
    assert rows["domain", "Knowledge"].questions == 2
    assert rows["sub_category", "Multilingual"].published.value == 1.0
    assert rows["task_type", "OCR Problems"].published.value == 0.5


def test_lvbench_counts_a_question_for_each_of_its_types(tmp_path: Path) -> None:
    file = published(tmp_path / "pred.json", {"55": "A", "56": "A"}, {"55": 3, "56": 0})
    rows = rows_of(score("lvbench", [file], [SAMPLES / "lvbench.json"]))
    assert rows["question_type", "reasoning"].published.value == 1.0
    assert rows["question_type", "entity recognition"].published.value == 1.0
    assert rows["question_type", "key information retrieval"].published.value == 0.0
    assert rows["overall", "all questions"].questions == 2


def test_the_mean_of_tasks(tmp_path: Path) -> None:
    file = answers(tmp_path / "answers.jsonl", "mlvu", "mlvu.json", {"000000": "A", "000001": "A", "000002": "(C) 3"})
    rows = rows_of(score("mlvu", [file], [SAMPLES / "mlvu.json"]))
    assert rows["overall", "all questions"].strict.value == pytest.approx(2 / 3)
    assert rows["overall", "mean of tasks"].strict.value == pytest.approx(0.75)
    assert rows["task", "plotQA"].strict.value == 0.5
    assert rows["task", "count"].strict.value == 1.0


OVO = {
    "0": "C", "483": "Apple", "297": "A",  # EPM 1, ASI 1 (loosely), HLD 0
    "1319": None,  # OCR 0
    "1558_0": "1", "1558_1": "1 or 2",  # REC 1, 0
    "1516_0": "Yes", "1516_1": "N",  # SSR 1, 1
    "1468_0": "No", "1468_1": "yes",  # CRR 1, 0: the published rule minds the case
}  # fmt: skip


def test_ovo_bench_by_task_mode_and_total(tmp_path: Path) -> None:
    file = answers(tmp_path / "answers.jsonl", "ovo-bench", "ovo_bench_new.json", OVO)
    rows = rows_of(score("ovo-bench", [file], [SAMPLES / "ovo_bench_new.json"]))
    expected = {"EPM": 1, "ASI": 1, "HLD": 0, "OCR": 0, "REC": 0.5, "SSR": 1, "CRR": 0.5}
    assert {name: row.published.value for (title, name), row in rows.items() if title != "overall"} == expected
    assert rows["overall", "backward: mean of tasks"].published.value == pytest.approx(2 / 3)
    assert rows["overall", "forward: mean of tasks"].published.value == pytest.approx(2 / 3)
    assert rows["overall", "total: mean of modes"].published.value == pytest.approx((2 / 3 + 0 + 2 / 3) / 3)
    assert rows["overall", "total: mean of modes"].strict.value == pytest.approx((1 / 3 + 0 + (0.5 + 1 + 1) / 3) / 3)
    assert rows["backward", "ASI"].unparsed == 1
    assert (rows["realtime", "OCR"].missing, rows["realtime", "OCR"].unparsed) == (1, 0)
    assert rows["forward", "REC"].unparsed == 1


def test_ovo_bench_results_alone_and_without_a_mode(tmp_path: Path) -> None:
    row = {"id": 0, "video": "x.mp4", "task": "EPM", "question": "Where?", "response": "It is C.", "ground_truth": "C"}
    path = tmp_path / "model_1.json"
    path.write_text(json.dumps({"backward": [row], "realtime": [], "forward": []}), encoding="utf-8")
    report = score("ovo-bench", [path])
    rows = rows_of(report)
    assert rows["overall", "backward: mean of tasks"].published.value == 1.0
    assert rows["overall", "backward: mean of tasks"].strict.value == 0.0
    assert ("overall", "total: mean of modes") not in rows
    assert any("no total" in note for note in report.notes)


def test_streaming_bench(tmp_path: Path) -> None:
    file = answers(
        tmp_path / "answers.jsonl",
        "streamingbench",
        "questions_real.json",
        {"real_0_0": "C. Three.", "real_1_0": "(A)"},
    )
    report = score("streamingbench", [file], [SAMPLES / "questions_real.json"])
    rows = rows_of(report)
    assert rows["overall", "all questions"].published.value == 0.5
    assert rows["overall", "all questions"].strict.value == pytest.approx(2 / 3)
    assert rows["task", "Counting"].strict.value == 1.0
    assert rows["task", "Causal Reasoning"].published is None
    assert report.missing == ("real_1_1",)


@pytest.mark.parametrize(
    ("answered_s", "response", "in_time", "right"),
    [(31.0, "It is 3.", 1, 1), (31.1, "3", 0, 0), (27.0, "three", 1, 0), (None, "3", 0, 0)],
)
def test_proactive_output(tmp_path: Path, answered_s: float, response: str | None, in_time: bool, right: float) -> None:
    file = answers(
        tmp_path / "a.jsonl", "streamingbench", "questions_proactive.json", {"proactive_0_0": response},
        answered_s=answered_s,
    )  # fmt: skip
    rows = rows_of(score("streamingbench", [file], [SAMPLES / "questions_proactive.json"]))
    assert rows["proactive output", "in time, within 2 s"].published.value == in_time
    assert rows["overall", "all questions"].published.value == right


def test_errors_of_navqa(tmp_path: Path) -> None:
    responses = {
        "3_LONG_p": "[13, 24, 0.5]",  # 5 m off
        "3_LONG_t": "6 minutes ago",  # 2.67 minutes off
        "3_SHORT_d": "90 seconds",
        "3_SHORT_b": '{"binary": "no"}',
        "3_SHORT_x": "a red door",
    }
    file = answers(tmp_path / "a.jsonl", "navqa", "navqa/data.csv", responses)
    report = score("navqa", [file], [SAMPLES / "navqa" / "data.csv"])
    mean = {row.name: row.error.value for row in report.errors if row.error is not None}
    assert mean["position"] == pytest.approx(5.0)
    assert mean["time"] == pytest.approx(6 - 200 / 60)
    assert mean["duration"] == pytest.approx(0.0)
    assert [row.unit for row in report.errors] == [
        "distance, metres", "difference in minutes ago", "difference, minutes",
    ]  # fmt: skip
    rows = rows_of(report)
    assert rows["overall", "all questions"].questions == 4, "texts are for a person to judge"
    assert rows["overall", "all questions"].strict.value == 0.5
    assert {task: rows["task", task].strict.value for task in ("position", "time", "duration", "binary")} == {
        "position": 1.0, "time": 0.0, "duration": 1.0, "binary": 0.0,
    }  # fmt: skip
    assert rows["task", "text"].strict is None
    assert rows["length", "short"].questions == 2


def test_navqa_answers_that_give_no_number(tmp_path: Path) -> None:
    file = answers(tmp_path / "a.jsonl", "navqa", "navqa/data.csv", {"3_LONG_p": "over there", "3_SHORT_b": "Yes"})
    report = score("navqa", [file], [SAMPLES / "navqa" / "data.csv"])
    position = report.errors[0]
    assert (position.questions, position.error, position.median) == (1, None, None)
    assert rows_of(report)["task", "position"].unparsed == 1
    assert report.missing == ("3_LONG_t", "3_SHORT_d"), "a text is in no score, and so not wrong"


@pytest.mark.parametrize(("metres", "median"), [((1, 2, 9), 2.0), ((9, 1, 4, 2), 3.0), ((1, 2, 3, 40, 50, 60), 21.5)])
def test_the_median_is_the_middle_one_or_the_mean_of_the_two_in_the_middle(
    tmp_path: Path, metres: tuple[int, ...], median: float
) -> None:
    questions = [
        {
            "id": f"p{number}",
            "question": "Where?",
            "type": "position",
            "answers": {"position": [0.0, 0.0, 0.0]},
            "length_category": "SHORT",
            "start_time": 5.0,
            "end_time": 9.0,
        }
        for number in range(len(metres))
    ]
    (tmp_path / "16").mkdir()
    (tmp_path / "16" / "human_qa.json").write_text(json.dumps({"data": questions}), encoding="utf-8")
    rows = [
        {"id": f"p{number}", "question": "Where?", "answer": [0.0, 0.0, 0.0], "response": f"[{off}, 0, 0]"}
        for number, off in enumerate(metres)
    ]
    report = score("navqa", [write_lines(tmp_path / "a.jsonl", rows)], [tmp_path])
    assert [(row.name, row.median) for row in report.errors] == [("position", median)]


@pytest.mark.parametrize("name", ["ovo-bench", "streamingbench", "navqa"])
def test_answers_that_need_annotations(tmp_path: Path, name: str) -> None:
    file = write_lines(tmp_path / "a.jsonl", [{"id": 1, "question": "q", "answer": 1, "response": "A"}])
    with pytest.raises(DataError, match="add --annotations"):
        score(name, [file])


def test_an_unknown_id_is_named(tmp_path: Path) -> None:
    file = published(tmp_path / "pred.json", {"001-1": "C", "9-9": "B", "9-8": "B"}, VIDEOMME | {"9-9": 0, "9-8": 0})
    with pytest.raises(DataError, match=r"pred\.json: line 2: id '9-9' is none of the 3 annotated questions"):
        score("videomme", [file], [SAMPLES / "videomme.json"])


def test_predictions_for_other_annotations_are_refused(tmp_path: Path) -> None:
    file = published(tmp_path / "pred.json", {"001-1": "C"}, {"001-1": 0})
    with pytest.raises(DataError, match="line 1: the right answer of id '001-1' is 0 here and 2 in the annotations"):
        score("videomme", [file], [SAMPLES / "videomme.json"])


def test_tables_fit_a_hundred_columns(tmp_path: Path) -> None:
    for name, file, responses in (
        ("videomme", "videomme.json", {"001-1": "C"}),
        ("ovo-bench", "ovo_bench_new.json", OVO),
        ("navqa", "navqa/data.csv", {"3_LONG_p": "[1, 2, 3]"}),
    ):
        path = answers(tmp_path / f"{name}.jsonl", name, file, responses)
        output = io.StringIO()
        print_report(score(name, [path], [SAMPLES / file]), Console(file=output, width=200))
        lines = output.getvalue().splitlines()
        assert max(map(len, lines)) <= 100
        assert any("missing (" in line for line in lines)


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = published(tmp_path / "pred.json", {"001-1": "C", "001-2": "A", "601-1": "D"}, VIDEOMME)
    out = tmp_path / "scores.json"
    arguments = [
        "evaluate",
        "score",
        "videomme",
        str(file),
        "--annotations",
        str(SAMPLES / "videomme.json"),
        "--json",
        str(out),
    ]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "Video-MME without subtitles" in shown
    assert "66.67" in shown
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["tables"][0]["rows"][0]["published"]["value"] == pytest.approx(2 / 3)
    assert written["files"] == [str(file)]


def test_the_command_names_what_it_cannot_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "score", "mlvu", str(tmp_path / "absent.json")]) == 1
    assert f"{tmp_path / 'absent.json'}: does not exist" in capsys.readouterr().err
    file = published(tmp_path / "pred.json", {"001-1": "C"}, VIDEOMME)
    assert cli.main(["evaluate", "score", "videomme", str(file), "--json", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "score", "unknown", str(file)])


def test_odd_ids_are_shown_as_they_are(tmp_path: Path) -> None:
    file = published(tmp_path / "pred.json", {"[bold]\ud800\x1b[2J": ""}, {"[bold]\ud800\x1b[2J": 0})
    output = io.StringIO()
    print_report(score("mlvu", [file]), Console(file=output))
    assert "missing (1, wrong): [bold]\u00b7\u00b7[2J" in output.getvalue()
    assert cli.main(["evaluate", "score", "mlvu", str(file), "--json", str(tmp_path / "scores.json")]) == 0
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["missing"] == ["[bold]\ud800\x1b[2J"]


def test_task_names_are_no_markup(tmp_path: Path) -> None:
    annotations = json.loads((SAMPLES / "mlvu.json").read_text(encoding="utf-8"))
    annotations[0]["type"] = "[red]plot"
    path = tmp_path / "test_qa.json"
    path.write_text(json.dumps(annotations), encoding="utf-8")
    output = io.StringIO()
    file = published(tmp_path / "pred.json", {"000000": "A"}, {"000000": 0})
    print_report(score("mlvu", [file], [path]), Console(file=output))
    assert "[red]plot" in output.getvalue()


def test_the_output_of_streaming_bench_needs_no_annotations(tmp_path: Path) -> None:
    content = json.loads((SAMPLES / "questions_real.json").read_text(encoding="utf-8"))
    for entry, responses in zip(content, (["C"], ["B", "(B)"]), strict=True):
        for question, response in zip(entry["questions"], responses, strict=True):
            question["Made-Up"] = response
    file = tmp_path / "real_output_Made-Up.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    rows = rows_of(score("streamingbench", [file]))
    assert (rows["task", "Counting"].published.value, rows["task", "Counting"].strict.value) == (0.5, 0.5)
    # Its scorer looks at the first character alone.
    assert (rows["task", "Causal Reasoning"].published.value, rows["task", "Causal Reasoning"].strict.value) == (0, 1)


def test_parts_of_streaming_bench_are_scored_together_and_apart(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "answers.jsonl",
        [
            {"id": "real_0_0", "question": "q", "answer": 2, "response": "C"},
            {"id": "omni_0_0", "question": "q", "answer": 3, "response": "A"},
        ],
    )
    annotations = [SAMPLES / "questions_real.json", SAMPLES / "questions_omni.json"]
    rows = rows_of(score("streamingbench", [file], annotations))
    assert rows["overall", "all questions"].questions == 4
    assert (rows["part", "real"].published.value, rows["part", "omni"].published.value) == (1, 0)
    assert rows["part", "real"].strict.value == pytest.approx(1 / 3), "two of its questions are not answered"
    with pytest.raises(DataError, match="give each part once"):
        score("streamingbench", [file], [annotations[0], annotations[0]])
