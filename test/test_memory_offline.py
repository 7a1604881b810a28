import pytest
import torch

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.snapshot import PatchGrid, StepFeatures

GRID = PatchGrid(4, 4)
CONFIG = FlashMemoryConfig(csm_slots=3, dam_slots=2)


def scenes(labels: list[int]) -> StepFeatures:
    """Steps that show scene 0, 1, 2...: features far apart between scenes, a step's own number within."""
    centres = torch.tensor(labels, dtype=torch.float32)[:, None, None] * 10
    own = torch.arange(len(labels), dtype=torch.float32)[:, None, None] * 0.1
    return StepFeatures((centres + own).expand(-1, 16, 5).clone(), (centres + own).expand(-1, 4, 5).clone())


def test_a_clip_shorter_than_the_detail_memory_is_kept_whole() -> None:
    features = scenes([4, 7])
    snapshot = build_memory(features, GRID, CONFIG)
    assert torch.equal(snapshot.dam, features.high)
    assert torch.equal(snapshot.csm, features.low)
    assert snapshot.dam_steps.tolist() == snapshot.dam_slots.tolist() == [0, 1]
    assert snapshot.tokens == 2 * 4 + 2 * 1


def test_a_clip_that_fits_the_csm_is_not_clustered() -> None:
    features = scenes([4, 7, 4])
    snapshot = build_memory(features, GRID, CONFIG)
    assert torch.equal(snapshot.csm, features.low)
    assert snapshot.csm_weights.tolist() == [1, 1, 1]
    assert snapshot.dam.shape[0] == 2


def test_a_longer_clip_keeps_the_nearest_step_of_the_largest_clusters() -> None:
    features = scenes([1, 5, 5, 5, 1, 1, 1, 1, 9])
    start = torch.arange(9) * 2_000
    snapshot = build_memory(
        features, GRID, CONFIG, start_ns=start, end_ns=start + 1_000, initial_rows=torch.tensor([0, 1, 8])
    )
    # Chronological: scene 5 (steps 1-3, mean 2), scene 1 (steps 0 and 4-7, mean 4.4), scene 9 (step 8).
    assert snapshot.csm_weights.tolist() == [3, 5, 1]
    torch.testing.assert_close(snapshot.csm_times, torch.tensor([2.0, 4.4, 8.0]))
    assert snapshot.csm_start_ns.tolist() == [2_000, 0, 16_000]
    assert snapshot.csm_end_ns.tolist() == [7_000, 15_000, 17_000]
    assert snapshot.dam_slots.tolist() == [1, 0]
    assert snapshot.dam_steps.tolist() == [4, 2]  # nearest to the means of the largest and of the second cluster
    assert torch.equal(snapshot.dam, features.high[[4, 2]])
    assert snapshot.dam_stamps_ns.tolist() == [8_000, 4_000]
    assert torch.equal(snapshot.features(), torch.cat([snapshot.dam.reshape(-1, 5), snapshot.csm.reshape(-1, 5)]))


def test_without_stamps_frames_are_one_second_apart() -> None:
    snapshot = build_memory(scenes([1, 2]), GRID, CONFIG)
    assert snapshot.csm_start_ns.tolist() == [0, 2_000_000_000]
    assert snapshot.csm_end_ns.tolist() == [1_000_000_000, 3_000_000_000]


def test_features_of_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 16, 5\).*8 x 4 grid"):
        build_memory(scenes([1, 2]), PatchGrid(8, 4), CONFIG)


@pytest.mark.parametrize("size", [(4, 6), (0, 4), (3, 4)])
def test_a_grid_that_cannot_merge_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        PatchGrid(*size)
