"""`fvs evaluate replay` on small bags with a tiny random model."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from needs import chromium
from recordings import (
    COMPRESSED_TOPIC,
    IMAGE_TOPIC,
    ODOMETRY_TOPIC,
    PERIOD_NS,
    START_NS,
    stamp_ns,
    write_bag,
    write_ros1_bag,
)
from recordings import write_video as write_clip
from rosbags.rosbag2 import StoragePlugin

from fvs_ros.cli import main
from fvs_ros.commands.evaluation import UNUSED_STREAM_SETTINGS
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.tiny import write_tiny_checkpoint
from fvs_ros.stream.config import StreamConfig

FRAMES = 40
CONTROLS = ("last4", "uniform", "question-only", "csm-only", "dam-only")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_checkpoint(folder, memory=FlashMemoryConfig(csm_slots=6, dam_slots=3))
    return folder


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bag") / "bag", FRAMES)


def seconds(frame: float) -> float:
    return frame * PERIOD_NS / 1e9


def write_questions(path: Path, *lines: dict) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    families = ("now", "recall")
    return write_questions(
        tmp_path / "questions.jsonl",
        *(
            {
                "id": f"q{index}",
                "t": seconds(3 * index),
                "question": f"Is it {index}?",
                "answer": "yes",
                "choices": ["yes", "no"],
                "family": families[index % 2],
                "proof": [[seconds(index), seconds(index + 1)]],
            }
            for index in range(12)
        ),
    )


def evaluate(bag: Path, questions: Path, model: Path, out: Path, *more: str) -> int:
    command = ["evaluate", "replay", "--bag", str(bag), "--questions", str(questions), "--model", str(model)]
    return main([*command, "--out", str(out), "--fps", "0", "--max-new-tokens", "3", "--device", "cpu", *more])


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def report(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def test_two_runs_give_the_same_report_byte_for_byte_with_all_controls(
    bag: Path, questions: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        assert evaluate(bag, questions, model, tmp_path / name, "--controls") == 0
    assert (tmp_path / "one" / "report.json").read_bytes() == (tmp_path / "two" / "report.json").read_bytes()
    found = report(tmp_path / "one")
    assert found["conditions"] == ["memory", *CONTROLS]
    table = next(one for one in found["tables"] if (one["metric"], one["breakdown"]) == ("correct", "family"))
    assert [(row["name"], row["questions"]) for row in table["rows"]] == [("now", 6), ("recall", 6)]
    assert set(table["rows"][0]["values"]) == {"memory", *CONTROLS}
    assert found["streams"]["frames"]["ingested"] == FRAMES
    assert found["streams"]["memory"][-1]["steps"] == FRAMES // 2
    assert len({point["bytes"] for point in found["streams"]["memory"]}) == 1
    timings = json.loads((tmp_path / "one" / "timings.json").read_text())
    timed = {(one["metric"], one["breakdown"]): one["rows"] for one in timings["tables"]}
    for metric in ("first token", "last token"):
        assert metric not in {one["metric"] for one in found["tables"]}
        families = {row["name"]: row["values"]["last4"] for row in timed[metric, "family"]}
        assert {name: value["count"] for name, value in families.items()} == {"now": 6, "recall": 6}
        assert all(0 < value["low"] <= value["value"] <= value["high"] for value in families.values())
        assert timed[metric, "age of the evidence"]
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if str(tmp_path) not in line) <= 80
    for condition in ("memory", *CONTROLS):
        assert condition in printed


def test_the_default_model_is_the_one_that_ships_and_gives_the_same_report_twice(
    bag: Path, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        command = [
            "evaluate",
            "replay",
            "--bag",
            str(bag),
            "--questions",
            str(questions),
            "--out",
            str(tmp_path / name),
        ]
        assert main(command) == 0
    assert (tmp_path / "one" / "report.json").read_bytes() == (tmp_path / "two" / "report.json").read_bytes()
    shipped = FlashVStream.load("embedded", device="cpu").fingerprint()
    assert shipped in (tmp_path / "one" / "report.json").read_text()
    assert "NOISE" not in capsys.readouterr().err


def test_an_interrupted_run_goes_on_to_the_same_report(bag: Path, questions: Path, model: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert evaluate(bag, questions, model, whole, "--controls", "last4") == 0
    shutil.copytree(whole, cut)
    (cut / "report.json").unlink()
    kept = (cut / "answers.jsonl").read_bytes()
    # A kill in the middle of a line, and a control that was not asked at all yet.
    (cut / "answers.jsonl").write_bytes(kept[: len(kept) // 2])
    (cut / "answers.last4.jsonl").unlink()
    assert evaluate(bag, questions, model, cut, "--controls", "last4") == 0
    assert (cut / "report.json").read_bytes() == (whole / "report.json").read_bytes()
    stable = ("id", "response", "moments", "memory_version", "config")
    for name in ("answers.jsonl", "answers.last4.jsonl"):
        before, after = rows(whole / name), rows(cut / name)
        assert [{key: row[key] for key in stable} for row in after] == [
            {key: row[key] for key in stable} for row in before
        ]


def test_answers_tell_the_memory_that_they_were_given_from(
    bag: Path, questions: Path, model: Path, tmp_path: Path
) -> None:
    assert evaluate(bag, questions, model, tmp_path / "out") == 0
    found = rows(tmp_path / "out" / "answers.jsonl")
    assert [row["id"] for row in found] == [f"q{index}" for index in range(12)]
    # Question i is asked at frame 3 i, which it sees: 3 i + 1 frames, the last one doubled where it has no partner.
    assert [row["memory_steps"] for row in found] == [(3 * index + 2) // 2 for index in range(12)]
    for row, asked in zip(found, range(12), strict=True):
        assert all(moment["stamp_ns"] <= START_NS + 3 * asked * PERIOD_NS for moment in row["moments"])


def test_another_configuration_is_refused_and_named(
    bag: Path, questions: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(bag, questions, model, tmp_path / "out") == 0
    assert evaluate(bag, questions, model, tmp_path / "out", "--max-new-tokens", "4") == 1
    assert "max_new_tokens" in capsys.readouterr().err
    assert len(rows(tmp_path / "out" / "answers.jsonl")) == 12


def test_the_run_keeps_every_setting_that_its_answers_depend_on(
    bag: Path, questions: Path, model: Path, tmp_path: Path
) -> None:
    assert evaluate(bag, questions, model, tmp_path / "out") == 0
    kept = json.loads((tmp_path / "out" / "config.json").read_text())["settings"]
    needed = {one.name for kind in (StreamConfig, FlashMemoryConfig) for one in fields(kind)}
    own = {"recording", "start_ns", "duration_ns", "frames", "questions", "prompt", "weights", "device", "dtype"}
    assert kept.keys() == (needed - set(UNUSED_STREAM_SETTINGS)) | own


@pytest.mark.parametrize("kind", ["sqlite3", "compressed", "ros1", "video"])
def test_every_kind_of_recording_is_read(kind: str, model: Path, tmp_path: Path) -> None:
    if kind == "ros1":
        recording = write_ros1_bag(tmp_path / "old.bag", 8)
    elif kind == "video":
        recording = write_clip(tmp_path / "clip.avi", 8)
    else:
        storage = StoragePlugin.SQLITE3 if kind == "sqlite3" else StoragePlugin.MCAP
        topics = (COMPRESSED_TOPIC,) if kind == "compressed" else (IMAGE_TOPIC,)
        recording = write_bag(tmp_path / "bag", 8, storage, topics)
    asked = write_questions(tmp_path / "q.jsonl", {"id": "a", "t": seconds(5), "question": "What?"})
    assert evaluate(recording, asked, model, tmp_path / "out") == 0
    assert rows(tmp_path / "out" / "answers.jsonl")[0]["memory_steps"] == 3


def test_choices_are_listed_as_published_where_asked_for(
    bag: Path, questions: Path, model: Path, tmp_path: Path
) -> None:
    assert evaluate(bag, questions, model, tmp_path / "plain") == 0
    assert evaluate(bag, questions, model, tmp_path / "options", "--prompt", "options") == 0
    plain, options = (
        [row["response"] for row in rows(tmp_path / name / "answers.jsonl")] for name in ("plain", "options")
    )
    assert plain != options


def stamped(**fields: Any) -> dict:
    return {"id": "a", "t": 0.1, "question": "What?"} | fields


def test_what_was_left_out_is_in_the_notes_and_the_exit_status(questions: Path, model: Path, tmp_path: Path) -> None:
    stamps = [stamp_ns(index) for index in range(FRAMES)]
    stamps[10] += 600 * 10**9
    bag = write_bag(tmp_path / "bag", FRAMES, stamps=stamps)
    out = tmp_path / "out"
    # Also where every answer is there already.
    for _ in range(2):
        assert evaluate(bag, questions, model, out) == 3
        notes = json.loads((out / "report.json").read_text())["notes"]
        assert notes[0].startswith("a frame was left out: its stamp 1700000600.500 s is wrong")


def test_a_bag_whose_name_is_no_utf_8_gets_its_report(questions: Path, model: Path, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / os.fsdecode(b"caf\xe9"), FRAMES)
    assert evaluate(bag, questions, model, tmp_path / "out") == 0
    assert "caf\\udce9" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "a", "t": 0.1, "question": "What?"}\n{"id"\n', "line 2: is no JSON"),
        (json.dumps(stamped(colour="red")), "line 1: field 'colour' is unknown"),
        (json.dumps({"id": "a", "question": "What?"}), "line 1: one of the fields 't' and 'stamp' expected"),
        (json.dumps(stamped(t=500)), "id 'a': is asked at"),
        (json.dumps({"id": "a", "stamp": 12.0, "question": "What?"}), "give stamps on the recording's clock"),
        ("", "holds no questions"),
    ],
)
def test_a_wrong_file_of_questions_is_named_with_its_line(
    text: str, message: str, bag: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text(text)
    assert evaluate(bag, path, model, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert message in error
    assert "wrong.jsonl" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["missing", "no images", "one frame", "no frames", "damaged", "topic"])
def test_a_wrong_recording_is_named_with_what_to_do(
    kind: str, questions: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more: tuple[str, ...] = ()
    if kind == "missing":
        recording, message = tmp_path / "absent", "does not exist; give a bag"
    elif kind == "no images":
        recording, message = write_bag(tmp_path / "bag", 8, topics=(ODOMETRY_TOPIC,)), "has no image topic"
    elif kind == "one frame":
        recording, message = write_bag(tmp_path / "bag", 1), "holds 1 frame(s); a grid step takes two"
    elif kind == "no frames":
        recording, message = write_bag(tmp_path / "bag", 0), "holds 0 frame(s)"
    elif kind == "damaged":
        recording, message = tmp_path / "bag.mcap", "cannot read"
        recording.write_bytes(b"\x89MCAP0\r\n and nothing that follows")
    else:
        recording, message = write_bag(tmp_path / "bag", 8), "has no image topic /depth; choose one of"
        more = ("--topic", "/depth")
    assert evaluate(recording, questions, model, tmp_path / "out", *more) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--controls", "first4"), "'first4' is no condition"),
        (("--controls", "last40"), "choose last12 or less"),
        (("--controls", "last4", "last4"), "each once"),
        (("--fps", "-1"), "fps is -1"),
        (("--dtype", "int8"), "dtype is 'int8'"),
    ],
)
def test_wrong_settings_are_refused(
    more: tuple[str, ...],
    message: str,
    bag: Path,
    questions: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(bag, questions, model, tmp_path / "out", *more) == 1
    assert message in capsys.readouterr().err


def test_a_missing_model_is_named(
    bag: Path, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(bag, questions, tmp_path / "absent", tmp_path / "out") == 1
    assert "absent" in capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(bag: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    lines = [
        {
            "id": f"q{index}",
            "t": seconds(3 * index),
            "question": "Is <this> & that there?",
            "answer": "yes",
            "family": f"family {index % 3}",
            "proof": [[0, seconds(index)]],
        }
        for index in range(12)
    ]
    questions = write_questions(folder / "q.jsonl", *lines)
    assert evaluate(bag, questions, model, folder / "out", "--controls", "last4", "uniform") == 0
    return folder / "out" / "report.html"


def test_the_page_needs_nothing_but_itself(finished: Path) -> None:
    text = finished.read_text()
    assert not re.search(r'(src|href)="(?!#)', text)
    assert "@import" not in text
    assert "url(http" not in text
    assert "<script" not in text
    for plot in ("timeline", "age", "family", "differences", "latency", "memory"):
        assert f'id="{plot}-' in text, plot
    assert "Is &lt;this&gt; &amp; that there?" in text
    # Of each question the moments and the proof, as pictures that are in the page itself.
    assert text.count('class="evidence"') == 12
    assert text.count("background-image: url(data:image/jpeg;base64,") > 3
    shown = re.findall(r'class="shot (\w+)"', text)
    assert len(shown) >= 24
    assert set(shown) <= set(re.findall(r"^\.(p\d+) {", text, re.MULTILINE)), "each has its picture"
    assert "on the proof" in text


def test_the_page_shows_its_plots_in_a_browser(finished: Path, tmp_path: Path) -> None:
    browser = chromium()
    shot = tmp_path / "page.png"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,3200"]
    # A profile of its own, and nothing from the network.
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    subprocess.run([*command, f"--screenshot={shot}", finished.as_uri()], check=True, timeout=120, capture_output=True)
    picture = cv2.imread(str(shot))
    assert picture is not None, f"{browser} made no picture"
    pixels = picture[..., ::-1].reshape(-1, 3).astype(int)
    # The colours of the plots' marks: memory, last4, uniform; none of them is a colour of text.
    for name in ("#0072b2", "#d55e00", "#e69f00"):
        wanted = np.array([int(name[place : place + 2], 16) for place in (1, 3, 5)])
        near = (np.abs(pixels - wanted).max(1) < 12).sum()
        assert near > 500, f"{name} covers {near} pixels; the plots are not there"
