"""Camera frames to features; on CUDA, uploads overlap with earlier work and the ViT runs as captured graphs.

Shapes: n grid steps, P patches of a frame, D width of a patch feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fvs_ros.cuda_graph import CapturedCall
from fvs_ros.memory.geometry import FRAMES_PER_STEP
from fvs_ros.memory.snapshot import PatchGrid, StepFeatures
from fvs_ros.model.backbone import VisionTower
from fvs_ros.model.preprocess import PixelConfig, normalise, resize_frames

# Steps that one graph encodes: each has activations of its own, 0.1 GB a step at 448 x 448 in bfloat16.
LARGEST_GRAPH = 8


def graph_sizes(steps: int) -> Iterator[int]:
    """Powers of two that add up to `steps`, the largest first: so few sizes are recorded, and nothing is padded."""
    while steps:
        size = min(LARGEST_GRAPH, 1 << steps.bit_length() - 1)
        yield size
        steps -= size


class FrameEncoder:
    """Encodes grid steps. One thread uses it; work is launched on that thread's current stream and never waited for.

    Args:
        tower: encodes, on its device.
        pixels: how frames are normalised.
    """

    def __init__(self, tower: VisionTower, pixels: PixelConfig) -> None:
        self._tower = tower
        self._pixels = pixels
        self._device = device = tower.device
        self._uploads = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._graphs: dict[int, EncodeGraph] = {}
        self._grid: PatchGrid | None = None

    def encode(self, frames: Sequence[np.ndarray], grid: PatchGrid) -> StepFeatures:
        """Features of n grid steps, in storage of their own.

        Args:
            frames: 2n RGB frames, uint8 [height, width, 3], of any size.
            grid: what they are resized to.
        """
        if self._uploads is None:
            return self._tower.encode(normalise(resize_frames(frames, grid, self._device), self._pixels))
        if grid != self._grid:
            # The graphs of another frame size go before new ones come.
            self._graphs.clear()
            self._grid = grid
        return self._encode_on_cuda(self._upload(frames), grid, self._uploads)

    def _upload(self, frames: Sequence[np.ndarray]) -> list[Tensor]:
        """The frames on the device, as uint8; copied from pinned memory on a stream of their own."""
        with torch.cuda.stream(self._uploads):
            # A frame may be a view of a received message, and so read-only, which torch refuses to wrap. torch keeps
            # the pinned copy until the transfer has read it, and then for later frames.
            pinned = [torch.from_numpy(np.require(frame, requirements=["C", "W"])).pin_memory() for frame in frames]
            return [frame.to(self._device, non_blocking=True) for frame in pinned]

    def _encode_on_cuda(self, frames: Sequence[Tensor], grid: PatchGrid, uploads: torch.cuda.Stream) -> StepFeatures:
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(uploads)
        for frame in frames:
            # Allocated on the other stream, which must not give its memory away while this one reads it.
            frame.record_stream(current)
        pixels = normalise(resize_frames(frames, grid, self._device), self._pixels)
        parts, first = [], 0
        for size in graph_sizes(len(frames) // FRAMES_PER_STEP):
            if size not in self._graphs:
                self._graphs[size] = EncodeGraph(self._tower, grid, size)
            last = first + FRAMES_PER_STEP * size
            parts.append(self._graphs[size](pixels[first:last]))
            first = last
        if len(parts) == 1:
            return parts[0]
        return StepFeatures(torch.cat([part.high for part in parts]), torch.cat([part.low for part in parts]))


class EncodeGraph:
    """The ViT on a fixed number of steps of a fixed size.

    Args:
        tower: encodes.
        grid: of a frame.
        steps: how many.
        capture: records a function and returns what launches it.
    """

    def __init__(
        self,
        tower: VisionTower,
        grid: PatchGrid,
        steps: int,
        capture: Callable[[Callable[[], StepFeatures]], Callable[[], StepFeatures]] = CapturedCall,
    ) -> None:
        self._pixels = torch.zeros(FRAMES_PER_STEP * steps, 3, *grid.frame_size, device=tower.device)
        self._run = capture(lambda: tower.encode(self._pixels))

    def __call__(self, pixels: Tensor) -> StepFeatures:
        """Features, in storage of their own, of normalised frames [2n, 3, H, W]."""
        self._pixels.copy_(pixels)
        features = self._run()
        # The graph's own tensors are written by its next launch.
        return StepFeatures(features.high.clone(), features.low.clone())
