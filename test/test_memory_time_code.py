from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.memory.time_code import check_clock_width, memory_clock_code, memory_time_code

GRID, WIDTH = PatchGrid(4, 8), 32
HOUR_NS = 3600 * 10**9
# Nine o'clock in the morning, UTC, of a day in 2026.
MORNING_NS = 1_790_000_000 * 10**9 // (24 * HOUR_NS) * 24 * HOUR_NS + 9 * HOUR_NS


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


def clock(stamps_ns: list[int], config: FlashMemoryConfig) -> tuple[MemorySnapshot, Tensor]:
    """A memory whose steps are one moment each, and its code."""
    count = len(stamps_ns)
    features = StepFeatures(torch.randn(count, GRID.patches, 3), torch.randn(count, GRID.low_patches, 3))
    stamps = torch.tensor(stamps_ns)
    random = torch.Generator().manual_seed(0)
    snapshot = build_memory(features, GRID, config, start_ns=stamps, end_ns=stamps, generator=random)
    return snapshot, memory_clock_code(snapshot, config, WIDTH)


def clock_of(stamp_ns: int, size: float = 1.0) -> Tensor:
    """The code [H] of one moment."""
    return clock([stamp_ns], FlashMemoryConfig(csm_slots=8, dam_slots=1, clock_code=size))[1][-1]


def test_each_token_has_the_clock_code_of_its_stamp() -> None:
    """Keyframes first, then slots, then the window."""
    config = FlashMemoryConfig(csm_slots=8, dam_slots=3, window_slots=2, clock_code=0.5)
    snapshot, code = clock([MORNING_NS + step * HOUR_NS for step in range(5)], config)
    assert code.shape == (snapshot.tokens, WIDTH)
    assert code.dtype == torch.float32
    dam, csm, window = code.split([3 * GRID.dam_tokens, 5 * GRID.csm_tokens, 2 * GRID.dam_tokens])
    moments = torch.stack([clock_of(MORNING_NS + step * HOUR_NS, 0.5) for step in range(5)])
    assert torch.equal(csm, moments.repeat_interleave(GRID.csm_tokens, 0))
    assert torch.equal(dam, moments[snapshot.dam_steps].repeat_interleave(GRID.dam_tokens, 0))
    assert torch.equal(window, moments[[4, 4]].repeat_interleave(GRID.dam_tokens, 0))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**62), st.sampled_from([0.1, 2.0]))
def test_its_size_is_the_configured_one_at_any_time(stamp_ns: int, size: float) -> None:
    assert clock_of(stamp_ns, size).square().mean().sqrt().item() == pytest.approx(size, rel=1e-4)


def test_the_same_time_of_day_has_the_same_code_and_another_hour_another() -> None:
    code = clock_of(MORNING_NS)
    assert torch.equal(clock_of(MORNING_NS + 24 * HOUR_NS), code)
    apart = {
        hours: (clock_of(MORNING_NS + round(hours * HOUR_NS)) - code).norm().item() for hours in (0.02, 0.25, 1, 12)
    }
    # Two vectors of this size that have nothing to do with each other are 8 apart.
    assert apart[0.02] < 1
    assert min(apart[0.25], apart[1], apart[12]) > 2
    assert clock_of(0).tolist() == clock_of(24 * HOUR_NS).tolist()


def test_a_slot_of_many_steps_has_the_code_of_its_middle_and_the_window_that_of_the_newest_step() -> None:
    """The newest step looks like the first, so that its slot is the first in order of mean times."""
    config = FlashMemoryConfig(csm_slots=2, dam_slots=1, window_slots=1, clock_code=1.0)
    memory = StreamingFlashMemory(config, GRID, 3, device=torch.device("cpu"), dtype=torch.float32)
    looks = torch.tensor([0.0, 0.0, 9.0, 0.0])[:, None, None]
    stamps = [MORNING_NS + step * HOUR_NS for step in range(4)]
    high, low = looks.expand(4, GRID.patches, 3), looks.expand(4, GRID.low_patches, 3)
    memory.append(high, low, stamps, stamps)
    snapshot = memory.snapshot()
    assert snapshot.csm_end_ns.tolist() == [stamps[3], stamps[2]]
    code = memory_clock_code(snapshot, config, WIDTH)
    assert torch.equal(code[GRID.dam_tokens], clock_of(MORNING_NS + 3 * HOUR_NS // 2))
    assert torch.equal(code[-1], clock_of(stamps[3]))


def test_what_a_control_leaves_of_a_memory_keeps_its_clock_code() -> None:
    config = FlashMemoryConfig(csm_slots=8, dam_slots=3, window_slots=2, clock_code=0.5)
    whole, code = clock([MORNING_NS + step * HOUR_NS for step in range(5)], config)
    dam, _, window = code.split([3 * GRID.dam_tokens, 5 * GRID.csm_tokens, 2 * GRID.dam_tokens])
    without_csm = replace(whole, csm=whole.csm[:0], csm_times=whole.csm_times[:0])
    assert torch.equal(memory_clock_code(without_csm, config, WIDTH), torch.cat([dam, window]))
    nothing = replace(without_csm, dam=whole.dam[:0], dam_stamps_ns=whole.dam_stamps_ns[:0], window=whole.window[:0])
    assert memory_clock_code(nothing, config, WIDTH).shape == (0, WIDTH)


def test_a_memory_of_keyframes_and_a_window_alone_has_a_clock_code() -> None:
    config = FlashMemoryConfig(csm_slots=0, dam_slots=2, window_slots=1, spatial_method="sample", clock_code=1.0)
    snapshot, code = clock([MORNING_NS, MORNING_NS + HOUR_NS], config)
    assert code.shape == (snapshot.tokens, WIDTH)
    assert torch.equal(code[-1], clock_of(MORNING_NS + HOUR_NS))


@pytest.mark.parametrize("width", [16, 96, 3584])
def test_a_width_that_no_clock_code_fits_is_refused(width: int) -> None:
    snapshot, _ = codes(3, FlashMemoryConfig(csm_slots=4, dam_slots=1))
    message = f"width is {width}; a clock code needs a power of 2 from 32 up, so set clock_code to 0"
    with pytest.raises(ValueError, match=message):
        memory_clock_code(snapshot, FlashMemoryConfig(clock_code=1.0), width)
    with pytest.raises(ValueError, match=message):
        check_clock_width(width)
