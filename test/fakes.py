"""A model without weights for tests of what surrounds it: features are mean colours, answers are plain facts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.stream.types import Frame, Pose

# Longest that a test waits for another thread; reached only by a test that fails.
PATIENCE_S = 20.0
SECOND_NS = 1_000_000_000
GRID = PatchGrid(4, 4)
CHANNELS = 3


class Gate:
    """Where a thread can be held: open at first; at a shut gate a thread is noticed and waits."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._reached = threading.Event()

    def shut(self) -> None:
        self._reached.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def wait_reached(self) -> None:
        assert self._reached.wait(PATIENCE_S), "no thread came to the gate"

    def go_through(self) -> None:
        if not self._open.is_set():
            self._reached.set()
            assert self._open.wait(PATIENCE_S), "the gate was left shut"


class FakeModel:
    """A `StreamModel`. `encoding` holds `encode_steps`, `answering` holds `answer` before each token.

    Attributes:
        encoded: for each call of `encode_steps`, the mean value of each frame.
        pieces: of text, of all answers.
        encode_error, answer_error: raised by the next calls while set.
    """

    name = "fake"

    def __init__(self, csm_slots: int = 8, dam_slots: int = 4) -> None:
        self.memory_config = FlashMemoryConfig(csm_slots=csm_slots, dam_slots=dam_slots)
        self.encoding = Gate()
        self.answering = Gate()
        self.encoded: list[list[int]] = []
        self.pieces: list[str] = []
        self.encode_error: Exception | None = None
        self.answer_error: Exception | None = None

    def frame_grid(self, height: int, width: int, min_pixels: int, max_pixels: int) -> PatchGrid:
        return GRID

    def new_memory(self, grid: PatchGrid) -> StreamingFlashMemory:
        return StreamingFlashMemory(self.memory_config, grid, CHANNELS, device=torch.device("cpu"), dtype=torch.float32)

    def encode_steps(self, frames: Sequence[np.ndarray], grid: PatchGrid) -> StepFeatures:
        assert frames, "asked to encode nothing"
        assert len(frames) % 2 == 0, "a grid step has two frames"
        self.encoded.append([round(float(frame.mean())) for frame in frames])
        self.encoding.go_through()
        if self.encode_error is not None:
            raise self.encode_error
        colours = torch.tensor(np.stack([frame.mean((0, 1)) for frame in frames]), dtype=torch.float32)
        steps = colours.reshape(-1, 2, CHANNELS).mean(1)[:, None]
        return StepFeatures(steps.repeat(1, grid.patches, 1), steps.repeat(1, grid.low_patches, 1))

    def control_tokens_in(self, text: str) -> list[str]:
        return [token for token in ("<|im_end|>", "<|video_pad|>") if token in text]

    def answer(
        self,
        snapshot: MemorySnapshot,
        question: str,
        *,
        max_new_tokens: int,
        on_token: Callable[[str], None],
        should_stop: Callable[[], bool],
        answer_prefix: str = "",
    ) -> str:
        """Tells the number of steps, then each CSM slot's colour as it is when its turn comes."""
        pieces = []
        for token in range(min(max_new_tokens, 1 + snapshot.csm.shape[0])):
            self.answering.go_through()
            if self.answer_error is not None:
                raise self.answer_error
            if should_stop():
                break
            pieces.append(f"{snapshot.steps} steps:" if token == 0 else f" {snapshot.csm[token - 1].mean():g}")
            self.pieces.append(pieces[-1])
            on_token(pieces[-1])
        return "".join(pieces)


def frame(second: float, value: int | None = None, size: tuple[int, int] = (8, 8), **fields: object) -> Frame:
    """A frame of one colour, by default its second."""
    image = np.full((*size, 3), int(second) % 256 if value is None else value, np.uint8)
    return Frame(stamp_ns=round(second * SECOND_NS), image=lambda: image, **fields)


def pose_at(x: float) -> Pose:
    return Pose("map", (x, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
