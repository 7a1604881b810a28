"""Waiting for something while a node's messages come in."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future

from fvs_ros.ros_tools.requests import DEFAULT_TIMEOUT_S

# The longest spin: between two, conditions are looked at and `on_wait` runs.
TICK_S = 0.02

Value = TypeVar("Value")


class Spinning:
    """Spins an executor while a method waits.

    Attributes:
        ros_node: the node that is in the executor.
    """

    ros_node: Node
    _executor: SingleThreadedExecutor
    _on_wait: Callable[[], None] | None

    def wait_for(self, condition: Callable[[], Value], what: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> Value:
        """Spins until `condition` is true, and returns its value.

        Args:
            condition: called between callbacks.
            what: is waited for, for the error.
            timeout_s: longest wait, in seconds.

        Raises:
            TimeoutError: it is not in time.
        """
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout_s:g} s for {what}")
            self._spin_once()
        return value

    def spin_for(self, seconds: float) -> None:
        """Takes in messages for a while."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._spin_once()

    def _spin_once(self) -> None:
        self._executor.spin_once(timeout_sec=TICK_S)
        if self._on_wait is not None:
            self._on_wait()

    def result_of(self, future: Future, what: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> Any:
        """Spins until an rclpy future of `ros_node` is done, and returns its result.

        Raises:
            TimeoutError: it is not in time.
        """
        self.wait_for(future.done, what, timeout_s)
        return future.result()
