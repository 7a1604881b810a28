"""Waiting for worker threads without blocking the executor."""

from __future__ import annotations

from rclpy.executors import Executor
from rclpy.task import Future


def worker_future(executor: Executor) -> Future:
    """A future that a worker thread completes and that a coroutine of `executor` awaits.

    rclpy looks at awaited futures only when something wakes its executor, and completing a future does that only if
    it has a done-callback. Without one, an answer waits for the next message or timer: 0.97 s longer, measured
    without a camera.
    """
    future = Future(executor=executor)
    future.add_done_callback(lambda _: None)
    return future
