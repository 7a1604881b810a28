"""What a replay writes for Rerun, read back with the SDK."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import SECOND_NS
from needs import needed
from recordings import write_bag

from fvs_ros.cli import main
from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.timed.rerun_log import RerunLog
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.tiny import write_tiny_checkpoint
from fvs_ros.sources.frame import Frame, ImageError, Pose
from fvs_ros.stream.pictures import decode_jpeg
from fvs_ros.stream.types import MemoryStatus, Moment

needed("rerun", "needs the Rerun SDK: pip install 'fvs_ros[rerun]'")

Evaluate = Callable[..., int]
FRAMES, QUESTIONS = 12, 4
START_S = 1_700_000_000
UPRIGHT = (0.0, 0.0, 0.0, 1.0)


def rows_of(path: Path) -> dict[str, list[dict[str, Any]]]:
    """What was logged at times of the stream, by entity, in order of time: components, and `stamp` in nanoseconds."""
    from rerun.chunk import RrdReader

    found: dict[str, list[dict[str, Any]]] = {}
    for chunk in RrdReader(str(path)).stream().to_chunks():
        if "stamp" in chunk.timeline_names:
            columns = chunk.to_record_batch()
            values = {name: columns[name].to_pylist() for name in columns.schema.names if ":" in name}
            values["stamp"] = columns["stamp"].cast("int64").to_pylist()
            found.setdefault(chunk.entity_path, []).extend(
                dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)
            )
    return {entity: sorted(rows, key=lambda row: row["stamp"]) for entity, rows in found.items()}


def value(row: dict[str, Any], name: str) -> Any:
    (found,) = (values for column, values in row.items() if column.endswith(f":{name}"))
    return found


def frame(second: int, pose: Pose | None = None) -> Frame:
    image = np.full((60, 80, 3), 20 * second, np.uint8)
    return Frame((START_S + second) * SECOND_NS, lambda: image, "camera", lambda: pose)


def test_frames_are_logged_as_the_engine_decodes_them(tmp_path: Path) -> None:
    def broken() -> np.ndarray:
        raise ImageError("format", "no picture")

    file = tmp_path / "run.rrd"
    poses = [Pose("odom", (float(second), 2.0, 0.0), UPRIGHT) for second in range(4)]
    with closing(RerunLog(file, "a walk")) as log:
        first, second, skipped, damaged = log.frames(
            [frame(0, poses[0]), frame(1), frame(2, poses[2]), Frame((START_S + 3) * SECOND_NS, broken)]
        )
        assert first.image()[0, 0, 0] == 0
        assert first.pose() == poses[0]
        assert second.image()[0, 0, 0] == 20
        assert second.pose() is None
        assert (skipped.stamp_ns, skipped.frame_id) == ((START_S + 2) * SECOND_NS, "camera")
        with pytest.raises(ImageError):
            damaged.image()
    found = rows_of(file)
    pictures = found["/camera"]
    assert len(pictures) == 2
    (blob,) = value(pictures[1], "blob")
    picture = decode_jpeg(bytes(blob))
    assert picture is not None
    assert (picture.shape, picture.mean()) == ((60, 80, 3), pytest.approx(20, abs=2))
    assert value(pictures[0], "media_type") == ["image/jpeg"]
    assert [value(row, "translation") for row in found["/world/robot"]] == [[[0.0, 2.0, 0.0]]]
    assert len(found["/world/path"]) == 1


def test_an_answer_is_logged_when_it_was_asked_and_where_it_rests(tmp_path: Path) -> None:
    file = tmp_path / "run.rrd"
    asked_ns = (START_S + 300) * SECOND_NS
    question = TimedQuestion("q", asked_ns, False, "Where is the chair?")
    moments = [
        Moment((START_S + second) * SECOND_NS, 0, 0, 1.0, "camera", pose, relevance)
        for second, pose, relevance in ((240, Pose("odom", (1.0, 2.0, 0.0), UPRIGHT), 0.75), (120, None, 0.25))
    ]
    with closing(RerunLog(file, "a walk")) as log:
        log.memory(MemoryStatus(version=1, steps=7, csm_slots=5, dam_slots=3, bytes=99, end_ns=asked_ns))
        log.answer(question, "memory", AnswerRow("q", question.question, None, "kitchen"), moments)
        log.answer(question, "last4", AnswerRow("q", question.question, None, None, error="TIMEOUT: late"), [])
    found = rows_of(file)
    (said,), (failed,) = found["/questions/memory"], found["/questions/last4"]
    assert value(said, "text") == ["Where is the chair? - kitchen"]
    assert (value(failed, "text"), value(failed, "level")) == (["Where is the chair? - TIMEOUT: late"], ["WARN"])
    (place,) = found["/world/moments/memory"]
    assert value(place, "positions") == [[1.0, 2.0, 0.0]]
    assert value(place, "labels") == ["1: 75%, 1 min ago"]
    rests = found["/rests_on/memory"]
    assert [row["stamp"] // SECOND_NS - START_S for row in rests] == [120, 240], "at their own times"
    assert value(rests[1], "text")[0].startswith("1: 75%, 1 min ago Where is the chair? - kitchen")
    assert [value(found[f"/memory/{name}"][0], "scalars") for name in ("steps", "csm_slots", "dam_slots", "bytes")] == [
        [7.0], [5.0], [3.0], [99.0],
    ]  # fmt: skip


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    """Replays a bag with four questions into a folder; returns the status."""
    folder = tmp_path_factory.mktemp("replay")
    write_tiny_checkpoint(folder / "model", memory=FlashMemoryConfig(csm_slots=6, dam_slots=3))
    bag, questions = write_bag(folder / "bag", FRAMES), folder / "questions.jsonl"
    lines = [{"id": f"q{number}", "t": number / 4, "question": f"Is it {number}?"} for number in range(QUESTIONS)]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    fixed = ["--bag", bag, "--questions", questions, "--model", folder / "model", "--max-new-tokens", 3, "--fps", 0]

    def run(out: Path, *more: object) -> int:
        return main(["evaluate", "replay", *map(str, [*fixed, "--device", "cpu", "--out", out, *more])])

    return run


def test_a_replay_logs_everything_and_answers_the_same(evaluate: Evaluate, tmp_path: Path) -> None:
    plain, logged, file = tmp_path / "plain", tmp_path / "logged", tmp_path / "run.rrd"
    assert evaluate(plain) == 0
    assert evaluate(logged, "--rerun", file) == 0
    assert (plain / "report.json").read_bytes() == (logged / "report.json").read_bytes()
    found = rows_of(file)
    counts = Counter({entity: len(rows) for entity, rows in found.items()})
    assert counts["/camera"] == FRAMES
    assert counts["/questions/memory"] == counts["/world/moments/memory"] == QUESTIONS
    memories = json.loads((plain / "report.json").read_text())["streams"]["memory"]
    assert [value(row, "scalars") for row in found["/memory/steps"]] == [[point["steps"]] for point in memories]
    assert counts["/rests_on/memory"] >= QUESTIONS
    # A run that goes on after an interruption has all answers in its recording, too.
    assert evaluate(logged, "--rerun", tmp_path / "again.rrd") == 0
    again = rows_of(tmp_path / "again.rrd")["/questions/memory"]
    assert [value(row, "text") for row in again] == [value(row, "text") for row in found["/questions/memory"]]


def test_what_is_missing_or_cannot_be_written_is_said_before_any_work(
    evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "nowhere" / "run.rrd", tmp_path / "out"
    assert evaluate(out, "--rerun", file) == 1
    assert f"--rerun cannot write {file}" in capsys.readouterr().err
    assert evaluate(out, "--live", "--rerun", file) == 1
    assert "--rerun shows what this process decodes" in capsys.readouterr().err
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "rerun" else find(name, *more))
    assert evaluate(out, "--rerun", tmp_path / "run.rrd") == 1
    assert "pip install rerun-sdk, or fvs_ros with its extra 'rerun'" in capsys.readouterr().err
    assert not out.exists()
