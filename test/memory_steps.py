"""Grid steps of random features, empty memories to take them, and memories that are compared whole."""

import dataclasses

import torch

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.memory.streaming import StreamingFlashMemory

GRID = PatchGrid(4, 4)


def empty_memory(
    csm_slots: int,
    dam_slots: int,
    width: int,
    grid: PatchGrid = GRID,
    dtype: torch.dtype = torch.float32,
    *,
    window_slots: int = 0,
    horizon: int = 120,
    time_code: float = 0.0,
    time_weight: float = 0.0,
) -> StreamingFlashMemory:
    config = FlashMemoryConfig(
        csm_slots=csm_slots,
        dam_slots=dam_slots,
        window_slots=window_slots,
        horizon=horizon,
        time_code=time_code,
        time_weight=time_weight,
    )
    return StreamingFlashMemory(config, grid, width, device=torch.device("cpu"), dtype=dtype)


def random_steps(count: int, width: int = 3, grid: PatchGrid = GRID, seed: int = 0) -> StepFeatures:
    generator = torch.Generator().manual_seed(seed)
    high = torch.randn(count, grid.patches, width, generator=generator)
    return StepFeatures(high, torch.randn(count, grid.low_patches, width, generator=generator))


def append_all(memory: StreamingFlashMemory, features: StepFeatures, first: int = 0) -> StreamingFlashMemory:
    """Step t starts at 10 t ns and ends at 10 t + 5."""
    stamps = range(10 * first, 10 * (first + features.low.shape[0]), 10)
    memory.append(features.high, features.low, list(stamps), [stamp + 5 for stamp in stamps])
    return memory


def take(features: StepFeatures, start: int, end: int) -> StepFeatures:
    return StepFeatures(features.high[start:end], features.low[start:end])


def assert_same(left: MemorySnapshot, right: MemorySnapshot) -> None:
    for field in dataclasses.fields(MemorySnapshot):
        one, other = getattr(left, field.name), getattr(right, field.name)
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype, field.name
            assert torch.equal(one, other), field.name
        else:
            assert one == other, field.name
