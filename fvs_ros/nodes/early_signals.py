"""Signals that come while a node's modules are imported, which takes seconds on a machine that is starting up."""

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


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(0)
