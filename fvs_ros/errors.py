"""The base of every error whose message a person reads."""

from __future__ import annotations

import re


class ReadableError(Exception):
    """An error whose message is one line that any log or terminal can take, whatever it quotes; see `one_line`."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str, longest: int = 1_000) -> str:
    """A text that quotes what a file, a topic or a command line holds, as one line of at most `longest` characters.

    Line breaks become spaces, other control characters and half characters their escapes, and the middle of what is
    too long three dots.
    """
    text = _cut(re.sub(r"\s*[\n\r]\s*", " ", text.strip()), longest)
    if text.isprintable():
        return text
    return _cut("".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text), longest)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest // 2]} ... {text[-longest // 2 + 5 :]}"
