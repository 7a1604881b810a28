"""A line that is typed, key by key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fvs_ros.chat.line_editor import EndOfInput, Line, LineEditor

LEFT, RIGHT, UP, DOWN, HOME, END, DELETE = "\x1b[D", "\x1b[C", "\x1b[A", "\x1b[B", "\x1b[H", "\x1b[F", "\x1b[3~"
ENTER, BACKSPACE = "\r", "\x7f"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("What?", "What?"),
        ("  What is it? ", "What is it?"),
        ("Waht" + LEFT * 2 + BACKSPACE + RIGHT + "a", "What"),
        ("hat" + HOME + "W" + END + "?", "What?"),
        ("\x1bOHno" + "\x01" + "I say ", "I say no"),
        ("What??" + LEFT + DELETE, "What?"),
        ("old\x15new", "new"),
        ("one two three\x17\x17new", "one new"),
        ("one two" + LEFT * 4 + "\x0b", "one"),
        ("Wo ist Straße 漢字?", "Wo ist Straße 漢字?"),
        ("a\x1b[200~b\x1b[1;5Cc\x07\tend", "abcend"),
        (BACKSPACE + LEFT + DELETE + "ok", "ok"),
    ],
)
def test_what_is_typed(keys: str, line: str) -> None:
    editor = LineEditor()
    # Key by key, as a slow terminal sends it, gives the same.
    for typed in ([keys + ENTER], [*keys, ENTER]):
        assert [finished for chunk in typed for finished in editor.feed(chunk)] == [Line(line)]


def test_blank_lines_are_none() -> None:
    assert list(LineEditor().feed("\r  \r\n")) == []


def test_the_history_brings_lines_back_and_keeps_what_was_begun() -> None:
    editor = LineEditor()
    assert list(editor.feed("first\rsecond\r")) == [Line("first"), Line("second")]
    list(editor.feed("draft" + UP))
    assert editor.text == "second"
    list(editor.feed(UP + UP))
    assert editor.text == "first"
    list(editor.feed(DOWN + DOWN + DOWN))
    assert (editor.text, editor.cursor) == ("draft", 5)


def test_ctrl_d_ends_an_empty_line_and_deletes_in_another() -> None:
    editor = LineEditor()
    assert list(editor.feed("ab" + LEFT + "\x04")) == []
    assert editor.text == "a"
    assert list(editor.feed(BACKSPACE + RIGHT + BACKSPACE + "\x04")) == [EndOfInput()]


@given(
    st.lists(st.sampled_from(["a", "ß", " ", LEFT, RIGHT, UP, DOWN, HOME, END, DELETE, ENTER, "\x17", "\x15", "\x1b"]))
)
def test_the_cursor_stays_within_the_line(keys: list[str]) -> None:
    editor = LineEditor()
    for key in keys:
        list(editor.feed(key))
        assert 0 <= editor.cursor <= len(editor.text)
