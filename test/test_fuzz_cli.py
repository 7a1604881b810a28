"""Command lines of `fvs` with any word wrong: an exit status, and where it is not 0, lines for people on stderr."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzzing import bounded_memory, fuzz
from hypothesis import example, given
from hypothesis import strategies as st
from recordings import write_video

from fvs_ros import cli

# Each ends before it loads a model or draws a picture, as one thing is missing; the words are sound.
COMMANDS = [
    "parity junk",
    "chat missing --model tiny --ask 0.1:hi --topic= --rate 50 --image-fps 1 --fps 1 --max-new-tokens 2 --device cpu",
    "chat video.avi --model missing --ask 0.1:hi --rate 50 --dtype float32 --spatial-method auto",
    "evaluate replay --bag video.avi --questions junk --out out --model tiny --fps 1 --max-new-tokens 1",
    "evaluate replay --bag video.avi --questions ask.jsonl --out out --model none --min-pixels 3136 --max-pixels 12544",
    "evaluate replay --bag video.avi --questions ask.jsonl --out out --model none --batch-steps 1 --controls last4",
    "evaluate replay --bag empty --questions ask.jsonl --out out --topic t --prompt plain",
    "evaluate score mlvu junk --annotations junk --json scores --seed 0",
    "evaluate export mlvu --data empty --out out --fps 1",
    "evaluate benchmark mlvu --data empty --out out --model tiny --max-frames 2 --resizes 1 --seed 0",
    "extract-frames empty --out frames --fps 2",
    "patrol make --seed -1 --out bag --steps 2 --rooms 2 --views 1 --fps 1 --size 64 --questions 2 --families recall",
    "memory info empty",
    "memory export empty --out out",
    "memory forget empty --episode 1 --since 0 --until 1.5 --yes",
    "train recipe.yaml --dry-run --set seed=1 --minutes 1",
    "bench memory --device cpu --model embedded --dtype float32 --steps 1 --seed 0 --json out",
]
WORDS = [
    "",
    "-1",
    "0",
    "1.5",
    "nan",
    "inf",
    "1e400",
    "9" * 400,
    "9" * 5_000,
    "abc",
    "\udcff",
    "\x1b[2J\n",
    "x" * 5_000,
    "~nobody/x",
    "/dev/null",
    "empty",
    "junk",
    "--",
    "=",
]
CASES = [
    (command, place, word)
    for command in COMMANDS
    for place in range(1 + (command.split()[0] in ("evaluate", "memory", "patrol")), len(command.split()))
    for word in WORDS
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, with what the commands name."""
    made, before = tmp_path_factory.mktemp("cli"), Path.cwd()
    write_video(made / "video.avi", 6)
    (made / "empty").mkdir()
    (made / "ask.jsonl").write_text('{"id": 1, "t": 0.1, "question": "What?"}\n')
    (made / "junk").write_bytes(b'\0\xff{"a": 1}')
    (made / "recipe.yaml").write_text("output: run\nmodel: {scratch: {vocabulary: bytes}}\nstages: []\n")
    os.chdir(made)
    yield made
    os.chdir(before)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> int:
    """The exit status of a command line that cannot succeed; checks what it says."""
    try:
        with bounded_memory():
            status = cli.main(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    out, said = capsys.readouterr()
    assert status in (0, 1, 2), status
    assert "Traceback" not in said
    if status:
        assert (said + out).strip(), "not a word"
    return status


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_end_before_the_work(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *command.split()) in (1, 2)


def test_a_name_that_is_no_text_is_printed_with_its_escape(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["extract-frames", "video.avi", "--out", "\udcff"]) == 0
    assert capsys.readouterr().out.endswith("1 videos in \\udcff\n")


@given(st.sampled_from(CASES))
@example(("parity junk", 1, "x" * 5_000))
@example(("parity junk", 1, "\udcff"))
@example((COMMANDS[-1], 3, "abc"))
@example((COMMANDS[-1], 9, "9" * 400))
@fuzz(250)
def test_a_word_replaced(folder: Path, capsys: pytest.CaptureFixture[str], case: tuple[str, int, str]) -> None:
    command, place, word = case
    words = command.split()
    words[place] = word
    run(capsys, *words)


@pytest.mark.slow
def test_every_word_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, place, word in CASES:
        words = command.split()
        words[place] = word
        try:
            run(capsys, *words)
        except Exception as error:
            raise AssertionError(f"{command} with {word!r:.40} at {place}") from error


FIRST = sorted({word for command in COMMANDS for word in command.split()[:2]})


@given(st.lists(st.sampled_from([*FIRST, *WORDS]), max_size=4))
@fuzz(100)
def test_any_words(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    run(capsys, *words)
