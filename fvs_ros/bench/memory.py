"""`fvs bench memory`: what one step costs the streaming memory, early and late, beside the published method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.progress import Progress
from torch import Tensor

from fvs_ros.bench.measure import Machine, Measure, Stopwatch, held_bytes, single, summarise
from fvs_ros.bench.published_streaming import PublishedStreamingMemory
from fvs_ros.bench.shapes import MemoryShape
from fvs_ros.memory.streaming import CANDIDATES, StreamingFlashMemory, micro_cluster_count
from fvs_ros.sources.frame import SECOND_NS

# Steps over which a figure is taken, so that a single disturbance does not decide.
WINDOW = 100
EARLY, SETTLED = 200, 500
BASELINE_STEPS = 300
BASELINE_WINDOW = 10


@dataclass(frozen=True)
class MemoryTargets:
    """What is asked of an update; at published sizes, on two CPU cores and on an H100-class GPU."""

    milliseconds: float
    floor_ratio: float = 3.0
    late_ratio: float = 1.2
    growth: float = 0.01
    baseline_ratio: float = 20.0


TARGETS = {"cpu": MemoryTargets(milliseconds=60.0), "cuda": MemoryTargets(milliseconds=1.0)}


class MixedScenes:
    """Features [P, D] and [P / 4, D] of steps that all differ: two scenes of a pool, mixed anew for each.

    Mixing costs little beside an update and is not timed. What the features hold does not change the cost.
    """

    def __init__(self, shape: MemoryShape, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        generator = torch.Generator(device).manual_seed(seed)

        def rows(count: int, patches: int) -> Tensor:
            size = (count, patches, shape.feature_dim)
            return torch.randn(size, generator=generator, device=device).to(dtype)

        self._high = rows(4, shape.grid.patches)
        self._low = rows(16, shape.grid.low_patches)
        self._choices = torch.Generator().manual_seed(seed)

    def step(self) -> tuple[Tensor, Tensor]:
        """The next step."""
        first, second, high = torch.randint(16, (3,), generator=self._choices).tolist()
        share = float(torch.rand((), generator=self._choices))
        return self._high[high % 4], torch.lerp(self._low[first], self._low[second], share)


def bench_memory(
    shape: MemoryShape, machine: Machine, device: torch.device, dtype: torch.dtype, steps: int, seed: int
) -> list[Measure]:
    """Measures `steps` updates of the streaming memory, and 300 of the published method.

    Args:
        shape: sizes.
        machine: for the floors.
        device: where the memory is.
        dtype: of the features.
        steps: at least 700, so that memory is compared after it has settled.
        seed: of the features.

    Raises:
        ValueError: too few steps.
    """
    if steps < SETTLED + 2 * WINDOW:
        raise ValueError(f"asked for {steps} steps; the figures need at least {SETTLED + 2 * WINDOW}")
    targets = TARGETS[device.type]
    scenes = MixedScenes(shape, device, dtype, seed)
    updates, snapshots, memory_bytes = _run_streaming(shape, device, dtype, scenes, steps)
    baseline = _run_published(shape, device, scenes, seed)

    floor_ms = _update_bytes(shape, dtype) / machine.read_bytes_per_s * 1e3
    early = summarise(f"at step {EARLY}", "ms", updates[EARLY - WINDOW : EARLY], floor=floor_ms)
    update = summarise(f"update (last {WINDOW})", "ms", updates[-WINDOW:], floor=floor_ms, target=targets.milliseconds)
    ratio = update.median / early.median
    growth = max(memory_bytes[1:]) / memory_bytes[0] - 1
    speedup = baseline.median / early.median
    return [
        update,
        single("update / floor", "x", update.median / floor_ms, targets.floor_ratio),
        early,
        single(f"step {steps} / step {EARLY}", "x", ratio, targets.late_ratio),
        summarise("snapshot", "ms", snapshots),
        single(f"growth since step {SETTLED}", "x", growth, targets.growth),
        baseline,
        summarise("published / ours", "x", [speedup], target=targets.baseline_ratio, least=True),
    ]


def _update_bytes(shape: MemoryShape, dtype: torch.dtype) -> int:
    """Bytes that an update cannot do without touching.

    One pass over all means; the new step read and written; the two means joined read and one written; the low
    features of both clusters' candidates read, to choose among them.
    """
    row = shape.grid.low_patches * shape.feature_dim
    high = shape.grid.patches * shape.feature_dim
    means = micro_cluster_count(shape.config) + 2
    return (means + 3) * row * 4 + (2 * high + (2 + 2 * CANDIDATES) * row) * dtype.itemsize


def _run_streaming(
    shape: MemoryShape, device: torch.device, dtype: torch.dtype, scenes: MixedScenes, steps: int
) -> tuple[list[float], list[float], list[int]]:
    """Milliseconds of each update and of a few snapshots, and bytes of memory from step 500 on."""
    memory = StreamingFlashMemory(shape.config, shape.grid, shape.feature_dim, device=device, dtype=dtype)
    watch = Stopwatch(device)
    updates, snapshots, memory_bytes = [], [], []
    with Progress(transient=True) as progress:
        for index in progress.track(range(steps), description="streaming memory"):
            high, low = scenes.step()
            stamp = 2 * index * SECOND_NS
            updates.append(watch.milliseconds(lambda: memory.append(high, low, stamp, stamp + SECOND_NS)))  # noqa: B023
            if index % WINDOW == WINDOW - 1:
                snapshots.append(watch.milliseconds(memory.snapshot))
                if index + 1 >= SETTLED:
                    memory_bytes.append(held_bytes(device))
    return updates, snapshots, memory_bytes


def _run_published(shape: MemoryShape, device: torch.device, scenes: MixedScenes, seed: int) -> Measure:
    """Milliseconds of an update of the published method around step 300; the steps before are not clustered."""
    memory = PublishedStreamingMemory(shape.config, torch.Generator(device).manual_seed(seed))
    watch = Stopwatch(device)
    samples: Sequence[float] = []
    with Progress(transient=True) as progress:
        for _ in progress.track(range(BASELINE_STEPS), description="published method"):
            high, low = scenes.step()
            samples = [*samples, watch.milliseconds(lambda: memory.append(high, low))][-BASELINE_WINDOW:]  # noqa: B023
    return summarise(f"published, step {BASELINE_STEPS}", "ms", samples)
