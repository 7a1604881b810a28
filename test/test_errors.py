"""Messages that any log and any terminal can take."""

from __future__ import annotations

import pytest

from fvs_ros.errors import ReadableError, one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("the file is empty; copy it again", "the file is empty; copy it again"),
        ("two  spaces stay", "two  spaces stay"),
        (" first \n\n  second\r\nthird\n", "first second third"),
        ("a\tb\0c\x1b[2Jd\x85e", r"a\tb\x00c\x1b[2Jd\x85e"),
        ("half \ud83d of one, \udcff of a path", r"half \ud83d of one, \udcff of a path"),
        ("turned \u202e round", r"turned \u202e round"),
        ("Grüße, 日本 \U0001f600", "Grüße, 日本 \U0001f600"),
    ],
)
def test_a_message_is_one_line(text: str, line: str) -> None:
    assert one_line(text) == line
    assert str(ReadableError(text)) == line
    line.encode()


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    assert one_line("x" * 1_000) == "x" * 1_000
    line = one_line(f"the format is {'x' * 5_000}; convert it")
    assert len(line) == 1_000
    assert line.startswith("the format is xxx")
    assert line.endswith("xxx; convert it")
    assert " ... " in line


def test_escapes_do_not_make_it_longer() -> None:
    assert len(one_line("\U000e0001" * 5_000, longest=300)) <= 300
