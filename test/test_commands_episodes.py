"""`fvs chat` and `fvs evaluate replay` on an episode store: what is kept, what must not change, and what is refused."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from recordings import PERIOD_NS, write_bag

from fvs_ros.cli import main
from fvs_ros.episodic.folder import DATABASE
from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.tiny import write_tiny_checkpoint

FRAMES = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_checkpoint(folder, memory=FlashMemoryConfig(csm_slots=6, dam_slots=3))
    return folder


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bag") / "bag", FRAMES)


def replay(bag: Path, model: Path, out: Path, *more: str | Path) -> int:
    questions = out.with_suffix(".jsonl")
    lines = [
        {"id": f"q{index}", "t": 4 * index * PERIOD_NS / 1e9, "question": "Where?", "answer": "there"}
        for index in range(6)
    ]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["evaluate", "replay", "--bag", bag, "--questions", questions, "--model", model, "--out", out]
    return main([*map(str, command), "--fps", "0", "--max-new-tokens", "3", "--device", "cpu", *map(str, more)])


def answers(out: Path) -> list[tuple[str, str, int]]:
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    return [(row["id"], row["response"], row["memory_steps"]) for row in rows]


def test_a_replay_answers_the_same_with_a_store_and_with_what_earlier_ones_left(
    bag: Path, model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    assert replay(bag, model, tmp_path / "none") == 0
    for run in ("one", "two"):
        assert replay(bag, model, tmp_path / run, "--memory-dir", store, "--controls", "last4") == 0
        assert answers(tmp_path / run) == answers(tmp_path / "none")
    with EpisodeStore.open(store, read_only=True) as found:
        first, second = found.info().episodes
        assert (first.start_ns, first.end_ns, first.segments) == (second.start_ns, second.end_ns, second.segments)
        assert sum(stored.segment.weight for stored in found.segments(episode=2)) == FRAMES // 2
        assert {stored.segment.camera for stored in found.segments()} != {""}


def test_a_replay_that_goes_on_in_the_last_episode_says_so_in_its_settings(
    bag: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert replay(bag, model, tmp_path / "one", "--memory-dir", store) == 0
    assert replay(bag, model, tmp_path / "two", "--memory-dir", store, "--resume", "always") == 0
    assert [steps for *_, steps in answers(tmp_path / "two")] == [
        steps + FRAMES // 2 for *_, steps in answers(tmp_path / "one")
    ]
    assert replay(bag, model, tmp_path / "two", "--memory-dir", store) == 1
    assert "resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--resume", "auto"), "--memory-dir, which is missing"),
        (("--resume", "auto", "--memory-dir", "DIR", "--controls"), "--controls know this recording alone"),
        (("--memory-dir", "DIR", "--memory-bytes", "5"), "a limit of 5 bytes"),
    ],
    ids=["no-store", "controls", "limit"],
)
def test_a_replay_refuses_what_makes_no_sense(
    options: tuple[str, ...], words: str, bag: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(tmp_path / "store") if option == "DIR" else option for option in options]
    assert replay(bag, model, tmp_path / "out", *given) == 1
    assert words in capsys.readouterr().err


def spoil(folder: Path, how: str) -> None:
    """Makes a store that must not be touched."""
    with EpisodeStore.open(folder):
        pass
    if how == "newer":
        connection = sqlite3.connect(folder / DATABASE)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
    elif how == "foreign":
        (folder / DATABASE).write_bytes(b"mine" * 100)
    else:
        (folder / DATABASE).write_bytes((folder / DATABASE).read_bytes()[:5000])


@pytest.mark.parametrize("command", ["chat", "replay"])
@pytest.mark.parametrize(
    ("how", "words"), [("newer", "has format 99"), ("foreign", "is not a SQLite"), ("cut", "cut off")]
)
def test_a_store_that_must_not_be_touched_ends_with_one_line(
    command: str, how: str, words: str, bag: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(tmp_path / "store", how)
    before = (tmp_path / "store" / DATABASE).read_bytes()
    if command == "chat":
        options = ["--device", "cpu", "--ask", "0:What?", "--memory-dir", str(tmp_path / "store")]
        assert main(["chat", str(bag), "--model", str(model), *options]) == 1
    else:
        assert replay(bag, model, tmp_path / "out", "--memory-dir", tmp_path / "store") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in error
    assert (tmp_path / "store" / DATABASE).read_bytes() == before


def test_a_store_that_is_open_elsewhere_is_named(
    bag: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EpisodeStore.open(tmp_path / "store"):
        assert replay(bag, model, tmp_path / "out", "--memory-dir", tmp_path / "store") == 1
        assert "is open in process" in capsys.readouterr().err


def test_a_chat_goes_on_in_what_the_last_one_saw(
    bag: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    common = ["chat", str(bag), "--model", str(model), "--device", "cpu", "--fps", "100", "--rate", "50"]
    common += ["--ask", "1:So?"]
    assert main([*common, "--memory-dir", str(store)]) == 0
    assert main([*common, "--memory-dir", str(store), "--resume", "always"]) == 0
    with EpisodeStore.open(store, read_only=True) as found:
        (episode,) = found.info().episodes
        assert len(episode.gaps) == 1
