"""The memory of one episode while it grows: frames paired into grid steps, encoded, appended, and a snapshot taken."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fvs_ros.episodic.segment import Segment
from fvs_ros.memory.geometry import FRAMES_PER_STEP
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.stream.device_memory import free_device_memory, is_out_of_memory
from fvs_ros.stream.latest_memory import PublishedMemory
from fvs_ros.stream.model_protocol import StreamModel
from fvs_ros.stream.origins import StepOrigin, StepOrigins
from fvs_ros.stream.recorder import Recorder
from fvs_ros.stream.segment_builder import RecordedStep
from fvs_ros.stream.static_scene import StaticSceneFilter
from fvs_ros.stream.types import MemoryStatus
from fvs_ros.stream.watchdog import ModelCalls

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodedFrame:
    """A frame on its way to the model; `image` is RGB, uint8 [height, width, 3]."""

    stamp_ns: int
    image: np.ndarray
    origin: StepOrigin


@dataclass(frozen=True, eq=False)
class MemoryState:
    """A memory at one moment, from which another goes on.

    Attributes:
        grid: patches of its frames.
        tensors: of `StepMemory.state_dict`.
        origins: of the steps that can become keyframes, and of others.
        start_ns, end_ns: stamps of the first frame, and of the last of a complete step.
        frame_id: of that frame.
        ready: on CUDA recorded once the tensors are there.
    """

    grid: PatchGrid
    tensors: Mapping[str, Tensor]
    origins: Mapping[int, StepOrigin]
    start_ns: int
    end_ns: int
    frame_id: str
    ready: torch.cuda.Event | None = None


class EpisodeMemory:
    """The memory of one episode, its frames paired into grid steps. Used by one thread.

    Args:
        model: encodes the frames and makes the memory.
        grid: patches that all frames of the episode are resized to.
        episode: the engine's number of it.
        static_tolerance: see `StaticSceneFilter`.
        calls: the calls of the model by the worker that has this memory.
        recorder: gets each complete grid step; None keeps none.

    Attributes:
        grid, episode: as given.
        end_ns: stamp of the newest frame of a complete step; None before the first.
        static_frames: frames whose step was not encoded because it shows the last encoded step's scene.
        calls: as given; a worker that takes the memory over sets its own.
        out_of_memory: the last time that the device's memory did not suffice for a batch; empty before that.
        intact: whether no call that writes the memory is under way.
    """

    def __init__(
        self,
        model: StreamModel,
        grid: PatchGrid,
        episode: int,
        static_tolerance: float = 0.0,
        calls: ModelCalls | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._model = model
        self._recorder = recorder
        self.grid = grid
        self.episode = episode
        self._memory = memory = model.new_memory(grid)
        # Not through self: a reference cycle would keep the gigabytes of an episode beyond its end, until collected.
        self._origins = StepOrigins(lambda: memory.candidate_steps().tolist())
        self._static_scene = StaticSceneFilter(static_tolerance)
        # Features of the last encoded step, which the static ones after it share.
        self._last: StepFeatures | None = None
        self._unpaired: DecodedFrame | None = None
        self.static_frames = 0
        self.calls = calls or ModelCalls()
        self.out_of_memory = ""
        self.intact = True
        self._ready: torch.cuda.Event | None = None
        self._start_ns: int | None = None
        self.end_ns: int | None = None
        self._frame_id = ""

    def continued(self) -> EpisodeMemory:
        """This memory, after a batch that was given up."""
        self._static_scene.forget()
        self._ready = None
        return self

    @property
    def bytes(self) -> int:
        """Bytes of the memory on its device, the same from its beginning to its end."""
        return self._memory.bytes

    def overlaps(self, since_ns: int | None, until_ns: int | None) -> bool:
        """Whether any of its frames may lie in a closed range of stamps; None for open."""
        stamps = [] if self._unpaired is None else [self._unpaired.stamp_ns]
        if self.end_ns is not None:
            # Not the first and the last: a memory that goes on whatever the stamps (`Resume.ALWAYS`) has them in any
            # order.
            snapshot = self._memory.snapshot()
            for seen in (snapshot.csm_start_ns, snapshot.csm_end_ns, snapshot.dam_stamps_ns):
                stamps += seen.tolist()
        if not stamps:
            return False
        return (since_ns is None or max(stamps) >= since_ns) and (until_ns is None or min(stamps) <= until_ns)

    def state(self) -> MemoryState | None:
        """The memory of all complete steps in storage of its own; None before the first."""
        if self._start_ns is None or self.end_ns is None:
            return None
        tensors = self._memory.state_dict()
        ready = None
        if self._model.device.type == "cuda":
            ready = torch.cuda.current_stream(self._model.device).record_event()
        origins = self._origins.view()
        return MemoryState(self.grid, tensors, origins, self._start_ns, self.end_ns, self._frame_id, ready)

    def load(self, state: MemoryState) -> None:
        """Goes on from a state, while empty.

        Raises:
            ValueError: it is of a memory with other settings. This one is unchanged.
        """
        self._memory.load_state_dict(state.tensors)
        self._origins.restore(state.origins)
        self._start_ns, self.end_ns, self._frame_id = state.start_ns, state.end_ns, state.frame_id

    def encode_pictures(self, pictures: Sequence[np.ndarray]) -> StepFeatures:
        """Features of pictures, RGB uint8 [height, width, 3] of any size, each as a step of its own."""
        return self._encode_frames([picture for picture in pictures for _ in range(FRAMES_PER_STEP)])

    def append_segment(self, high: Tensor, low: Tensor, segment: Segment) -> None:
        """Adds a stored segment: its keyframe's features [P, D] and its mean's, or the keyframe's, [P / 4, D]."""
        first, stamps_ns = self._memory.steps, (segment.start_ns, segment.end_ns, segment.keyframe_ns)
        with self.calls.call("memory update"):
            self._memory.append_run(high, low, *stamps_ns, segment.weight)
        self._origins.add(first, [StepOrigin(segment.frame_id, segment.pose)] * segment.weight)
        self._start_ns = segment.start_ns if self._start_ns is None else self._start_ns
        self.end_ns, self._frame_id = segment.end_ns, segment.frame_id

    def publication(self) -> PublishedMemory | None:
        """The memory of all complete steps, without a version yet; None before the first."""
        if self.end_ns is None:
            return None
        snapshot = self._memory.snapshot()
        return PublishedMemory(snapshot, self._origins.view(), self._status(snapshot, self.end_ns, self._frame_id))

    @property
    def has_unpaired(self) -> bool:
        """Whether the newest frame still waits for the second of its step."""
        return self._unpaired is not None

    def add(self, frames: Sequence[DecodedFrame]) -> PublishedMemory:
        """Adds at least one frame and returns the memory after it, without a version yet.

        Two consecutive frames make a grid step. A single newest frame counts twice, as a provisional step that leaves
        no trace once the next frame comes. If the model fails, that frame is lost with the batch: kept, it could make
        every later batch fail as well.
        """
        if self._ready is not None:
            # On CUDA this thread only launches, so that it decoded this batch while the device worked on the last one.
            # No more than one may be queued there: each holds a snapshot of hundreds of megabytes.
            with self.calls.call("encoding on the device"):
                self._ready.synchronize()
        if self._unpaired is not None:
            frames = [self._unpaired, *frames]
            self._unpaired = None
        steps = len(frames) // FRAMES_PER_STEP
        unpaired = frames[-1] if len(frames) % FRAMES_PER_STEP else None
        images = [frame.image for frame in frames]
        if unpaired is not None:
            images.append(unpaired.image)
        try:
            features = self._encode(images, steps)
        except Exception:
            self._static_scene.forget()
            raise
        with self.calls.call("memory update"):
            self.intact = False
            try:
                snapshot, origins = self._append(features, frames)
            finally:
                self.intact = True
        if self._recorder is not None:
            self._recorder.offer(self._recorded(features.low, frames))
        self._ready = snapshot.ready
        self._unpaired = unpaired
        if self._start_ns is None:
            self._start_ns = frames[0].stamp_ns
        if steps:
            last = frames[FRAMES_PER_STEP * steps - 1]
            self.end_ns, self._frame_id = last.stamp_ns, last.origin.frame_id
        status = self._status(snapshot, frames[-1].stamp_ns, frames[-1].origin.frame_id)
        return PublishedMemory(snapshot, origins, status)

    def _status(self, snapshot: MemorySnapshot, end_ns: int, frame_id: str) -> MemoryStatus:
        return MemoryStatus(
            episode=self.episode,
            steps=snapshot.steps,
            csm_slots=snapshot.csm.shape[0],
            dam_slots=snapshot.dam.shape[0],
            start_ns=end_ns if self._start_ns is None else self._start_ns,
            end_ns=end_ns,
            bytes=self._memory.bytes,
            frame_id=frame_id,
        )

    def _append(
        self, features: StepFeatures, frames: Sequence[DecodedFrame]
    ) -> tuple[MemorySnapshot, dict[int, StepOrigin]]:
        """Takes whole steps into the memory; returns it and its origins, with those of a provisional step if any."""
        steps = len(frames) // FRAMES_PER_STEP
        starts, ends = frames[0 : 2 * steps : 2], frames[1 : 2 * steps : 2]
        if steps:
            first_step = self._memory.steps
            self._memory.append(
                features.high[:steps],
                features.low[:steps],
                [frame.stamp_ns for frame in starts],
                [frame.stamp_ns for frame in ends],
            )
            self._origins.add(first_step, [frame.origin for frame in starts])
        origins = self._origins.view()
        if 2 * steps == len(frames):
            return self._memory.snapshot(), origins
        origins[self._memory.steps] = frames[-1].origin
        return self._memory.snapshot((features.high[steps], features.low[steps], frames[-1].stamp_ns)), origins

    def _recorded(self, low: Tensor, frames: Sequence[DecodedFrame]) -> list[RecordedStep]:
        """The complete steps, as they are stored."""
        steps = len(frames) // FRAMES_PER_STEP
        ready = None
        low = low[:steps]
        if low.device.type == "cuda":
            # Pinned, so that the copy takes place while this thread goes on.
            host = torch.empty(low.shape, dtype=low.dtype, pin_memory=True)
            low = host.copy_(low, non_blocking=True)
            ready = torch.cuda.current_stream(self._model.device).record_event()
        return [
            RecordedStep(self.grid, low[step], first.stamp_ns, last.stamp_ns, last.image, last.origin, ready)
            for step, (first, last) in enumerate(zip(frames[0 : 2 * steps : 2], frames[1 : 2 * steps : 2], strict=True))
        ]

    def _encode(self, images: Sequence[np.ndarray], steps: int) -> StepFeatures:
        """Features of all steps, those from `steps` on being provisional; a static one gets the last encoded step's.

        A step equal to the last one adds weight to it: the memory joins the two at no cost.
        """
        pairs = [images[first : first + 2] for first in range(0, len(images), 2)]
        # Where each step's features come from: a position among the steps encoded here, or -1 for the last batch's.
        sources: list[int] = []
        encoded: list[np.ndarray] = []
        last = -1
        for index, pair in enumerate(pairs):
            if self._static_scene.is_static(pair, provisional=index >= steps):
                sources.append(last)
                self.static_frames += 2 if index < steps else 0
                continue
            sources.append(len(encoded) // FRAMES_PER_STEP)
            encoded += pair
            if index < steps:
                last = sources[-1]
        new = self._encode_frames(encoded) if encoded else None
        kept = self._last
        if new is not None and last >= 0 and self._static_scene.active:
            self._last = StepFeatures(new.high[last : last + 1].clone(), new.low[last : last + 1].clone())
        if new is not None and sources == list(range(len(pairs))):
            return new
        parts = [_step_of(new if source >= 0 else kept, max(source, 0)) for source in sources]
        return StepFeatures(torch.cat([part.high for part in parts]), torch.cat([part.low for part in parts]))

    def _encode_frames(self, frames: Sequence[np.ndarray]) -> StepFeatures:
        """Features of whole steps; where the device's memory does not suffice, in halves, down to single steps."""
        try:
            with self.calls.call("encode_steps"):
                return self._model.encode_steps(frames, self.grid)
        except Exception as error:
            steps = len(frames) // FRAMES_PER_STEP
            if not is_out_of_memory(error):
                raise
            self.out_of_memory = (
                f"the device's memory did not suffice to encode {steps} steps at once ({error}); lower batch_steps or "
                "max_pixels"
            )
            if steps == 1:
                raise
        # Outside the handler, whose traceback keeps the tensors of the failed call.
        free_device_memory()
        half = FRAMES_PER_STEP * (steps // 2)
        logger.warning("%s; going on in halves", self.out_of_memory)
        first, second = self._encode_frames(frames[:half]), self._encode_frames(frames[half:])
        return StepFeatures(torch.cat([first.high, second.high]), torch.cat([first.low, second.low]))


def _step_of(features: StepFeatures | None, index: int) -> StepFeatures:
    assert features is not None  # nothing is static before a step was encoded
    return StepFeatures(features.high[index : index + 1], features.low[index : index + 1])
