import itertools

import pytest
import torch
from torch import Tensor

from fvs_ros.memory.slot_reduction import agglomerate, reduce_clusters, refine, segment_time, sum_of_squares
from fvs_ros.memory.ward import cheapest_pair, merge_distances


def micro_clusters(count: int, seed: int, features: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(count, features, dtype=torch.float64, generator=generator)
    weights = torch.randint(1, 9, (count,), generator=generator).double()
    return torch.cdist(means, means).square(), weights, torch.arange(count).double(), means


def direct_sum_of_squares(means: Tensor, weights: Tensor, labels: Tensor) -> float:
    total = 0.0
    for label in labels.unique():
        points, mass = means[labels == label], weights[labels == label, None]
        total += float(((points - (points * mass).sum(0) / mass.sum()).square() * mass).sum())
    return total


def test_the_sum_of_squares_needs_distances_only() -> None:
    distances, weights, _, means = micro_clusters(12, seed=3)
    labels = torch.arange(12) % 4
    expected = direct_sum_of_squares(means, weights, labels)
    assert float(sum_of_squares(distances, weights, labels, 4)) == pytest.approx(expected)


def test_segments_of_time_are_the_best_ones() -> None:
    distances, weights, _, means = micro_clusters(9, seed=4)
    labels = segment_time(distances, weights, 3)
    best = min(
        direct_sum_of_squares(means, weights, torch.tensor([0] * a + [1] * (b - a) + [2] * (9 - b)))
        for a, b in itertools.combinations(range(1, 9), 2)
    )
    assert labels.tolist() == sorted(labels.tolist())
    assert direct_sum_of_squares(means, weights, labels) == pytest.approx(best)


def test_agglomeration_finds_scenes_and_their_returns() -> None:
    scenes = torch.tensor([0, 1, 0, 2, 1, 1, 2, 0])
    means = 10.0 * scenes[:, None].double() + 0.1 * torch.arange(8)[:, None]
    distances = torch.cdist(means, means).square()
    labels = agglomerate(distances, torch.ones(8, dtype=torch.float64), torch.arange(8).double(), 3)
    assert torch.equal(labels[:, None] == labels, scenes[:, None] == scenes)


@pytest.mark.parametrize("seed", range(8))
def test_refinement_improves_and_ends_where_no_single_move_helps(seed: int) -> None:
    distances, weights, _, means = micro_clusters(14, seed)
    labels = torch.arange(14) % 5
    before = direct_sum_of_squares(means, weights, labels)
    for _ in range(20):
        labels = refine(distances, weights, labels, 5)
    after = direct_sum_of_squares(means, weights, labels)
    assert after < before
    assert labels.unique().numel() == 5
    for index, slot in itertools.product(range(14), range(5)):
        moved = labels.clone()
        moved[index] = slot
        if moved.unique().numel() == 5:
            assert direct_sum_of_squares(means, weights, moved) >= after * (1 - 1e-6)


@pytest.mark.parametrize("slots", [1, 2, 7])
def test_every_slot_gets_a_micro_cluster(slots: int) -> None:
    distances, weights, times, _ = micro_clusters(7, seed=5)
    labels = reduce_clusters(distances, weights, times, slots)
    assert sorted(labels.unique().tolist()) == list(range(slots))


def plain_agglomerate(distances: Tensor, weights: Tensor, times: Tensor, slots: int) -> Tensor:
    """`agglomerate` with the costs of all pairs computed anew for each merge."""
    distances, weights, times = distances.clone(), weights.clone(), times.clone()
    heads = torch.arange(len(weights))
    for _ in range(len(weights) - slots):
        first, second = cheapest_pair(distances, weights, times)
        total = weights[first] + weights[second]
        merge_distances(distances, weights, first, second)
        times[first] = torch.lerp(times[first], times[second], weights[second] / total)
        weights[first], weights[second] = total, 0
        heads[heads == second] = first
    return ((weights > 0).cumsum(0) - 1)[heads]


@pytest.mark.parametrize("repeated", [1, 3, 20])
@pytest.mark.parametrize("seed", range(4))
def test_costs_that_are_kept_agree_with_those_computed_anew(seed: int, repeated: int) -> None:
    """Also where many micro-clusters are identical, so that merges tie."""
    distances, weights, times, _ = micro_clusters(20, seed)
    copies = torch.arange(20) // repeated
    distances = distances[copies][:, copies]
    for slots in (1, 7, 19):
        labels = agglomerate(distances, weights, times, slots)
        assert torch.equal(labels, plain_agglomerate(distances, weights, times, slots))


def test_identical_micro_clusters_become_segments_of_equal_length() -> None:
    still = torch.zeros(16, 16, dtype=torch.float64)
    labels = reduce_clusters(still, torch.ones(16, dtype=torch.float64), torch.arange(16).double(), 4)
    assert labels.bincount().tolist() == [4, 4, 4, 4]


def test_a_drift_is_segmented_better_than_agglomeration_alone_does() -> None:
    means = torch.arange(30, dtype=torch.float64)[:, None]
    distances, weights = torch.cdist(means, means).square(), torch.ones(30, dtype=torch.float64)
    labels = reduce_clusters(distances, weights, means[:, 0], 5)
    assert labels.bincount().tolist() == [6] * 5
