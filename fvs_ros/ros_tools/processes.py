"""The nodes as child processes of a tool: started together, watched, and always ended."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_POLITE_S = 30.0
_TAIL_LINES = 12
# Between two looks into the logs.
_READING_PERIOD_S = 0.5


# The ports of higher domains lie among those that Linux hands out.
_LAST_DOMAIN = 101


class ProcessError(Exception):
    """A child process has ended, or reports an error. The message has its last lines."""


def random_domain() -> int:
    """A ROS domain that is probably nobody else's."""
    return random.randint(1, _LAST_DOMAIN)


def ros_arguments(parameters: Mapping[str, object], remap: Mapping[str, str] | None = None) -> list[str]:
    """The command line that sets a node's parameters and remaps its names."""
    arguments = ["--ros-args"]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={value}"]
    for name, target in (remap or {}).items():
        if name != target:
            arguments += ["-r", f"{name}:={target}"]
    return arguments


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Puts SIGINT and SIGTERM off: one that came between a child's start and its entry here would leave it behind."""
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt


class Processes:
    """Python modules run as processes, each with its output in a log file.

    Args:
        folder: where the logs go.
        environment: of every process.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._may_finish: set[str] = set()
        self._next_reading = 0.0

    def start(self, module: str, arguments: Sequence[str], may_finish: bool = False) -> None:
        """Run ``python -m module arguments``; it is known by the last part of its name.

        Args:
            module: to run.
            arguments: of its command line.
            may_finish: whether it may end, with exit code 0, before it is stopped.
        """
        name = module.rpartition(".")[2]
        if may_finish:
            self._may_finish.add(name)
        with _uninterrupted(), self._log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C reaches the tool alone, which then ends its children in order.
                start_new_session=True,
            )

    def pid(self, name: str) -> int:
        """The process's number."""
        return self._running[name].pid

    def kill(self, name: str) -> int:
        """Ends a process by SIGKILL, which it cannot prepare for, and returns its number; it may be started again."""
        process = self._running.pop(name)
        process.kill()
        process.wait()
        return process.pid

    def check(self) -> None:
        """Raise ProcessError if a process has ended or has logged that it cannot do its work."""
        for name, process in self._running.items():
            code = process.poll()
            if code is not None and not (code == 0 and name in self._may_finish):
                raise ProcessError(f"{name} ended with exit code {code}; its last lines:\n{self.tail(name)}")
        if time.monotonic() < self._next_reading:
            return
        self._next_reading = time.monotonic() + _READING_PERIOD_S
        for name in self._running:
            if any(mark in self._text(name) for mark in ("[ERROR]", "[FATAL]")):
                raise ProcessError(f"{name} reports an error; its last lines:\n{self.tail(name)}")

    def finished(self) -> bool:
        """Whether all processes that may finish have."""
        return all(self._running[name].poll() is not None for name in self._may_finish)

    def tail(self, name: str) -> str:
        """The last lines of a process's output."""
        return "\n".join(self._text(name).splitlines()[-_TAIL_LINES:])

    def stop(self) -> dict[str, int]:
        """Interrupt every process, kill what does not end; returns the exit codes by name."""
        codes: dict[str, int] = {}
        with _uninterrupted():
            for process in self._running.values():
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
            for name, process in self._running.items():
                try:
                    codes[name] = process.wait(_POLITE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    codes[name] = process.wait()
            self._running.clear()
        return codes

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _text(self, name: str) -> str:
        return self._log(name).read_text(errors="replace")
