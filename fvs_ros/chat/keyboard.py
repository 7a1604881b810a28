"""Reads standard input on a thread: keys from a terminal, or lines from a pipe."""

from __future__ import annotations

import codecs
import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fvs_ros.chat.line_editor import EndOfInput, Line

_CHUNK = 1_024
# Longest time that the terminal stays in its special mode after the end.
_POLL_S = 0.1


@contextmanager
def keys(on_keys: Callable[[str | EndOfInput], None]) -> Iterator[None]:
    """Reads the terminal key by key, unechoed, until the block ends; Ctrl-C and Ctrl-Z keep their meaning.

    Args:
        on_keys: called on a thread with what was typed, and at the end of the input.
    """
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    ended = threading.Event()

    def read() -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        while not ended.is_set():
            if not select.select([terminal], [], [], _POLL_S)[0]:
                continue
            try:
                data = os.read(terminal, _CHUNK)
            except OSError:
                # The terminal was closed.
                data = b""
            if not data:
                on_keys(EndOfInput())
                return
            on_keys(decoder.decode(data))

    tty.setcbreak(terminal)
    thread = threading.Thread(target=read, name="fvs-keys", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def read_lines(on_line: Callable[[Line | EndOfInput], None]) -> None:
    """Reads standard input line by line on a thread; blank lines are skipped."""

    def read() -> None:
        for text in sys.stdin:
            if text.strip():
                on_line(Line(text.strip()))
        on_line(EndOfInput())

    threading.Thread(target=read, name="fvs-lines", daemon=True).start()
