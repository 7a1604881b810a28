"""Questions that are piped in: a line at a time, and no faster than they are answered."""

from __future__ import annotations

import io
import itertools
import queue
import sys
import threading
from collections.abc import Iterable, Iterator

import pytest
from fakes import PATIENCE_S

from fvs_ros.chat.prompt import LONGEST_LINE, EndOfInput, Line, read_lines


class Pipe(io.RawIOBase):
    """What a process without an end writes, and how many pieces of it were read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self.read_pieces = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = next(self._pieces, b"")
        self.read_pieces += 1
        buffer[: len(piece)] = piece
        return len(piece)


def piped(monkeypatch: pytest.MonkeyPatch, pieces: Iterable[bytes]) -> Pipe:
    pipe = Pipe(pieces)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(pipe)))
    return pipe


def test_a_line_is_read_when_there_is_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = piped(monkeypatch, itertools.repeat(b"What?\n" * 100))
    events: queue.SimpleQueue[Line | EndOfInput] = queue.SimpleQueue()
    room = threading.Semaphore(3)
    read_lines(events.put, room)
    assert [events.get(timeout=PATIENCE_S) for _ in range(3)] == [Line("What?")] * 3
    assert events.empty()
    read = pipe.read_pieces
    for _ in range(10):
        room.release()
        assert events.get(timeout=PATIENCE_S) == Line("What?")
    assert events.empty()
    assert pipe.read_pieces <= read + 1


def test_a_line_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    long = b"x" * 4096
    piped(monkeypatch, [long] * 100 + [b"\nWhat?\n", b"x" * (LONGEST_LINE % 4096 + 10)])
    events: queue.SimpleQueue[Line | EndOfInput] = queue.SimpleQueue()
    read_lines(events.put, threading.Semaphore(9))
    found = [events.get(timeout=PATIENCE_S) for _ in range(4)]
    assert found == [Line("x" * LONGEST_LINE), Line("What?"), Line("x" * (LONGEST_LINE % 4096 + 10)), EndOfInput()]
