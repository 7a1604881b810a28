"""Loading the model, and opening the episode store, while the node stays responsive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from rclpy.executors import Executor
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.task import Future

from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.nodes.futures import worker_future
from fvs_ros.nodes.parameters import NodeSettings
from fvs_ros.sources.images import image_converter
from fvs_ros.stream.model_protocol import StreamModel

# Between two lines of the log about one download.
PROGRESS_PERIOD_S = 10.0

Progress = Callable[[str], None]


class AbandonedError(Exception):
    """Nobody wants any more what a load would bring."""


@dataclass(frozen=True)
class Loaded:
    """What a node needs before it can be configured; whoever has it closes the store."""

    model: StreamModel
    store: EpisodeStore


class ModelLoader:
    """Loads a model, and opens the episode store, on a thread of its own.

    A 7B model takes a minute, a download far longer, a day's store a second. On the executor's thread that would block
    diagnostics, parameters, and the refusal of questions that come too early.

    Args:
        load: returns both, or raises what went wrong; says what it does by the function that it is given.

    Attributes:
        progress: what the load under way does now.
    """

    def __init__(self, load: Callable[[Progress], Loaded]) -> None:
        self.progress = ""
        self._load = load
        self._future: Future | None = None
        self._thread: threading.Thread | None = None
        # Held to decide whose a load's result is: the transition's, or, once that was abandoned, nobody's.
        self._handing_over = threading.Lock()

    @property
    def loading(self) -> bool:
        """Whether the thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    async def load_ahead(self, executor: Executor) -> Exception | None:
        """Returns once `take` has something to return or raise, and what it will raise; joins a load under way."""
        future = self._future
        if future is None:
            self.progress = ""
            self._future = future = worker_future(executor)
            self._thread = threading.Thread(target=self._run, args=(future,), name="fvs-load", daemon=True)
            self._thread.start()
        try:
            await future
        except Exception as error:
            # `take` raises it in the transition, which then fails.
            return error
        return None

    def _run(self, future: Future) -> None:
        try:
            loaded = self._load(self._on_progress)
        except Exception as error:
            with self._handing_over:
                if not future.done():
                    future.set_exception(error)
            return
        with self._handing_over:
            if wanted := not future.done():
                future.set_result(loaded)
        if not wanted:
            loaded.store.close()

    def _on_progress(self, line: str) -> None:
        self.progress = line

    def take(self) -> Loaded:
        """What was loaded ahead, or is loaded now; the loader keeps no reference to it.

        Raises:
            Exception: whatever `load` raised.
        """
        future, self._future = self._future, None
        if future is None or not future.done():
            return self._load(self._on_progress)
        return future.result()

    def abandon(self) -> None:
        """Drops what a load brings or has brought, without waiting for it, since it cannot be interrupted."""
        future, self._future = self._future, None
        if future is None:
            return
        with self._handing_over:
            if not future.done():
                future.set_exception(AbandonedError("the load was abandoned"))
        if future.exception() is None:
            future.result().store.close()


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
        csm_slots=settings.csm_slots,
        dam_slots=settings.dam_slots,
        window_slots=settings.window_slots,
        deepstack=settings.deepstack,
        quantization=settings.quantization,
        on_progress=report,
    )
    if model.device.type == "cpu":
        share_cores()
    # Also found out once, and better now than when the first frame is waiting.
    image_converter()
    logger.info(f"Loaded {settings.model} as {model.dtype} on {model.device} in {time.perf_counter() - begin:.1f} s")
    return model
