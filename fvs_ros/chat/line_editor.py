"""The line being typed while other things are printed: keys in, finished lines out. Knows no terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """A finished line."""

    text: str


@dataclass(frozen=True)
class EndOfInput:
    """Ctrl-D on an empty line, or the end of the input."""


class LineEditor:
    """One line with a cursor and a history, in the keys of every shell.

    Attributes:
        text: what is typed so far.
        cursor: characters before the cursor.
    """

    def __init__(self) -> None:
        self.text = ""
        self.cursor = 0
        self._history: list[str] = []
        # Index of the shown line in the history; its length stands for the new line, kept in `_draft`.
        self._shown = 0
        self._draft = ""
        self._escape: str | None = None

    def feed(self, keys: str) -> Iterator[Line | EndOfInput]:
        """Takes what the terminal sent, in chunks of any size."""
        for key in keys:
            if self._escape is not None:
                self._continue_escape(key)
            elif key == "\x1b":
                self._escape = ""
            elif key in "\r\n":
                if self.text.strip():
                    yield self._finish()
            elif key == "\x04":
                if not self.text:
                    yield EndOfInput()
                self._delete()
            elif key in _KEYS:
                _KEYS[key](self)
            elif unicodedata.category(key)[0] != "C":
                self._insert(key)

    def _continue_escape(self, key: str) -> None:
        """Cursor keys come as ESC [ or ESC O, then digits and semicolons, then one letter or ~."""
        assert self._escape is not None
        self._escape += key
        if len(self._escape) == 1 and key in "[O":
            return
        if len(self._escape) > 1 and not "@" <= key <= "~":
            return
        sequence, self._escape = self._escape, None
        action = _SEQUENCES.get(sequence.replace("O", "[", 1))
        if action is not None:
            action(self)

    def _insert(self, key: str) -> None:
        self.text = self.text[: self.cursor] + key + self.text[self.cursor :]
        self.cursor += 1

    def _backspace(self) -> None:
        if self.cursor:
            self.cursor -= 1
            self._delete()

    def _delete(self) -> None:
        self.text = self.text[: self.cursor] + self.text[self.cursor + 1 :]

    def _left(self) -> None:
        self.cursor = max(0, self.cursor - 1)

    def _right(self) -> None:
        self.cursor = min(len(self.text), self.cursor + 1)

    def _home(self) -> None:
        self.cursor = 0

    def _end(self) -> None:
        self.cursor = len(self.text)

    def _erase_before(self) -> None:
        self.text, self.cursor = self.text[self.cursor :], 0

    def _erase_after(self) -> None:
        self.text = self.text[: self.cursor]

    def _erase_word(self) -> None:
        kept = self.text[: self.cursor].rstrip()
        kept = kept[: kept.rfind(" ") + 1]
        self.text, self.cursor = kept + self.text[self.cursor :], len(kept)

    def _up(self) -> None:
        self._show(self._shown - 1)

    def _down(self) -> None:
        self._show(self._shown + 1)

    def _show(self, index: int) -> None:
        if not 0 <= index <= len(self._history):
            return
        if self._shown == len(self._history):
            self._draft = self.text
        self._shown = index
        self.text = self._draft if index == len(self._history) else self._history[index]
        self.cursor = len(self.text)

    def _finish(self) -> Line:
        line = Line(self.text.strip())
        self._history.append(line.text)
        self._shown, self._draft = len(self._history), ""
        self.text, self.cursor = "", 0
        return line


_KEYS: dict[str, Callable[[LineEditor], None]] = {
    "\x7f": LineEditor._backspace,
    "\x08": LineEditor._backspace,
    "\x01": LineEditor._home,
    "\x05": LineEditor._end,
    "\x02": LineEditor._left,
    "\x06": LineEditor._right,
    "\x15": LineEditor._erase_before,
    "\x0b": LineEditor._erase_after,
    "\x17": LineEditor._erase_word,
    "\x10": LineEditor._up,
    "\x0e": LineEditor._down,
}
_SEQUENCES: dict[str, Callable[[LineEditor], None]] = {
    "[A": LineEditor._up,
    "[B": LineEditor._down,
    "[C": LineEditor._right,
    "[D": LineEditor._left,
    "[H": LineEditor._home,
    "[F": LineEditor._end,
    "[1~": LineEditor._home,
    "[4~": LineEditor._end,
    "[3~": LineEditor._delete,
}
