"""`fvs evaluate benchmark`, from published files to scores, with a tiny model whose answers mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import benchmark_data
import pytest

from fvs_ros import cli
from fvs_ros.commands.evaluation import UNUSED_STREAM_SETTINGS
from fvs_ros.evaluation.answers import ANSWERS, AnswerFile, AnswerRow
from fvs_ros.evaluation.benchmarks.clip_answerer import ClipProtocol
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.stream.config import StreamConfig

Evaluate = Callable[..., int]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fvs_ros.model.tiny import write_tiny_checkpoint

    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_checkpoint(folder, memory=FlashMemoryConfig(csm_slots=4, dam_slots=2))
    return folder


@pytest.fixture
def evaluate(checkpoint: Path, tmp_path: Path) -> Evaluate:
    """Runs the command; returns its status."""

    def run(name: str, data: Path, *more: str, out: Path = tmp_path / "out", model: Path = checkpoint) -> int:
        options = {"--data": data, "--model": model, "--out": out, "--max-new-tokens": 4, "--device": "cpu"}
        given = [str(word) for option in options.items() for word in option]
        return cli.main(["evaluate", "benchmark", name, *given, *more])

    return run


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / ANSWERS).read_text(encoding="utf-8").splitlines()]


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def rows_of(report: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(table["title"], row["name"]): row for table in report["tables"] for row in table["rows"]}


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("egoschema", ("overall", "all questions", 2)),
        ("mlvu", ("task", "plotQA", 2)),
        ("lvbench", ("question_type", "reasoning", 1)),
        ("mvbench", ("task", "action_localization", 1)),
        ("videomme", ("duration", "short", 2)),
    ],
)
def test_sets_of_whole_clips(
    tmp_path: Path, evaluate: Evaluate, name: str, group: tuple[str, str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    data = benchmark_data.long_video(tmp_path / "data", name)
    assert evaluate(name, data) == 0
    assert all(
        row["response"] is not None and row["total_s"] >= row["first_token_s"] > 0 for row in answers(tmp_path / "out")
    )
    title, row, questions = group
    assert rows_of(report(tmp_path / "out"))[title, row]["questions"] == questions
    assert row in capsys.readouterr().out
    # The same answers are scored alike without a model.
    score = tmp_path / "score.json"
    command = ["evaluate", "score", name, str(tmp_path / "out" / ANSWERS), "--annotations", str(data / "test_qa.json")]
    assert cli.main([*command, "--json", str(score)]) == 0
    assert json.loads(score.read_text(encoding="utf-8"))["tables"] == report(tmp_path / "out")["tables"]


def test_subtitles_change_what_is_asked(tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    data = benchmark_data.long_video(tmp_path / "data", "videomme")
    assert evaluate("videomme-subtitles", data) == 1
    assert "subtitle: does not exist, Video-MME's subtitles" in capsys.readouterr().err
    benchmark_data.subtitles(data)
    assert evaluate("videomme-subtitles", data) == 0
    assert evaluate("videomme", data) == 1
    assert (
        "config.json: holds a run with benchmark 'videomme-subtitles', this one has 'videomme'"
        in capsys.readouterr().err
    )


def test_streams_of_ovo_bench(tmp_path: Path, evaluate: Evaluate) -> None:
    data = benchmark_data.ovo_bench(tmp_path / "data")
    assert evaluate("ovo-bench", data) == 0
    rows = rows_of(report(tmp_path / "out"))
    assert {name for title, name in rows if title == "overall"} == {
        "backward: mean of tasks", "realtime: mean of tasks", "forward: mean of tasks", "total: mean of modes",
    }  # fmt: skip
    assert all(row["missing"] == 0 for row in rows.values())


@pytest.mark.parametrize("context", [[], ["--context", "0"], ["--conversation"]])
def test_streams_of_streaming_bench(tmp_path: Path, evaluate: Evaluate, context: tuple[str, ...]) -> None:
    data = benchmark_data.streaming_bench(tmp_path / "data", "real", "sqa", "proactive")
    assert evaluate("streamingbench", data, *context) == 0
    rows = rows_of(report(tmp_path / "out"))
    assert [(name, row["questions"]) for (title, name), row in rows.items() if title == "part"] == [
        ("real", 3), ("sqa", 2), ("proactive", 1),
    ]  # fmt: skip
    assert len(answers(tmp_path / "out")) == 6


def test_a_conversation_is_another_configuration_and_for_streaming_bench_alone(
    tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    data = benchmark_data.streaming_bench(tmp_path / "data", "sqa")
    assert evaluate("streamingbench", data) == 0
    assert evaluate("streamingbench", data, "--conversation") == 1
    assert "conversation" in capsys.readouterr().err
    assert evaluate("navqa", benchmark_data.navqa(tmp_path / "navqa"), "--conversation", out=tmp_path / "other") == 1
    assert "--conversation has no meaning for navqa" in capsys.readouterr().err


def test_streams_of_navqa(tmp_path: Path, evaluate: Evaluate) -> None:
    data = benchmark_data.navqa(tmp_path / "data")
    assert evaluate("navqa", data) == 0
    assert {row["name"] for row in report(tmp_path / "out")["errors"]} == {"position", "time", "duration"}


def test_an_interrupted_run_goes_on_to_the_same_answers(
    tmp_path: Path, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fvs_ros.evaluation.benchmarks import run as benchmark_run

    data = benchmark_data.long_video(tmp_path / "data", "mlvu")
    assert evaluate("mlvu", data, out=tmp_path / "whole") == 0
    append = benchmark_run.AnswerFile.append

    def interrupted(self: AnswerFile, row: AnswerRow) -> NoReturn:
        append(self, row)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(benchmark_run.AnswerFile, "append", interrupted)
        assert evaluate("mlvu", data) == cli.INTERRUPTED
    assert [row["id"] for row in answers(tmp_path / "out")] == ["000000"]
    assert not (tmp_path / "out" / "report.json").exists()
    first = answers(tmp_path / "out")
    assert evaluate("mlvu", data) == 0
    assert answers(tmp_path / "out")[:1] == first, "what was answered is not answered again"

    def told(folder: Path) -> list[tuple[str, str | None, str]]:
        return [(row["id"], row["response"], row["config"]) for row in answers(folder)]

    assert told(tmp_path / "out") == told(tmp_path / "whole")
    assert report(tmp_path / "out")["tables"] == report(tmp_path / "whole")["tables"]


def test_another_protocol_does_not_go_on_with_a_run(
    tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    data = benchmark_data.long_video(tmp_path / "data", "egoschema")
    assert evaluate("egoschema", data) == 0
    assert evaluate("egoschema", data, "--max-frames", "2") == 1
    assert "a run with max_frames 240, this one has 2; choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "make"), [("egoschema", "long_video"), ("ovo-bench", "ovo_bench")])
def test_the_run_keeps_every_setting_that_its_answers_depend_on(
    tmp_path: Path, evaluate: Evaluate, name: str, make: str
) -> None:
    data = tmp_path / "data"
    if make == "long_video":
        benchmark_data.long_video(data, name)
        protocol: list[type] = [ClipProtocol]
    else:
        benchmark_data.ovo_bench(data)
        protocol = [StreamConfig]
    assert evaluate(name, data) == 0
    kept = json.loads((tmp_path / "out" / "config.json").read_text())["settings"]
    needed = {one.name for kind in [*protocol, FlashMemoryConfig] for one in fields(kind)} - set(UNUSED_STREAM_SETTINGS)
    assert needed | {"benchmark", "questions", "context_s", "weights", "device", "dtype"} <= kept.keys()


def test_a_model_that_was_trained_on_is_another_one(
    tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    from fvs_ros.model.tiny import write_tiny_checkpoint

    data = benchmark_data.long_video(tmp_path / "data", "egoschema")
    model = tmp_path / "model"
    config = FlashMemoryConfig(csm_slots=4, dam_slots=2)
    write_tiny_checkpoint(model, memory=config)
    assert evaluate("egoschema", data, model=model) == 0
    write_tiny_checkpoint(model, seed=1, memory=config)
    assert evaluate("egoschema", data, model=model) == 1
    assert "holds a run with weights" in capsys.readouterr().err


def test_a_missing_video_is_named_before_a_model_is_loaded(
    tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    data = benchmark_data.long_video(tmp_path / "data", "mlvu")
    (data / "frames" / "4_count" / "made_up_2").rename(tmp_path / "elsewhere")
    assert evaluate("mlvu", data, model=tmp_path / "no model") == 1
    error = capsys.readouterr().err
    assert "lacks the frames of 1 of 2 parts" in error
    assert "4_count/made_up_2: does not exist, a folder of frames" in error
    assert not (tmp_path / "out").exists()


def test_missing_videos_count_as_wrong_where_they_are_allowed(
    tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    data = benchmark_data.long_video(tmp_path / "data", "mlvu")
    folder = data / "frames" / "4_count" / "made_up_2"
    folder.rename(tmp_path / "elsewhere")
    assert evaluate("mlvu", data, "--allow-missing") == 1
    assert "1 questions failed and count as wrong" in capsys.readouterr().err
    row = rows_of(report(tmp_path / "out"))["task", "count"]
    assert (row["questions"], row["missing"], row["strict"]["value"]) == (1, 1, 0)
    assert "does not exist" in answers(tmp_path / "out")[2]["error"]
    (tmp_path / "elsewhere").rename(folder)
    assert evaluate("mlvu", data) == 0
    assert rows_of(report(tmp_path / "out"))["task", "count"]["missing"] == 0


def test_a_broken_frame_costs_the_questions_of_its_video_alone(
    tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    data = benchmark_data.long_video(tmp_path / "data", "mlvu")
    (data / "frames" / "1_plotQA" / "made_up_1" / "000002.jpg").write_bytes(b"no image")
    assert evaluate("mlvu", data) == 1
    assert "000000: ImageError: " in capsys.readouterr().err
    assert [row["response"] is None for row in answers(tmp_path / "out")] == [True, True, False]
    overall = rows_of(report(tmp_path / "out"))["overall", "all questions"]
    assert (overall["questions"], overall["missing"]) == (3, 2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mlvu", ["--fps", "2"], "--fps has no meaning for mlvu"),
        ("mlvu", ["--context", "60"], "only StreamingBench has a context"),
        ("mlvu", ["--max-frames", "7"], "max_frames is 7; a grid step is two frames"),
        ("mlvu", ["--max-new-tokens", "0"], "max_new_tokens is 0; it must be at least 1"),
        ("lvbench", [], "id 000000: field 'duration_minutes' is missing"),
    ],
)
def test_wrong_settings_and_files_are_one_clear_line(
    tmp_path: Path,
    evaluate: Evaluate,
    name: str,
    options: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = benchmark_data.long_video(tmp_path / "data", "mlvu")
    assert evaluate(name, data, *options) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_without_annotations_is_named(
    tmp_path: Path, evaluate: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("streamingbench", tmp_path) == 1
    assert "has no questions_real.json or questions_omni.json" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_share_the_work(tmp_path: Path, evaluate: Evaluate, checkpoint: Path) -> None:
    data = benchmark_data.long_video(tmp_path / "data", "mlvu")
    assert evaluate("mlvu", data, out=tmp_path / "alone") == 0
    command = [sys.executable, "-m", "fvs_ros.cli", "evaluate", "benchmark", "mlvu", "--data", str(data)]
    command += ["--model", str(checkpoint), "--out", str(tmp_path / "out"), "--max-new-tokens", "4", "--device", "cpu"]
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=280)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert any("overall" in output for output in outputs), "the last one scores"
    assert {path.name for path in (tmp_path / "out").glob("answers-*.jsonl")} == {
        "answers-00000-of-00002.jsonl", "answers-00001-of-00002.jsonl",
    }  # fmt: skip
    told = [[(row["id"], row["response"]) for row in answers(tmp_path / name)] for name in ("alone", "out")]
    assert told[0] == told[1]
    assert report(tmp_path / "out")["tables"] == report(tmp_path / "alone")["tables"]
