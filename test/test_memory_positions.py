import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.positions import memory_positions, rescale_times, text_position
from fvs_ros.memory.recalled import recalled_memory
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures


def memory(steps: int, grid: PatchGrid, config: FlashMemoryConfig) -> MemorySnapshot:
    features = StepFeatures(torch.randn(steps, grid.patches, 3), torch.randn(steps, grid.low_patches, 3))
    return build_memory(features, grid, config, generator=torch.Generator().manual_seed(0))


def test_keyframes_stand_at_their_step_and_csm_slots_behind_them() -> None:
    grid, config = PatchGrid(4, 8), FlashMemoryConfig(csm_slots=3, dam_slots=2)
    snapshot = memory(2, grid, config)
    time, row, column = memory_positions(snapshot, first=10, horizon=120)
    dam_tokens = 2 * 8
    assert time[:dam_tokens].tolist() == [10] * 8 + [11] * 8
    assert row[:8].tolist() == [10] * 4 + [11] * 4
    assert column[:8].tolist() == [10, 11, 12, 13] * 2
    assert time[dam_tokens:].tolist() == [26, 26, 27, 27]
    assert row[dam_tokens:].tolist() == [26] * 4
    assert column[dam_tokens:].tolist() == [26, 27, 26, 27]


def test_the_window_continues_the_time_of_the_csm_slots() -> None:
    grid = PatchGrid(4, 8)
    plain = FlashMemoryConfig(csm_slots=8, dam_slots=2)
    windowed = FlashMemoryConfig(csm_slots=8, dam_slots=2, window_slots=2)
    snapshot = memory(5, grid, windowed)
    positions = memory_positions(snapshot, 10, 120)
    window_tokens = 2 * grid.dam_tokens
    assert positions.shape[1] == snapshot.tokens
    assert torch.equal(positions[:, :-window_tokens], memory_positions(memory(5, grid, plain), 10, 120))
    time, row, column = positions[:, -window_tokens:]
    first = 10 + 2 * grid.dam_tokens
    assert time.tolist() == [first + 3] * 8 + [first + 4] * 8
    assert (row[:8] - first).tolist() == [0] * 4 + [1] * 4
    assert (column[:8] - first).tolist() == [0, 1, 2, 3] * 2
    assert text_position(snapshot, 10, windowed) == text_position(memory(5, grid, plain), 10, plain)


def test_the_text_starts_after_the_slots_not_after_the_steps() -> None:
    grid, config = PatchGrid(4, 4), FlashMemoryConfig(csm_slots=8, dam_slots=4)
    snapshot = memory(40, grid, config)
    assert text_position(snapshot, 4, config) == 4 + 4 * 4 + 8
    assert memory_positions(snapshot, 4, config.horizon)[0].max() > text_position(snapshot, 4, config)


def test_a_wide_frame_can_reach_further_than_the_slots() -> None:
    grid, config = PatchGrid(4, 40), FlashMemoryConfig(csm_slots=3, dam_slots=2)
    assert text_position(memory(3, grid, config), 0, config) == 2 * 40 + 10


def test_times_within_the_horizon_are_rounded_half_to_even() -> None:
    assert rescale_times(torch.tensor([0.0, 4.5, 5.5, 119.0]), 120, 120).tolist() == [0, 4, 6, 119]


@pytest.mark.parametrize("steps", [121, 1000, 1_000_000])
def test_longer_streams_are_rescaled_onto_the_horizon(steps: int) -> None:
    times = torch.tensor([0.0, (steps - 1) / 2, steps - 1.0])
    assert rescale_times(times, steps, 120).tolist() == [0, 60, 119]


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 40),
    slots=st.integers(1, 8),
    details=st.integers(1, 8),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    first=st.integers(0, 50),
    horizon=st.integers(2, 60),
)
def test_invariants_of_any_layout(
    steps: int, slots: int, details: int, rows: int, columns: int, first: int, horizon: int
) -> None:
    grid = PatchGrid(4 * rows, 4 * columns)
    config = FlashMemoryConfig(csm_slots=slots, dam_slots=min(details, slots), horizon=horizon)
    snapshot = memory(steps, grid, config)
    positions = memory_positions(snapshot, first, horizon)
    assert positions.shape == (3, snapshot.tokens)
    dam_tokens = snapshot.dam.shape[0] * grid.dam_tokens
    dam, csm = positions[:, :dam_tokens] - first, positions[:, dam_tokens:] - first - dam_tokens
    for part, height, width in ((dam, 2 * rows, 2 * columns), (csm, rows, columns)):
        time, row, column = part
        assert time.min() >= 0
        assert time.max() <= min(steps, horizon) - 1
        # Each step or slot is a whole picture, read row by row.
        picture = torch.cartesian_prod(torch.arange(height), torch.arange(width)).T
        assert torch.equal(torch.stack([row, column]), picture.repeat(1, len(time) // (height * width)))
    assert (csm[0].diff() >= 0).all()
    after = text_position(snapshot, first, config) - first - dam_tokens
    assert after == max(len(snapshot.csm_weights), rows, columns)


def test_without_a_csm_the_text_starts_behind_the_extent_of_the_keyframes_as_published() -> None:
    config = FlashMemoryConfig(csm_slots=0, dam_slots=5, spatial_method="sample")
    assert text_position(memory(9, PatchGrid(4, 8), config), 10, config) == 10 + 5
    assert text_position(memory(9, PatchGrid(4, 16), config), 10, config) == 10 + 8


def recalled(slots: int, window: int, grid: PatchGrid) -> MemorySnapshot:
    """Slots of a day, of which many share their position on the horizon."""
    stamps = torch.arange(slots) * 10**9
    return recalled_memory(
        torch.randn(slots, grid.low_patches, 3),
        torch.randn(window, grid.patches, 3),
        grid,
        steps=43_200,
        times=torch.arange(slots) * 10.0,
        start_ns=stamps,
        end_ns=stamps,
    )


def test_ranked_slots_stand_at_their_ranks_and_the_window_beside_the_newest() -> None:
    grid, config = PatchGrid(4, 8), FlashMemoryConfig(csm_slots=120, dam_slots=8)
    snapshot = recalled(88, 2, grid)
    positions = memory_positions(snapshot, 10, config.horizon)
    assert positions.shape == (3, snapshot.tokens)
    csm, window = positions[:, : 88 * grid.csm_tokens] - 10, positions[:, 88 * grid.csm_tokens :] - 10
    assert csm[0].tolist() == [slot for slot in range(88) for _ in range(grid.csm_tokens)]
    assert csm[1:, :2].tolist() == [[0, 0], [0, 1]]
    assert window[0].tolist() == [86] * grid.dam_tokens + [87] * grid.dam_tokens
    assert window[1:, : grid.dam_tokens].tolist() == [[0] * 4 + [1] * 4, [0, 1, 2, 3] * 2]


@pytest.mark.parametrize(("slots", "after"), [(1, 2), (88, 88), (200, 200)])
@pytest.mark.parametrize("csm_slots", [0, 8, 120])
def test_the_text_starts_behind_all_ranks_whatever_the_memory_holds_else(
    slots: int, after: int, csm_slots: int
) -> None:
    snapshot, config = recalled(slots, 1, PatchGrid(4, 8)), FlashMemoryConfig(csm_slots=csm_slots, dam_slots=8)
    assert text_position(snapshot, 10, config) == 10 + after
    assert memory_positions(snapshot, 10, config.horizon)[0].max() < text_position(snapshot, 10, config)


def test_as_many_ranks_as_the_horizon_stay_at_trained_positions() -> None:
    snapshot, config = recalled(120, 1, PatchGrid(4, 8)), FlashMemoryConfig(csm_slots=120, dam_slots=8)
    whole = memory(120, PatchGrid(4, 8), config)
    dam_tokens = whole.dam.shape[0] * whole.grid.dam_tokens
    ranks = memory_positions(snapshot, 10, 120)[0, : 120 * whole.grid.csm_tokens]
    assert torch.equal(ranks + dam_tokens, memory_positions(whole, 10, 120)[0, dam_tokens:])


def test_a_window_of_more_steps_than_there_are_ranks_has_positions_for_all_its_tokens() -> None:
    grid = PatchGrid(4, 8)
    snapshot = recalled(2, 3, grid)
    positions = memory_positions(snapshot, 0, 120)
    assert positions.shape == (3, snapshot.tokens)
    assert positions[0, 2 * grid.csm_tokens :: grid.dam_tokens].tolist() == [0, 0, 1]
