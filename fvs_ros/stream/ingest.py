"""From waiting frames to a published memory: decode, pair, encode, append, snapshot."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch

from fvs_ros.memory.geometry import FRAMES_PER_STEP
from fvs_ros.memory.snapshot import PatchGrid, StepFeatures
from fvs_ros.sources.frame import Frame, ImageError, Pose
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.device_memory import free_device_memory, is_out_of_memory
from fvs_ros.stream.episode_memory import DecodedFrame, EpisodeMemory
from fvs_ros.stream.frame_queue import FrameBatch, FrameQueue
from fvs_ros.stream.latest_memory import LatestMemory
from fvs_ros.stream.log import ThrottledLog
from fvs_ros.stream.memory_keeper import MemoryKeeper
from fvs_ros.stream.model_protocol import StreamModel
from fvs_ros.stream.origins import StepOrigin
from fvs_ros.stream.recorder import Recorder
from fvs_ros.stream.types import MemoryStatus
from fvs_ros.stream.watchdog import ModelCalls

logger = logging.getLogger(__name__)

# Reasons in `StreamStatistics.rejected` that are not an ImageError's own.
DECODE_ERROR = "decode_error"
MODEL_ERROR = "model_error"


class IngestWorker:
    """Takes waiting frames into memory, batch by batch, and publishes a snapshot after each.

    Args:
        model: encodes the frames.
        config: `batch_steps`, `min_pixels`, `max_pixels` and `static_tolerance`.
        frames: the queue of kept frames.
        latest: where the memory is published.
        on_memory: called on this worker's thread after the memory changed, resets included; changes in quick
            succession may be reported as one.
        recorder: stores the stream as segments; None keeps none.
        keeper: restores, saves and changes the memory, where there is a recorder.

    Attributes:
        static_frames: frames ingested without encoding them, over all episodes.
        last_batch_s: seconds from dequeuing the last batch to publishing its memory.
        last_error: the model's last failure, empty if none.
        out_of_memory: the last time that the device's memory did not suffice; empty before that.
        calls: of the model.
    """

    def __init__(
        self,
        model: StreamModel,
        config: StreamConfig,
        frames: FrameQueue,
        latest: LatestMemory,
        on_memory: Callable[[MemoryStatus], None] | None,
        recorder: Recorder | None = None,
        keeper: MemoryKeeper | None = None,
    ) -> None:
        self._model = model
        self._recorder = recorder
        self._keeper = keeper
        # Restores the memory before the first frame; the first generation alone does.
        self._begins = keeper
        self._config = config
        self._frames = frames
        self._latest = latest
        self._on_memory = on_memory
        self._announced = latest.status.version
        self._log = ThrottledLog(logger)
        self._episode = 0
        self._memory: EpisodeMemory | None = None
        self.static_frames = 0
        self.last_batch_s = 0.0
        self.last_error = ""
        self.out_of_memory = ""
        self.calls = ModelCalls()

    def successor(self, reason: str) -> IngestWorker:
        """The worker that takes over from this one, whose thread hangs in a model call or has ended.

        The frames in hand are rejected. The memory goes on, unless the call was writing it: then the published one is
        kept until frames of a new episode are in memory.
        """
        own = (self._model, self._config, self._frames, self._latest, self._on_memory, self._recorder, self._keeper)
        other = IngestWorker(*own)
        other._begins = None
        memory = self._memory
        if memory is not None and memory.intact:
            memory.calls = other.calls
            other._memory = memory.continued()
        other._episode = self._episode
        self._memory = None
        other._announced = self._announced
        other.static_frames = self.static_frames
        other.last_batch_s = self.last_batch_s
        other.last_error = reason
        other.out_of_memory = self.out_of_memory
        self._frames.abandon(MODEL_ERROR, memory is not None and not memory.intact, reason)
        return other

    def run(self) -> None:
        """Runs until the queue is closed."""
        with _own_stream(self._model.device):
            if self._begins is not None:
                self._begins.begin(self)
                self._announce()
            while (batch := self._frames.take(self._room(), self._episode)) is not None:
                if batch.episode != self._episode:
                    self._episode = batch.episode
                    self._memory = None
                    if self._keeper is not None:
                        self._keeper.new_episode(batch.reason)
                if batch.request is not None:
                    batch.request(self)
                if batch.frames:
                    self._ingest(batch)
                self._announce()
            if self._keeper is not None:
                self._keeper.finish(self._memory)
            self._memory = None

    def _room(self) -> int:
        """Frames that make at most `batch_steps` steps, counting one that still waits for the second of its step."""
        unpaired = self._memory is not None and self._memory.has_unpaired
        return FRAMES_PER_STEP * self._config.batch_steps - unpaired

    def _ingest(self, batch: FrameBatch) -> None:
        begin = time.perf_counter()
        frames = [decoded for frame in batch.frames if (decoded := self._decode(frame)) is not None]
        if not frames:
            return
        try:
            if self._keeper is not None:
                batch = self._join(self._keeper, batch, frames[0])
            if self._memory is None:
                self._memory = self.new_memory(self._grid_of(frames[0]))
            before = self._memory.static_frames
            published = self._memory.add(frames)
            self.out_of_memory = self._memory.out_of_memory
        except Exception as error:
            if is_out_of_memory(error):
                free_device_memory()
            if self._memory is not None:
                self.out_of_memory = self._memory.out_of_memory
            self.last_error = f"{type(error).__name__}: {error}"
            self._log.log(
                logging.ERROR,
                MODEL_ERROR,
                f"the model failed on {len(frames)} frames, which are lost; the stream goes on with the next",
                exc_info=True,
            )
            self._frames.reject(MODEL_ERROR, len(frames))
            return

        self.static_frames += self._memory.static_frames - before

        def publish() -> None:
            self._latest.publish(published)
            self.last_batch_s = time.perf_counter() - begin

        self._frames.commit(batch.episode, len(frames), publish)
        if self._keeper is not None:
            self._keeper.after_batch(self._memory)

    def _grid_of(self, frame: DecodedFrame) -> PatchGrid:
        height, width = frame.image.shape[:2]
        with self.calls.call("frame_grid"):
            return self._model.frame_grid(height, width, self._config.min_pixels, self._config.max_pixels)

    def _join(self, keeper: MemoryKeeper, batch: FrameBatch, frame: DecodedFrame) -> FrameBatch:
        """The batch as of the episode it belongs to: where a memory was restored, its first frame decides."""
        if not keeper.undecided:
            return batch
        if refusal := keeper.goes_on(frame.stamp_ns):
            self._episode = self._frames.start_over(batch.episode, refusal)
            self._memory = None
            return replace(batch, episode=self._episode)
        grid = self._grid_of(frame)
        if self._memory is not None and self._memory.grid != grid:
            keeper.resize(self, grid)
        return batch

    @property
    def memory(self) -> EpisodeMemory | None:
        """The memory of the running episode; None before its first frame."""
        return self._memory

    @property
    def grid(self) -> PatchGrid | None:
        """Patches of the stream's frames; None before the first."""
        return None if self._memory is None else self._memory.grid

    def encode(self, picture: np.ndarray, grid: PatchGrid) -> StepFeatures:
        """Features of an RGB picture, uint8 [height, width, 3], as a step of its own."""
        with self.calls.call("encode_steps"):
            return self._model.encode_steps([picture] * FRAMES_PER_STEP, grid)

    def new_memory(self, grid: PatchGrid) -> EpisodeMemory:
        """An empty memory of the running episode."""
        with self.calls.call("new_memory"):
            tolerance = self._config.static_tolerance
            return EpisodeMemory(self._model, grid, self._episode, tolerance, self.calls, self._recorder)

    def adopt(self, memory: EpisodeMemory) -> None:
        """Goes on with a memory and publishes it."""
        with self.calls.call("memory update"):
            published = memory.publication()
        self._memory = memory
        if published is not None:
            self._frames.commit(memory.episode, 0, lambda: self._latest.publish(published))

    def drop_memory(self) -> None:
        """Goes on without a memory, in a new episode of the engine; waiting frames are discarded.

        A reset that came meanwhile has done that already, and is dealt with once the request is over.
        """
        self._memory = None
        self._episode = self._frames.new_episode(self._episode)

    def outdate_excerpts(self) -> None:
        """Lets no answer begin from an excerpt or a recalled memory that was made before. On the recorder's thread."""
        self._latest.forgettings += 1

    def _decode(self, frame: Frame) -> DecodedFrame | None:
        """Decodes a frame and looks up its pose; None, counted and logged, if it has no usable image."""
        try:
            image = frame.image()
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
                raise ImageError(
                    DECODE_ERROR, f"the image is {image.dtype} {list(image.shape)}; it must be uint8 [height, width, 3]"
                )
        except ImageError as error:
            self._log.log(logging.WARNING, error.reason, f"the frame at {frame.stamp_ns} ns is rejected: {error}")
            self._frames.reject(error.reason)
            return None
        except Exception:
            self._log.log(
                logging.ERROR, DECODE_ERROR, f"the frame at {frame.stamp_ns} ns could not be decoded", exc_info=True
            )
            self._frames.reject(DECODE_ERROR)
            return None
        return DecodedFrame(frame.stamp_ns, image, StepOrigin(frame.frame_id, self._pose(frame)))

    def _pose(self, frame: Frame) -> Pose | None:
        try:
            return frame.pose()
        except Exception:
            self._log.log(
                logging.WARNING,
                "pose",
                f"no pose for the frame at {frame.stamp_ns} ns: its look-up failed",
                exc_info=True,
            )
            return None

    def _announce(self) -> None:
        status = self._latest.status
        if self._on_memory is None or status.version == self._announced:
            return
        self._announced = status.version
        try:
            self._on_memory(status)
        except Exception:
            self._log.log(logging.ERROR, "on_memory", "the callback on_memory failed", exc_info=True)


def _own_stream(device: torch.device) -> AbstractContextManager[object]:
    """On CUDA a stream of this thread's own, so that waiting on the default stream does not wait for frames."""
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()
