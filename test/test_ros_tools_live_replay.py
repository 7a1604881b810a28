"""`fvs evaluate replay --live`: the running node, a replayed bag, and questions at their times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from node_harness import StreamProcess, running_node
from recordings import IMAGE_TOPIC, write_bag

from fvs_ros.cli import main

FRAMES, PERIOD_S = 40, 0.05


def write_questions(path: Path) -> Path:
    lines = [
        {"id": f"q{i}", "t": second, "question": "What?", "answer": "x"} for i, second in enumerate((0.5, 1.0, 1.9))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def evaluate(tmp_path: Path, *more: str) -> int:
    command = ["evaluate", "replay", "--live", "--questions", str(write_questions(tmp_path / "q.jsonl"))]
    return main([*command, "--bag", str(tmp_path / "bag"), "--out", str(tmp_path / "out"), *more])


def test_the_running_node_is_asked_while_a_bag_plays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bag(tmp_path / "bag", FRAMES)
    with running_node(tmp_path / "model", "-r", f"image:={IMAGE_TOPIC}") as (process, client):
        monkeypatch.setenv("ROS_DOMAIN_ID", str(client.ros_node.context.get_domain_id()))
        assert evaluate(tmp_path, "--max-new-tokens", "4", "--start-timeout", "60") == 0
        assert process.alive
        capsys.readouterr()
        # A second run would mix two memories' answers.
        assert evaluate(tmp_path, "--max-new-tokens", "4") == 1
        assert "holds a live run already" in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["q0", "q1", "q2"]
    assert all(row["response"] for row in rows)
    steps = [row["memory_steps"] for row in rows]
    assert steps == sorted(steps)
    assert 1 <= steps[0] <= steps[-1] <= FRAMES // 2
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    frames = report["streams"]["frames"]
    # The node subscribes as to a sensor, best effort: on a busy machine an image may be lost on its way.
    assert FRAMES // 2 < frames["received"] <= FRAMES
    assert frames["received"] == frames["ingested"] + frames["dropped"] + frames["late"]
    assert any("dropped because the model was too slow" in note for note in report["notes"])
    timings = json.loads((tmp_path / "out" / "timings.json").read_text())
    assert timings["latency"][0]["first_token_p50_s"] > 0
    assert len(timings["asked_late_s"]) == 3


def test_a_node_that_is_not_there_is_named(
    tmp_path: Path, ros_domain_id: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bag(tmp_path / "bag", 4)
    assert evaluate(tmp_path, "--node", "/robot/stream_node", "--start-timeout", "0.5") == 1
    assert "waited 0.5 s for /robot/stream_node to be active; it is not there; start it" in capsys.readouterr().err


@pytest.mark.parametrize("more", [("--controls", "last4"), ("--prompt", "options")])
def test_what_only_the_deterministic_form_can_do_is_refused(
    more: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bag(tmp_path / "bag", 40)
    assert evaluate(tmp_path, *more) == 1
    assert "leave --controls and --prompt out" in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_ends_the_evaluation_with_the_reason(
    tmp_path: Path, ros_domain_id: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bag(tmp_path / "bag", 4)
    process = StreamProcess(ros_domain_id, "-r", "__ns:=/robot", model="/nowhere")
    try:
        assert evaluate(tmp_path, "--node", "/robot/stream_node", "--start-timeout", "60") == 1
    finally:
        process.stop()
    error = capsys.readouterr().err
    assert "/robot/stream_node cannot become active: unconfigured: /nowhere is no folder here" in error
