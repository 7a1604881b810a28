"""`evaluate.launch.py`: `launch_evaluate.py` runs it to its end, and here its failures become launch's."""

from __future__ import annotations

from pathlib import Path

from launching import launch, launch_test
from recordings import IMAGE_TOPIC, write_bag


def test_evaluate_launch_file() -> None:
    launch_test("launch_evaluate.py")


def test_an_evaluation_that_fails_makes_launch_fail(tmp_path: Path, ros_domain_id: int) -> None:
    status, output = launch(
        "evaluate.launch.py",
        bag=write_bag(tmp_path / "bag", 4),
        questions=tmp_path / "nowhere.jsonl",
        out=tmp_path / "out",
        model="tiny",
        image_topic=IMAGE_TOPIC,
    )
    assert status == 1, output
    assert "nowhere.jsonl: does not exist" in output


def test_a_node_that_cannot_start_makes_launch_fail(tmp_path: Path, ros_domain_id: int) -> None:
    (tmp_path / "questions.jsonl").write_text('{"id": "a", "t": 1.0, "question": "What?"}\n')
    status, output = launch(
        "evaluate.launch.py",
        bag=write_bag(tmp_path / "bag", 4),
        questions=tmp_path / "questions.jsonl",
        out=tmp_path / "out",
        model="/nowhere",
    )
    assert status == 1, output
    assert "cannot become active: unconfigured: /nowhere is no folder here" in output
