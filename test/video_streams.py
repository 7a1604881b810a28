"""Streams of random frames, as the memory has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid
from fvs_ros.model.flash_vstream import FlashVStream

SECOND = 1_000_000_000
QUESTION = "What is here?"


def frames_of(count: int, height: int, width: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def stream(model: FlashVStream, frames: Sequence[np.ndarray], grid: PatchGrid, fps: float) -> MemorySnapshot:
    """The memory of frames at a constant rate from a real clock's time on; an odd last one is provisional."""
    memory, first = model.new_memory(grid), 1_700_000_000 * SECOND
    stamps = [first + round(index * SECOND / fps) for index in range(len(frames))]
    steps = len(frames) // 2
    if steps:
        features = model.encode_steps(frames[: 2 * steps], grid)
        memory.append(features.high, features.low, stamps[: 2 * steps : 2], stamps[1 : 2 * steps : 2])
    if len(frames) % 2 == 0:
        return memory.snapshot()
    last = model.encode_steps([frames[-1]] * 2, grid)
    return memory.snapshot((last.high[0], last.low[0], stamps[-1]))
