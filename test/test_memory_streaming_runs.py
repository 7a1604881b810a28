"""Runs of like steps that enter a streaming memory at once, as those of an episode store do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from memory_steps import GRID, append_all, assert_same, empty_memory, random_steps, take

from fvs_ros.memory import clustered_steps
from fvs_ros.memory.clustered_steps import micro_cluster_count
from fvs_ros.memory.config import SPATIAL_METHODS, FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.memory.streaming import StreamingFlashMemory


def memory_of(temporal: str, spatial: str) -> StreamingFlashMemory:
    config = FlashMemoryConfig(
        csm_slots=5, dam_slots=3, window_slots=2, temporal_method=temporal, spatial_method=spatial
    )
    return StreamingFlashMemory(config, GRID, 3, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("spatial", SPATIAL_METHODS)
def test_a_run_of_a_young_memory_is_as_many_equal_steps(spatial: str) -> None:
    features = random_steps(4)
    runs, single = memory_of("kmeans_ordered", spatial), memory_of("kmeans_ordered", spatial)
    first = 0
    for step, weight in enumerate((3, 1, 8, 2)):
        start, end = 10 * first, 10 * (first + weight)
        runs.append_run(features.high[step], features.low[step], start, end, start, weight)
        for copy in range(weight):
            single.append(features.high[step], features.low[step], start + 10 * copy, start + 10 * copy + 10)
        first += weight
    assert runs.steps == single.steps == 14
    assert_same(runs.snapshot(), single.snapshot())


def test_a_run_beyond_the_capacity_is_one_cluster_of_its_weight_time_and_span() -> None:
    config = FlashMemoryConfig(csm_slots=5, dam_slots=3)
    features = random_steps(60)
    memory = append_all(empty_memory(5, 3, 3), take(features, 0, 40))
    memory.append_run(features.high[50], features.low[50] + 100, 1_000, 9_000, 4_000, 500)
    assert memory.steps == 540
    taken = memory.snapshot()
    assert taken.csm_weights.sum() == 540
    slot = int(taken.csm_weights.argmax())
    assert taken.csm_weights[slot] == 500
    assert torch.equal(taken.csm[slot], features.low[50] + 100)
    assert taken.csm_times[slot] == 40 + 499 // 2
    assert (int(taken.csm_start_ns[slot]), int(taken.csm_end_ns[slot])) == (1_000, 9_000)
    moment = taken.dam_slots.tolist().index(slot)
    assert taken.dam_stamps_ns[moment] == 4_000
    assert torch.equal(taken.dam[moment], features.high[50])
    assert micro_cluster_count(config) < 40
    append_all(memory, take(features, 51, 60), first=100)
    assert memory.snapshot().csm_weights.sum() == 549


@pytest.mark.parametrize("methods", [("sample", "sample"), ("kmeans_ordered", "sample")], ids=" ".join)
def test_evenly_spaced_steps_and_the_window_of_a_long_run_are_those_of_single_steps(methods: tuple[str, str]) -> None:
    features = random_steps(3)
    runs, single = memory_of(*methods), memory_of(*methods)
    for step, weight in enumerate((30, 70, 33)):
        runs.append_run(features.high[step], features.low[step], 0, 0, 0, weight)
        for _ in range(weight):
            single.append(features.high[step], features.low[step], 0, 0)

    def sampled(taken: MemorySnapshot) -> list[torch.Tensor]:
        return [taken.dam, taken.dam_steps, taken.window, *([taken.csm] if methods[0] == "sample" else [])]

    for found, expected in zip(sampled(runs.snapshot()), sampled(single.snapshot()), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("start", "end", "keyframe", "weight"), [(0, 10, 5, 0), (0, 10, 11, 1), (5, 10, 4, 1), (10, 5, 7, 1)]
)
def test_a_run_of_no_steps_or_with_stamps_out_of_order_is_refused(
    start: int, end: int, keyframe: int, weight: int
) -> None:
    memory, features = empty_memory(5, 3, 3), random_steps(1)
    with pytest.raises(ValueError, match=r"a run of|ends at"):
        memory.append_run(features.high[0], features.low[0], start, end, keyframe, weight)
    assert memory.steps == 0


def test_a_recorded_update_takes_weight_and_stamps_of_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA, where one update is recorded and replayed: what changes must come through tensors that stay."""

    class Called:
        def __init__(self, function: Callable[[], Any], warm_up: bool = True) -> None:
            self.function = function

        def __call__(self) -> Any:
            return self.function()

    monkeypatch.setattr(clustered_steps, "CapturedCall", Called)
    plain, recorded = (memory_of("kmeans_ordered", "klarge_retrieve") for _ in range(2))
    assert recorded._clustered is not None
    recorded._clustered.captures = True
    features = random_steps(60)
    for memory in (plain, recorded):
        append_all(memory, take(features, 0, 35))
        for step, weight in ((40, 7), (41, 300), (42, 1)):
            memory.append_run(features.high[step], features.low[step], 10 * step, 10 * step + 9, 10 * step + 4, weight)
        append_all(memory, take(features, 50, 60), first=50)
    assert recorded._clustered.update_graph is not None
    assert_same(plain.snapshot(), recorded.snapshot())
