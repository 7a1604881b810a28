"""Signals that come before a node runs, while its modules are imported for seconds, or after, while it ends."""

from __future__ import annotations

import os
import signal
from types import FrameType


def end_on_signals() -> None:
    """Makes SIGINT and SIGTERM end the process with status 0, as they do once the node runs."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)


def leave_signals_to_rclpy() -> None:
    """Undoes `end_on_signals`; rclpy's own handlers call those that they find."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def ignore_interrupts() -> None:
    """Lets a process that ends anyway end in its own way, which SIGINT would cut short with status -2.

    `ros2 launch` passes on a Ctrl-C that the terminal has sent to the node as well, and a replay may be interrupted
    just as it comes to its end. SIGTERM still ends the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)
