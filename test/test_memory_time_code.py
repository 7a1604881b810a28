import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.memory.time_code import memory_time_code

GRID, WIDTH = PatchGrid(4, 8), 32


def codes(steps: int, config: FlashMemoryConfig) -> tuple[MemorySnapshot, Tensor]:
    features = StepFeatures(torch.randn(steps, GRID.patches, 3), torch.randn(steps, GRID.low_patches, 3))
    snapshot = build_memory(features, GRID, config, generator=torch.Generator().manual_seed(0))
    return snapshot, memory_time_code(snapshot, config, WIDTH)


def test_each_token_has_the_code_of_its_step() -> None:
    config = FlashMemoryConfig(csm_slots=8, dam_slots=3, window_slots=2, time_code=0.5)
    snapshot, code = codes(5, config)
    assert code.shape == (snapshot.tokens, WIDTH)
    dam, csm, window = code.split([3 * GRID.dam_tokens, 5 * GRID.csm_tokens, 2 * GRID.dam_tokens])
    by_step = csm.view(5, GRID.csm_tokens, WIDTH)
    assert torch.equal(by_step, by_step[:, :1].expand_as(by_step))
    for step, tokens in zip(snapshot.dam_steps.tolist(), dam.view(3, -1, WIDTH), strict=True):
        assert torch.equal(tokens, by_step[step, :1].expand_as(tokens))
    newest = window.view(2, -1, WIDTH)
    assert torch.equal(newest, by_step[3:, :1].expand_as(newest))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 400), st.sampled_from([0.1, 2.0]))
def test_its_size_is_the_configured_one_for_streams_of_any_length(steps: int, size: float) -> None:
    config = FlashMemoryConfig(csm_slots=6, dam_slots=2, time_code=size)
    _, code = codes(steps, config)
    torch.testing.assert_close(code.square().mean(dim=1).sqrt(), torch.full((code.shape[0],), size))


@pytest.mark.parametrize("steps", [2, 120, 600])
def test_steps_can_be_told_apart(steps: int) -> None:
    config = FlashMemoryConfig(csm_slots=steps, dam_slots=1, time_code=1.0)
    _, code = codes(steps, config)
    slots = code[GRID.dam_tokens :: GRID.csm_tokens]
    apart = torch.cdist(slots, slots) + 10 * torch.eye(steps)
    # Two vectors of this size that have nothing to do with each other are 8 apart.
    assert apart.min() > 0.2


def test_the_newest_step_has_the_same_age_in_any_stream() -> None:
    config = FlashMemoryConfig(csm_slots=200, dam_slots=1, time_code=1.0)
    newest = [codes(steps, config)[1][-1] for steps in (20, 200)]
    age = slice(WIDTH // 2, None)
    assert torch.equal(newest[0][age], newest[1][age])
    assert not torch.allclose(newest[0], newest[1])
