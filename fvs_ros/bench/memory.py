"""`fvs bench memory`: the cost of an update of the streaming memory, early and late, beside the published method."""

from __future__ import annotations

import torch
from torch import Tensor

from fvs_ros.bench import targets
from fvs_ros.bench.measure import BenchError, Measurement, Setup, Stopwatch, growth, held_bytes, single, summarise
from fvs_ros.bench.published_streaming import PublishedStreamingMemory
from fvs_ros.bench.shapes import SHAPES, MemoryShape
from fvs_ros.memory.clustered_steps import CANDIDATES, micro_cluster_count
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.sources.frame import SECOND_NS

# Steps per figure, so that a single disturbance does not decide.
WINDOW = 100
EARLY, SETTLED = 200, 500
BASELINE_STEPS = 300
BASELINE_WINDOW = 10


class MixedScenes:
    """Features [P, D] and [P / 4, D] of steps that all differ: each mixes two scenes of a pool.

    Mixing is cheap beside an update and is not timed. The values of the features do not change the cost.
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


def bench_memory(name: str, setup: Setup) -> list[Measurement]:
    """Measures `setup.steps` updates of the streaming memory of the model shape `name`, and 300 of the published one.

    Raises:
        BenchError: fewer than 700 steps, too few to compare memory after it has settled.
    """
    steps, shape = setup.steps, SHAPES[name].memory
    if steps < SETTLED + 2 * WINDOW:
        raise BenchError(f"asked for {steps} steps; the figures need at least {SETTLED + 2 * WINDOW}")
    scenes = MixedScenes(shape, setup.device, setup.dtype, setup.seed)
    updates, snapshots, held = _run_streaming(shape, setup, scenes)
    baseline = _run_published(shape, setup, scenes)

    floor_ms = _update_bytes(shape, setup.dtype) / setup.machine.read_bytes_per_s * 1e3
    early = summarise(f"at step {EARLY}", "ms", updates[EARLY - WINDOW : EARLY], floor=floor_ms)
    target_ms = targets.UPDATE_MS[setup.device.type]
    update = summarise(f"update (last {WINDOW})", "ms", updates[-WINDOW:], floor=floor_ms, target=target_ms)
    late_over_early = update.median / early.median
    speedup = baseline.median / early.median
    return [
        update,
        single("update / floor", "x", update.median / floor_ms, targets.UPDATE_OVER_FLOOR),
        early,
        single(f"step {steps} / step {EARLY}", "x", late_over_early, targets.LATE_OVER_EARLY),
        summarise("snapshot", "ms", snapshots, target=targets.SNAPSHOT_MS.get(setup.device.type)),
        single(f"growth since step {SETTLED}", "x", growth(held), targets.GROWTH),
        baseline,
        single("published / ours", "x", speedup, targets.PUBLISHED_OVER_OURS, least=True),
    ]


def _update_bytes(shape: MemoryShape, dtype: torch.dtype) -> int:
    """Bytes that an update must touch.

    All centroids read once; the new step read and written; two centroids read and their merged one written; the low
    features of both clusters' candidates read, to choose among them.
    """
    row = shape.grid.low_patches * shape.feature_dim
    high = shape.grid.patches * shape.feature_dim
    centroids = micro_cluster_count(shape.config) + 2
    return (centroids + 3) * row * 4 + (2 * high + (2 + 2 * CANDIDATES) * row) * dtype.itemsize


def _run_streaming(shape: MemoryShape, setup: Setup, scenes: MixedScenes) -> tuple[list[float], list[float], list[int]]:
    """Milliseconds of each update and of a snapshot every 100 steps, and bytes held from step 500 on."""
    device = setup.device
    memory = StreamingFlashMemory(shape.config, shape.grid, shape.feature_dim, device=device, dtype=setup.dtype)
    watch = Stopwatch(device)
    updates, snapshots, held = [], [], []
    for index in setup.track(range(setup.steps), "streaming memory"):
        high, low = scenes.step()
        stamp = 2 * index * SECOND_NS
        updates.append(watch.milliseconds(lambda: memory.append(high, low, stamp, stamp + SECOND_NS)))  # noqa: B023
        if index % WINDOW == WINDOW - 1:
            snapshots.append(watch.milliseconds(memory.snapshot))
            if index + 1 >= SETTLED:
                held.append(held_bytes(device))
    return updates, snapshots, held


def _run_published(shape: MemoryShape, setup: Setup, scenes: MixedScenes) -> Measurement:
    """Updates of the published method around step 300."""
    memory = PublishedStreamingMemory(shape.config, torch.Generator(setup.device).manual_seed(setup.seed))
    watch = Stopwatch(setup.device)
    samples: list[float] = []
    for _ in setup.track(range(BASELINE_STEPS), "published method"):
        high, low = scenes.step()
        samples.append(watch.milliseconds(lambda: memory.append(high, low)))  # noqa: B023
    return summarise(f"published, step {BASELINE_STEPS}", "ms", samples[-BASELINE_WINDOW:])
