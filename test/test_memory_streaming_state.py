"""A streaming memory that is saved goes on as if never stopped, and one saved with other settings is refused."""

import dataclasses

import pytest
import torch
from memory_steps import append_all, assert_same, empty_memory, random_steps, take
from safetensors.torch import load, save

from fvs_ros.memory import clustered_steps
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.memory.streaming import StreamingFlashMemory


@pytest.mark.parametrize("steps", [2, 20, 75])
def test_a_saved_memory_goes_on_as_if_never_stopped(steps: int) -> None:
    features = random_steps(steps + 30)
    memory = append_all(empty_memory(5, 3, 3), take(features, 0, steps))
    saved = save(memory.state_dict())
    restored = empty_memory(5, 3, 3)
    restored.load_state_dict(load(saved))
    assert_same(memory.snapshot(), restored.snapshot())
    for later in (memory, restored):
        append_all(later, take(features, steps, steps + 30), first=steps)
    assert_same(memory.snapshot(), restored.snapshot())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            empty_memory(6, 3, 3, window_slots=1),
            "csm_slots 5 where this one has 6, micro_clusters 26 where",
        ),
        (empty_memory(5, 2, 3, window_slots=1), "dam_slots 3 where this one has 2;"),
        (empty_memory(5, 3, 3, window_slots=2), "window_slots 1 where this one has 2;"),
        (empty_memory(5, 3, 3), "window_slots 1 where this one has 0;"),
        (empty_memory(5, 3, 3, window_slots=1, horizon=60), "horizon 120 where this one has 60;"),
        (empty_memory(5, 3, 3, window_slots=1, time_code=0.1), "time_code 0.0 where this one has 0.1;"),
        (empty_memory(5, 3, 3, window_slots=1, time_weight=250.0), "time_weight 0.0 where this one has 250.0;"),
        (empty_memory(5, 3, 6, window_slots=1), "feature_dim 3 where this one has 6;"),
        (empty_memory(5, 3, 3, PatchGrid(8, 4), window_slots=1), "grid_height 4 where this one has 8;"),
        (empty_memory(5, 3, 3, PatchGrid(4, 8), window_slots=1), "grid_width 4 where this one has 8;"),
        (empty_memory(5, 3, 3, dtype=torch.bfloat16, window_slots=1), "bfloat16"),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_a_memory_saved_with_other_settings_is_refused(other: StreamingFlashMemory, message: str) -> None:
    state = append_all(empty_memory(5, 3, 3, window_slots=1), random_steps(9)).state_dict()
    before = other.state_dict()
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize(("constant", "setting"), [("CANDIDATES", "candidates"), ("MICRO_EXTRA", "micro_clusters")])
def test_a_memory_of_another_version_with_other_constants_is_refused(
    constant: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = append_all(empty_memory(5, 3, 3), random_steps(9)).state_dict()
    monkeypatch.setattr(clustered_steps, constant, getattr(clustered_steps, constant) + 1)
    with pytest.raises(ValueError, match=rf"{setting} (\d+) where this one has (?!\1)\d+"):
        empty_memory(5, 3, 3).load_state_dict(state)


def test_every_setting_of_the_memory_is_saved() -> None:
    saved = empty_memory(5, 3, 3).state_dict()
    assert {f"settings.{field.name}" for field in dataclasses.fields(FlashMemoryConfig)} <= saved.keys()


def test_a_state_with_missing_or_unknown_tensors_is_refused() -> None:
    memory = empty_memory(5, 3, 3)
    state = memory.state_dict()
    del state["micro.norms"]
    with pytest.raises(ValueError, match=r"lacks \['micro.norms'\] and holds the unknown \['weights'\]"):
        memory.load_state_dict({**state, "weights": torch.zeros(1)})
