"""What the streaming memory does on a GPU: nothing that waits, and the same as recorded graphs."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from memory_steps import GRID, append_all, assert_same, random_steps, take

from fvs_ros.memory import clustered_steps
from fvs_ros.memory.config import SPATIAL_METHODS, TEMPORAL_METHODS, FlashMemoryConfig
from fvs_ros.memory.snapshot import StepFeatures
from fvs_ros.memory.streaming import StreamingFlashMemory


@pytest.mark.parametrize("temporal", TEMPORAL_METHODS)
@pytest.mark.parametrize("spatial", SPATIAL_METHODS)
def test_off_the_cpu_neither_update_nor_snapshot_reads_a_value_on_the_host(temporal: str, spatial: str) -> None:
    """A meta tensor has no values: whatever would wait for the device, or branch on what is there, raises."""
    device = torch.device("meta")
    config = FlashMemoryConfig(csm_slots=5, dam_slots=3, temporal_method=temporal, spatial_method=spatial)
    memory = StreamingFlashMemory(config, GRID, 3, device=device, dtype=torch.float32)
    features = StepFeatures(torch.zeros(40, 16, 3, device=device), torch.zeros(40, 4, 3, device=device))
    append_all(memory, features)
    assert memory.snapshot().csm.shape == (5, 4, 3)
    assert memory.snapshot(provisional=(features.high[0], features.low[0], 1)).dam.shape == (3, 16, 3)


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize("method", SPATIAL_METHODS)
def test_what_is_recorded_on_cuda_does_the_same_each_time(
    window: int, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded functions, called as they are: all they need comes through tensors that stay."""
    recorded: list[Callable[[], Any]] = []

    class Called:
        NOTHING = SimpleNamespace()

        def __init__(self, function: Callable[[], Any], warm_up: bool = True) -> None:
            recorded.append(function)
            self.function = function
            self.result = function() if warm_up else None

        def __call__(self) -> Any:
            result = self.function()
            if result is None or self.result is None:
                return result
            # As a graph does: into the tensors of the first call.
            for part in ("csm", "keyframes"):
                for name, tensor in vars(getattr(result, part) or self.NOTHING).items():
                    getattr(getattr(self.result, part), name).copy_(tensor)
            return self.result

    monkeypatch.setattr(clustered_steps, "CapturedCall", Called)
    config = FlashMemoryConfig(csm_slots=5, dam_slots=3, window_slots=window, spatial_method=method)
    plain, captured = (
        StreamingFlashMemory(config, GRID, 3, device=torch.device("cpu"), dtype=torch.float32) for _ in range(2)
    )
    assert captured._clustered is not None
    captured._clustered.captures = True
    features = random_steps(70)
    older = []
    for step in range(69):
        for memory in (plain, captured):
            append_all(memory, take(features, step, step + 1), first=step)
        provisional = (features.high[step + 1], features.low[step + 1], 10 * step + 10)
        snapshots = captured.snapshot(), captured.snapshot(provisional=provisional)
        older.append((snapshots, (plain.snapshot(), plain.snapshot(provisional=provisional))))
    assert len(recorded) == 3, "the update, and snapshots without and with a provisional step"
    for found, expected in older:
        assert_same(found[0], expected[0])
        assert_same(found[1], expected[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_recorded_update_is_the_plain_one() -> None:
    config = FlashMemoryConfig(csm_slots=5, dam_slots=3)
    plain, captured = (
        StreamingFlashMemory(config, GRID, 3, device=torch.device("cuda"), dtype=torch.float32) for _ in range(2)
    )
    assert plain._clustered is not None
    assert captured._clustered is not None
    plain._clustered.captures = False
    features = random_steps(120)
    features = StepFeatures(features.high.cuda(), features.low.cuda())
    for memory in (plain, captured):
        append_all(memory, features)
    assert captured._clustered.update_graph is not None
    for left, right in zip(plain.state_dict().values(), captured.state_dict().values(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)
    one, other = plain.snapshot(), captured.snapshot()
    assert torch.equal(one.dam_steps, other.dam_steps)
    torch.testing.assert_close(one.csm, other.csm)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("temporal", TEMPORAL_METHODS)
@pytest.mark.parametrize("spatial", SPATIAL_METHODS)
def test_on_cuda_neither_update_nor_snapshot_waits_for_the_device(temporal: str, spatial: str) -> None:
    device = torch.device("cuda")
    config = FlashMemoryConfig(csm_slots=5, dam_slots=3, temporal_method=temporal, spatial_method=spatial)
    memory = StreamingFlashMemory(config, GRID, 3, device=device, dtype=torch.bfloat16)
    features = random_steps(60)
    features = StepFeatures(features.high.to(device), features.low.to(device))
    append_all(memory, features)
    # Recording waits, once.
    memory.snapshot(provisional=(features.high[0], features.low[0], 600))
    torch.cuda.set_sync_debug_mode("error")
    try:
        append_all(memory, features, first=60)
        memory.snapshot(provisional=(features.high[0], features.low[0], 1_200))
    finally:
        torch.cuda.set_sync_debug_mode("default")
