"""`fvs memory info|export|forget` on a store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from episodic_data import LIMIT, features, fill, folder_bytes, ids, mark, picture, segment

from fvs_ros import cli
from fvs_ros.episodic.folder import DATABASE, SAVED_MEMORY
from fvs_ros.episodic.store import EpisodeStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Segments of the seconds 1 to 9 in one episode, 10 to 12 in the next, and a restart in between."""
    with EpisodeStore.open(tmp_path / "store", LIMIT) as store:
        store.append(segment(1, x=1.5), picture(1), features(0.1))
        fill(store, range(2, 6))
    with EpisodeStore.open(tmp_path / "store", LIMIT) as store:
        fill(store, range(6, 10))
        store.begin_episode("[a] reset")
        fill(store, range(10, 13))
    return tmp_path / "store"


def run(*arguments: str | Path) -> int:
    return cli.main(["memory", *map(str, arguments)])


def damage(folder: Path, second: int) -> None:
    content = (folder / DATABASE).read_bytes()
    place = content.rindex(picture(second)[:16])
    (folder / DATABASE).write_bytes(content[:place] + b"damage" + content[place + 6 :])


def test_info_shows_episodes_gaps_and_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = folder_bytes(folder)
    assert run("info", folder) == 0
    output = capsys.readouterr().out
    assert f"{folder / DATABASE}: 12 segments, 0 evicted, " in output
    assert f"of {LIMIT} bytes" in output
    assert "features of 1 segments for the model model-1" in output
    assert "5.5 to 6.0" in output
    assert "[a] reset" in output
    assert "READ_ONLY" not in output
    assert len(folder_bytes(folder)) == len(before)
    (folder / SAVED_MEMORY).write_bytes(bytes(123))
    assert run("info", folder) == 0
    assert "the Flash Memory is saved beside it: 123 bytes" in capsys.readouterr().out


def test_forget_deletes_the_saved_memory(folder: Path) -> None:
    (folder / SAVED_MEMORY).write_bytes(bytes(123))
    assert run("forget", folder, "--episode", "1", "--yes") == 0
    assert not (folder / SAVED_MEMORY).exists()


def test_export_writes_every_picture_and_a_line_a_segment(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("export", folder, "--out", out) == 0
    assert "12 segments in segments.jsonl, 12 pictures" in capsys.readouterr().out
    lines = [json.loads(line) for line in (out / "segments.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["id"], line["episode"]) for line in lines] == [(one, 1 + (one > 9)) for one in range(1, 13)]
    assert lines[0]["segment"]["pose"]["position"] == [1.5, 0.0, 0.0]
    assert [(out / line["keyframe"]).read_bytes() for line in lines] == [picture(one) for one in range(1, 13)]
    assert run("export", folder, "--out", out) == 1
    assert "File exists" in capsys.readouterr().err


def test_export_of_a_damaged_store_says_what_is_missing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder, 4)
    assert run("export", folder, "--out", tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert "12 segments in segments.jsonl, 11 pictures" in captured.out
    assert "1 damaged rows were left out" in captured.err
    lines = (tmp_path / "out" / "segments.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[3])["keyframe"] is None


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (["--all"], range(1, 13)),
        (["--episode", "2"], range(10, 13)),
        (["--since", "4", "--until", "6.2"], range(4, 7)),
        (["--until", "2", "--episode", "1"], range(1, 3)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_forget_asks_for_yes_and_then_leaves_no_byte(
    folder: Path, arguments: list[str], gone: range, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("forget", folder, *arguments) == 2
    assert f"{len(gone)} of 12 segments would be forgotten for ever: add --yes" in capsys.readouterr().out
    with EpisodeStore.open(folder) as store:
        assert len(ids(store)) == 12
    assert run("forget", folder, *arguments, "--yes") == 0
    assert f"{len(gone)} of 12 segments forgotten" in capsys.readouterr().out
    in_files = folder_bytes(folder)
    assert [one for one in range(1, 13) if mark(one) not in in_files] == list(gone)


@pytest.mark.parametrize("arguments", [[], ["--all", "--episode", "1"], ["--yes"]], ids=["nothing", "both", "yes"])
def test_forget_wants_to_know_what(folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("forget", folder, *arguments) == 2
    assert "say what to forget" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["soon", "nan", "1e300"])
def test_a_stamp_must_be_a_number(folder: Path, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("forget", folder, "--since", word)
    assert f"{word} is not a number of seconds" in capsys.readouterr().err


def test_a_stamp_counts_to_the_nanosecond(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = 1_764_240_000
    with EpisodeStore.open(tmp_path, LIMIT) as store:
        store.append(segment(second), picture(second))
    for after_its_end, count in (("0", 1), ("1", 0)):
        assert run("forget", tmp_path, "--since", f"{second}.50000000{after_its_end}") == 2
        assert f"{count} of 1 segments would be forgotten" in capsys.readouterr().out


def test_a_store_that_is_open_or_absent_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def commands(store: Path) -> list[list[str | Path]]:
        return [["info", store], ["export", store, "--out", tmp_path / "out"], ["forget", store, "--all"]]

    with EpisodeStore.open(folder):
        for command in commands(folder):
            assert run(*command) == 1
            assert "is open in process" in capsys.readouterr().err
    for command in commands(tmp_path):
        assert run(*command) == 1
        assert "holds no episode store" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
