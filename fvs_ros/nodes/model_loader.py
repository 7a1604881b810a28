"""Loading the model while the node stays responsive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rclpy.executors import Executor
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.task import Future

from fvs_ros.nodes.futures import worker_future
from fvs_ros.nodes.parameters import NodeSettings
from fvs_ros.sources.images import image_converter
from fvs_ros.stream.model_protocol import StreamModel

# Between two lines of the log about one download.
PROGRESS_PERIOD_S = 10.0

Progress = Callable[[str], None]


class ModelLoader:
    """Loads a model on a thread of its own.

    A 7B model takes a minute, a download far longer. On the executor's thread that would block diagnostics, parameters,
    and the refusal of questions that come too early.

    Args:
        load: returns the model, or raises what went wrong; says what it does by the function that it is given.

    Attributes:
        progress: what the load under way does now.
    """

    def __init__(self, load: Callable[[Progress], StreamModel]) -> None:
        self.progress = ""
        self._load = load
        self._future: Future | None = None
        self._thread: threading.Thread | None = None

    @property
    def loading(self) -> bool:
        """Whether the thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    async def load_ahead(self, executor: Executor) -> Exception | None:
        """Returns once `take` has something to return or raise, and what it will raise; joins a load under way."""
        if self._future is None:
            self.progress = ""
            self._future = worker_future(executor)
            self._thread = threading.Thread(target=self._run, args=(self._future,), name="fvs-load", daemon=True)
            self._thread.start()
        try:
            await self._future
        except Exception as error:
            # `take` raises it in the transition, which then fails.
            return error
        return None

    def _run(self, future: Future) -> None:
        try:
            future.set_result(self._load(self._on_progress))
        except Exception as error:
            future.set_exception(error)

    def _on_progress(self, line: str) -> None:
        self.progress = line

    def take(self) -> StreamModel:
        """The model that was loaded ahead, or one loaded now; the loader keeps no reference to it.

        Raises:
            Exception: whatever `load` raised.
        """
        future, self._future = self._future, None
        if future is None or not future.done():
            return self._load(self._on_progress)
        return future.result()

    def abandon(self) -> None:
        """Drops what a load brings or has brought, without waiting for it, since it cannot be interrupted."""
        self._future = None


def load_stream_model(settings: NodeSettings, logger: RcutilsLogger, on_progress: Progress) -> StreamModel:
    """The model that the parameters name; logs what is done, and how far a download is.

    Raises:
        CheckpointError: it cannot be loaded; HubError where another try may succeed.
    """
    if not settings.model:
        raise ValueError(
            "the parameter model is empty; set it to a checkpoint, a folder or a hub name, as in "
            "-p model:=zhang9302002/Flash-VStream-Qwen-7b, or to embedded for the model that ships with the package"
        )
    logger.info(f"Loading {settings.model}")
    begin = time.perf_counter()

    def report(line: str) -> None:
        on_progress(line)
        logger.info(f"Loading {settings.model}: {line}", throttle_duration_sec=PROGRESS_PERIOD_S)

    # Here, because it takes seconds: the node is there for questions and diagnostics meanwhile.
    from fvs_ros.model.cpu_threads import share_cores
    from fvs_ros.model.flash_vstream import FlashVStream

    model = FlashVStream.load(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        temporal_method=settings.temporal_method,
        spatial_method=settings.spatial_method,
        on_progress=report,
    )
    if model.device.type == "cpu":
        share_cores()
    # Also found out once, and better now than when the first frame is waiting.
    image_converter()
    logger.info(f"Loaded {settings.model} as {model.dtype} on {model.device} in {time.perf_counter() - begin:.1f} s")
    return model
