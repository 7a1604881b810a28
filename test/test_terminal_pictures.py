"""Pictures in terminals that say that they can show them, and nothing in any other."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

import numpy as np
import pytest
from fakes import PATIENCE_S
from PIL import Image

from fvs_ros.terminal_pictures import MOST, side_by_side

START_S = 60.0
# Draws two pictures where it may, and says when it is done.
PROGRAM = """
import io, sys
from PIL import Image
from rich.console import Console
from fvs_ros.terminal_pictures import drawn_by
console = Console(force_terminal={force})
draw = drawn_by(console)
console.print("can" if draw else "cannot")
if draw:
    jpegs = []
    for colour in ("red", "blue"):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), colour).save(buffer, "JPEG")
        jpegs.append(buffer.getvalue())
    console.print(draw(jpegs))
console.print("the end")
"""
DEVICE_QUERY, KITTY_QUERY = "\x1b[c", "\x1b_G"


def jpeg(width: int, height: int, colour: str = "green") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def in_terminal(attributes: str | None, graphics: str | None, rows: int = 24) -> str:
    """What the program prints in a terminal with these answers to the two queries; None leaves one unanswered."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 800, 20 * rows))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(force=None)],
        stdin=terminal, stdout=terminal, stderr=terminal, env=os.environ | {"TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(terminal)
    seen, answers = "", {DEVICE_QUERY: attributes, KITTY_QUERY: graphics}
    deadline = time.monotonic() + START_S
    try:
        while "the end" not in seen:
            assert time.monotonic() < deadline, f"it did not end; there was: {seen[-2000:]!r}"
            if select.select([main], [], [], 0.1)[0]:
                try:
                    seen += os.read(main, 65_536).decode(errors="replace")
                except OSError:
                    # The program has ended.
                    break
            for query in [query for query in answers if query in seen]:
                if (answer := answers.pop(query)) is not None:
                    os.write(main, answer.encode())
        assert process.wait(PATIENCE_S) == 0, seen[-2000:]
    finally:
        process.kill()
        process.wait()
        os.close(main)
    return seen


def test_a_terminal_of_sixels_gets_sixels() -> None:
    seen = in_terminal("\x1b[?62;4;22c", None)
    assert "can\r\n" in seen
    assert "\x1bP" in seen  # a device control string: the pixels
    assert "the end" in seen


def test_a_kitty_gets_its_protocol() -> None:
    seen = in_terminal("\x1b[?62;c", "\x1b_Gi=1;OK\x1b\\")
    assert "can\r\n" in seen
    assert "\x1bP" not in seen
    # The query, the pixels and where they stand; then its placeholder characters.
    assert seen.count(KITTY_QUERY) >= 3
    assert "\U0010eeee" in seen


@pytest.mark.parametrize("attributes", ["\x1b[?62;22c", None], ids=["plain", "silent"])
def test_any_other_terminal_gets_nothing(attributes: str | None) -> None:
    seen = in_terminal(attributes, None)
    assert "cannot\r\n" in seen
    assert "\x1bP" not in seen
    assert "\U0010eeee" not in seen


def test_a_terminal_without_a_size_is_not_asked() -> None:
    seen = in_terminal("\x1b[?62;4;22c", None, rows=0)
    assert "cannot\r\n" in seen
    assert DEVICE_QUERY not in seen


@pytest.mark.parametrize("force", [None, True])
def test_a_pipe_is_not_even_asked(force: bool | None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(force=force)], stdin=subprocess.PIPE, capture_output=True, check=True
    )
    assert done.stdout.decode() == "cannot\nthe end\n"


def test_pictures_stand_side_by_side_at_one_height() -> None:
    whole = side_by_side([jpeg(640, 480, "red"), jpeg(100, 200, "blue")])
    assert whole is not None
    assert whole.size == (213 + 8 + 80, 160)
    red, gap, blue = np.asarray(whole)[80, [5, 216, 295]]
    assert red[0] > 200
    assert gap.tolist() == [0, 0, 0]
    assert blue[2] > 200
    several = side_by_side([jpeg(160, 160)] * (MOST + 2))
    assert several is not None
    assert several.width == MOST * 160 + (MOST - 1) * 8


def test_what_is_no_picture_is_left_out() -> None:
    broken = (b"", b"mine", jpeg(640, 480)[:200])
    assert side_by_side(broken) is None
    whole = side_by_side([broken[1], jpeg(160, 160)])
    assert whole is not None
    assert whole.size == (160, 160)
    # However long a strip is, it is no longer than three pictures.
    strip = side_by_side([jpeg(2000, 10)])
    assert strip is not None
    assert strip.size == (480, 160)
