import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fvs_ros.memory.ward import cheapest_pair, merge_distances


def clusters(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(count, 5, dtype=torch.float64, generator=generator)
    weights = torch.randint(1, 9, (count,), generator=generator).double()
    return means, weights, torch.cdist(means, means).square()


def sum_of_squares(points: Tensor, weights: Tensor) -> Tensor:
    mean = (points * weights[:, None]).sum(0) / weights.sum()
    return ((points - mean).square().sum(1) * weights).sum()


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 99))
def test_the_cheapest_pair_adds_least_to_the_sum_of_squares(count: int, seed: int) -> None:
    means, weights, distances = clusters(count, seed)
    first, second = cheapest_pair(distances, weights, torch.arange(count).double())
    added = {
        (i, j): float(sum_of_squares(means[[i, j]], weights[[i, j]])) for i in range(count) for j in range(i + 1, count)
    }
    assert (int(first), int(second)) == min(added, key=added.__getitem__)


def test_absent_clusters_are_not_merged() -> None:
    _, weights, distances = clusters(5, seed=1)
    weights[[0, 2, 4]] = 0
    first, second = cheapest_pair(distances, weights, torch.zeros(5, dtype=torch.float64))
    assert (int(first), int(second)) == (1, 3)


def test_of_equally_cheap_pairs_neighbours_in_time_are_merged() -> None:
    times = torch.tensor([0.0, 5.0, 9.0, 6.5], dtype=torch.float64)
    first, second = cheapest_pair(torch.zeros(4, 4, dtype=torch.float64), torch.ones(4, dtype=torch.float64), times)
    assert (int(first), int(second)) == (1, 3)


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 99))
def test_merged_distances_are_those_of_the_merged_mean(count: int, seed: int) -> None:
    means, weights, distances = clusters(count, seed)
    merge_distances(distances, weights, torch.tensor([0]), torch.tensor([count - 1]))
    means[0] = (means[0] * weights[0] + means[-1] * weights[-1]) / (weights[0] + weights[-1])
    expected = torch.cdist(means, means).square()
    assert torch.allclose(distances[0, :-1], expected[0, :-1])
    assert torch.equal(distances[0, :-1], distances[:-1, 0])
