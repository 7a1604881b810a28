import pytest
import torch

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.keyframes import NO_SLOT
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


def with_methods(temporal: str, spatial: str, csm_slots: int = 3, dam_slots: int = 2) -> FlashMemoryConfig:
    return FlashMemoryConfig(csm_slots=csm_slots, dam_slots=dam_slots, temporal_method=temporal, spatial_method=spatial)


@pytest.mark.parametrize(
    ("spatial", "slots", "steps"),
    [
        # Clusters: scene 5 (steps 1-3, mean 2), scene 1 (steps 0 and 4-7, mean 4.4), scene 9 (step 8).
        ("klarge_retrieve", [1, 0], [4, 2]),
        ("nearest", [1, 0], [4, 2]),
        ("sample", [NO_SLOT, NO_SLOT], [0, 8]),
    ],
)
def test_keyframes_are_chosen_by_the_spatial_method(spatial: str, slots: list[int], steps: list[int]) -> None:
    features = scenes([1, 5, 5, 5, 1, 1, 1, 1, 9])
    snapshot = build_memory(
        features, GRID, with_methods("kmeans_ordered", spatial), initial_rows=torch.tensor([0, 1, 8])
    )
    assert snapshot.dam_slots.tolist() == slots
    assert snapshot.dam_steps.tolist() == steps
    assert torch.equal(snapshot.dam, features.high[steps])


def test_the_cosine_method_takes_the_step_least_like_its_cluster_as_published() -> None:
    angles = torch.tensor([0.0, 0.1, 0.2, 1.5, 1.6, 3.0])
    low = torch.stack([angles.cos(), angles.sin()], dim=1).repeat(1, 10).view(6, 4, 5)
    features = StepFeatures(low.repeat(1, 4, 1), low)
    config = with_methods("kmeans_ordered", "klarge_retrieve_cos")
    snapshot = build_memory(features, GRID, config, initial_rows=torch.tensor([0, 3, 5]))
    similarities = torch.nn.functional.cosine_similarity(
        snapshot.csm[snapshot.dam_slots].flatten(1)[:, None], low.flatten(1)[None], dim=2
    )
    assert snapshot.dam_slots.tolist() == [0, 1]
    assert snapshot.dam_steps.tolist() == similarities.argmin(1).tolist() == [5, 0]


def test_a_sampled_csm_holds_evenly_spaced_steps_cut_to_whole_numbers() -> None:
    features = scenes(list(range(10)))
    start = torch.arange(10) * 10
    snapshot = build_memory(features, GRID, with_methods("sample", "sample", 4), start_ns=start, end_ns=start + 5)
    # Of 0, 3, 6, 9 nothing is cut; of 8 steps, 0, 2.33, 4.67 and 7 are.
    assert snapshot.csm_times.tolist() == [0, 3, 6, 9]
    shorter = StepFeatures(features.high[:8], features.low[:8])
    assert build_memory(shorter, GRID, with_methods("sample", "sample", 4)).csm_times.tolist() == [0, 2, 4, 7]
    assert torch.equal(snapshot.csm, features.low[[0, 3, 6, 9]])
    assert snapshot.csm_weights.tolist() == [1, 1, 1, 1]
    assert snapshot.csm_start_ns.tolist() == [0, 30, 60, 90]
    assert snapshot.csm_end_ns.tolist() == [5, 35, 65, 95]


def test_a_length_of_0_leaves_its_memory_empty() -> None:
    features = scenes([1, 5, 5, 9])
    without_dam = build_memory(features, GRID, with_methods("kmeans_ordered", "klarge_retrieve", 3, 0))
    assert (without_dam.dam.shape, without_dam.dam_steps.tolist()) == ((0, 16, 5), [])
    assert torch.equal(without_dam.features(), without_dam.csm.reshape(-1, 5))
    without_csm = build_memory(features, GRID, with_methods("kmeans_ordered", "klarge_retrieve", 0, 2))
    assert (without_csm.csm.shape, without_csm.csm_weights.tolist()) == ((0, 4, 5), [])
    assert without_csm.dam_steps.tolist() == [0, 3]
    assert torch.equal(without_csm.features(), features.high[[0, 3]].reshape(-1, 5))


def test_with_fewer_clusters_than_keyframes_they_are_evenly_spaced() -> None:
    features = scenes([1, 5, 9, 1, 5])
    snapshot = build_memory(features, GRID, with_methods("kmeans_ordered", "klarge_retrieve", 2, 3))
    assert (snapshot.csm.shape[0], snapshot.dam_steps.tolist()) == (2, [0, 2, 4])
