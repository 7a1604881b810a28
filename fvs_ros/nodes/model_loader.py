"""Loading the model while the node goes on answering for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rclpy.executors import Executor
from rclpy.task import Future

from fvs_ros.nodes.futures import worker_future
from fvs_ros.stream.model_protocol import StreamModel


class ModelLoader:
    """Loads a model on a thread of its own.

    A 7B model takes a minute, a download far longer. On the executor's thread that would hold up diagnostics,
    parameters and the questions that should be told that the node is not active yet.

    Args:
        load: returns the model, or raises what went wrong.
    """

    def __init__(self, load: Callable[[], StreamModel]) -> None:
        self._load = load
        self._future: Future | None = None
        self._thread: threading.Thread | None = None

    @property
    def loading(self) -> bool:
        """Whether the thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    async def load_ahead(self, executor: Executor) -> None:
        """Returns once `take` has something to return or raise; joins a load that is under way."""
        if self._future is None:
            self._future = worker_future(executor)
            self._thread = threading.Thread(target=self._run, args=(self._future,), name="fvs-load", daemon=True)
            self._thread.start()
        try:
            await self._future
        except Exception:
            # `take` raises it to the transition, which is the one to fail.
            return

    def _run(self, future: Future) -> None:
        try:
            future.set_result(self._load())
        except Exception as error:
            future.set_exception(error)

    def take(self) -> StreamModel:
        """The model that was loaded ahead, or one loaded now; the loader keeps no reference to it.

        Raises:
            Exception: whatever `load` raised.
        """
        future, self._future = self._future, None
        if future is None or not future.done():
            return self._load()
        return future.result()

    def close(self) -> None:
        """Waits for a load that is under way, since it cannot be interrupted, and drops what it brings."""
        if self._thread is not None:
            self._thread.join()
        self._future = None
