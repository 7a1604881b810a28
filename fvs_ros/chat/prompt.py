"""Questions from standard input: typed below everything that is printed, or piped in line by line."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.patch_stdout import patch_stdout

# The prompt asks the terminal nothing: some never answer, and each print would wait for them.
os.environ.setdefault("PROMPT_TOOLKIT_NO_CPR", "1")
_MARK = "\x1b[1;36m> \x1b[0m"
# Piped lines on their way to an answer; the next is read when one has it, so that a pipe cannot fill the memory.
MOST_WAITING = 16
# Of a piped line, in characters; the rest is left out. No question may be that long.
LONGEST_LINE = 2**16


@dataclass(frozen=True)
class Line:
    """A finished line that is not blank."""

    text: str


@dataclass(frozen=True)
class EndOfInput:
    """Ctrl-D on an empty line, or the end of the input."""


OnInput = Callable[[Line | EndOfInput], None]


@contextmanager
def prompt(on_input: OnInput | None) -> Iterator[Callable[[str], None]]:
    """Keeps lines at the bottom of the terminal within the block; what is printed meanwhile scrolls above them.

    Args:
        on_input: takes what is typed, on a thread; None shows the lines without a place to type.

    Yields:
        A function that sets the lines above the typed one: text with ANSI escapes, each line at most a terminal wide.
    """
    shown = ""
    started = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(patch_stdout(raw=True))
        session: PromptSession[str] = PromptSession(
            lambda: ANSI(shown + (_MARK if on_input else "")),
            input=None if on_input else stack.enter_context(create_pipe_input()),
            wrap_lines=False,
            erase_when_done=True,
            enable_suspend=True,
        )
        if on_input is not None:
            session.key_bindings = _keys(session.default_buffer, on_input)
            session.default_buffer.accept_handler = lambda buffer: _accept(buffer, on_input)

        def run() -> None:
            try:
                session.prompt(pre_run=started.set)
            except EOFError:
                # The terminal was closed.
                if on_input is not None:
                    on_input(EndOfInput())
            finally:
                started.set()

        thread = threading.Thread(target=run, name="fvs-prompt", daemon=True)
        thread.start()
        started.wait()

        def show(text: str) -> None:
            nonlocal shown
            shown = text
            session.app.invalidate()

        try:
            yield show
        finally:
            if session.app.loop is not None:
                session.app.loop.call_soon_threadsafe(lambda: session.app.is_done or session.app.exit(result=""))
            thread.join()


def _keys(typed: Buffer, on_input: OnInput) -> KeyBindings:
    """Ctrl-C interrupts the process, and Ctrl-D on an empty line ends the input; neither ends the prompt by itself."""
    bindings = KeyBindings()
    bindings.add("c-c")(lambda _: signal.raise_signal(signal.SIGINT))
    bindings.add("c-d", filter=Condition(lambda: not typed.text))(lambda _: on_input(EndOfInput()))
    return bindings


def _accept(typed: Buffer, on_input: OnInput) -> bool:
    """Hands on what was typed, each line of a paste by itself, and empties the line."""
    for text in typed.text.splitlines():
        if text.strip():
            on_input(Line(text.strip()))
    return False


def read_lines(on_input: OnInput, room: threading.Semaphore) -> None:
    """Reads standard input as UTF-8 line by line on a thread; blank lines are skipped.

    Bytes that are no UTF-8 become lone surrogates, which the engine refuses.

    Args:
        on_input: takes what is read, on a thread.
        room: acquired for each line; released by whoever has done with one.
    """
    if sys.stdin is None:
        # Closed by whoever started the process.
        on_input(EndOfInput())
        return
    lines = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape")

    def read() -> None:
        try:
            while text := lines.readline(LONGEST_LINE):
                rest = text
                while len(rest) == LONGEST_LINE and not rest.endswith("\n"):
                    rest = lines.readline(LONGEST_LINE)
                if text.strip():
                    room.acquire()
                    on_input(Line(text.strip()))
        except OSError as error:
            print(f"standard input cannot be read: {error}", file=sys.stderr)
        finally:
            on_input(EndOfInput())

    threading.Thread(target=read, name="fvs-lines", daemon=True).start()
