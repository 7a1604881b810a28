"""What the streaming memory does on a GPU: nothing that waits, and the same as recorded graphs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from memory_steps import GRID, append_all, assert_same, random_steps, take

from fvs_ros.memory import streaming as streaming_module
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import StepFeatures
from fvs_ros.memory.streaming import StreamingFlashMemory


def test_off_the_cpu_neither_update_nor_snapshot_reads_a_value_on_the_host() -> None:
    """A meta tensor has no values: whatever would wait for the device, or branch on what is there, raises."""
    device = torch.device("meta")
    config = FlashMemoryConfig(csm_slots=5, dam_slots=3)
    memory = StreamingFlashMemory(config, GRID, 3, device=device, dtype=torch.float32)
    features = StepFeatures(torch.zeros(40, 16, 3, device=device), torch.zeros(40, 4, 3, device=device))
    append_all(memory, features)
    assert memory.snapshot().csm.shape == (5, 4, 3)
    assert memory.snapshot(provisional=(features.high[0], features.low[0], 1)).dam.shape == (3, 16, 3)


@pytest.mark.parametrize("window", [0, 2])
def test_what_is_recorded_on_cuda_does_the_same_each_time(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded functions, called as they are: all they need comes through tensors that stay."""
    recorded: list[Callable[[], Any]] = []

    class Called:
        def __init__(self, function: Callable[[], Any], warm_up: bool = True) -> None:
            recorded.append(function)
            self.function = function
            self.result = function() if warm_up else None

        def __call__(self) -> Any:
            result = self.function()
            if result is None or self.result is None:
                return result
            # As a graph does: into the tensors of the first call.
            for name in ("slots", "high", "steps", "stamps_ns"):
                getattr(self.result, name).copy_(getattr(result, name))
            for name, tensor in vars(result.csm).items():
                getattr(self.result.csm, name).copy_(tensor)
            return self.result

    monkeypatch.setattr(streaming_module, "CapturedCall", Called)
    config = FlashMemoryConfig(csm_slots=5, dam_slots=3, window_slots=window)
    plain, captured = (
        StreamingFlashMemory(config, GRID, 3, device=torch.device("cpu"), dtype=torch.float32) for _ in range(2)
    )
    captured._captures = True
    captured._new_high, captured._new_low = torch.zeros(16, 3), torch.zeros(4, 3)
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
    plain._captures = False
    features = random_steps(120)
    features = StepFeatures(features.high.cuda(), features.low.cuda())
    for memory in (plain, captured):
        append_all(memory, features)
    assert captured._update_graph is not None
    for left, right in zip(plain.state_dict().values(), captured.state_dict().values(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)
    one, other = plain.snapshot(), captured.snapshot()
    assert torch.equal(one.dam_steps, other.dam_steps)
    torch.testing.assert_close(one.csm, other.csm)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_neither_update_nor_snapshot_waits_for_the_device() -> None:
    device = torch.device("cuda")
    config = FlashMemoryConfig(csm_slots=5, dam_slots=3)
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
