import pytest
import torch
from torch import Tensor

from fvs_ros.memory.micro_clusters import MicroClusters

ONE = torch.ones(1, dtype=torch.float64)


def filled(rows: Tensor, capacity: int, *, time_weight: float = 0.0, horizon: int = 2) -> tuple[MicroClusters, Tensor]:
    """Micro-clusters of the rows, and the one [T] that each row ended in."""
    micro = MicroClusters(capacity, rows.shape[1], torch.device("cpu"), time_weight=time_weight, horizon=horizon)
    micro.set_reference(rows[0])
    labels: list[int] = []
    for index, row in enumerate(rows):
        labels.append(int(micro.spare))
        micro.insert(row, torch.tensor([index]), torch.tensor([10 * index, 10 * index + 5]), ONE)
        if index < capacity:
            micro.occupy()
        else:
            first, second = micro.merge()
            labels = [int(first) if label == int(second) else label for label in labels]
    return micro, torch.tensor(labels)


def test_each_micro_cluster_is_the_mean_of_its_steps() -> None:
    rows = torch.randn(60, 7) + 3
    micro, labels = filled(rows, capacity=9)
    for label in labels.unique():
        steps = torch.nonzero(labels == label)[:, 0]
        assert int(micro.weights[label]) == len(steps)
        assert torch.allclose(micro.centroids[label], rows[steps].mean(0), atol=1e-5)
        assert torch.isclose(micro.times[label], steps.double().mean())
        assert int(micro.start_ns[label]) == 10 * int(steps.min())
        assert int(micro.end_ns[label]) == 10 * int(steps.max()) + 5
    assert micro.weights[micro.spare].item() == 0


def test_distances_kept_incrementally_are_those_of_the_means() -> None:
    for offset in (0, 100):
        micro, labels = filled(torch.randn(300, 64) + offset, capacity=20)
        present = labels.unique()
        means = micro.centroids[present].double()
        expected = torch.cdist(means, means).square()
        kept = micro.distances[present][:, present]
        assert torch.allclose(kept, expected, rtol=1e-3, atol=1e-3)
        norms = (means - micro.centroids[-1].double()).square().sum(1)
        assert torch.allclose(micro.norms[present], norms, rtol=1e-3)


def test_with_a_time_weight_clusters_are_as_far_apart_as_with_time_for_a_coordinate() -> None:
    for steps, horizon in ((300, 100), (60, 100)):
        rows = torch.randn(steps, 16)
        micro, labels = filled(rows, capacity=20, time_weight=0.3, horizon=horizon)
        present = labels.unique()
        scale = min(1, (horizon - 1) / (steps - 1))
        timed = torch.cat([rows.double(), 0.3**0.5 * scale * torch.arange(steps)[:, None]], dim=1)
        means = torch.stack([timed[labels == label].mean(0) for label in present])
        found = micro.timed_distances()[present][:, present]
        assert torch.allclose(found, torch.cdist(means, means).square(), rtol=1e-3, atol=1e-3)


def test_identical_steps_are_at_no_distance() -> None:
    row = torch.randn(1, 5_000) + 10
    micro, labels = filled(torch.cat([torch.randn(1, 5_000), row.expand(40, -1)]), capacity=6)
    still = labels[1:].unique()
    assert torch.equal(micro.distances[still][:, still], torch.zeros(len(still), len(still), dtype=torch.float64))
    assert torch.equal(micro.centroids[still], row.expand(len(still), -1))


def kept_and_floor(gap: float, common: float, spread: float, features: int = 5_000) -> tuple[float, float]:
    """The squared distance kept of two steps far from the first one, and the floor below which it would be rounding.

    Args:
        gap: their true distance, in roots of that floor.
        common: mean of all features.
        spread: of the first step's features about that mean.
        features: of a step.
    """
    reference, step = common + torch.tensor([[spread], [10.0]]) * torch.randn(2, features)
    floor = 2.0**-20 * float((step - reference).norm() * (reference.norm() + (step - reference).norm()))
    direction = torch.nn.functional.normalize(torch.randn(features), dim=0)
    micro, _ = filled(torch.stack([reference, step, step + gap * floor**0.5 * direction]), capacity=3)
    return float(micro.distances[1, 2]), floor


@pytest.mark.parametrize(("common", "spread"), [(0.0, 10.0), (1_000.0, 10.0), (0.0, 0.0)])
def test_a_distance_within_rounding_counts_as_none(common: float, spread: float) -> None:
    assert [kept_and_floor(0.1, common, spread)[0] for _ in range(20)] == [0.0] * 20


@pytest.mark.parametrize(("common", "spread"), [(0.0, 10.0), (1_000.0, 10.0), (0.0, 0.0)])
def test_a_distance_just_above_rounding_is_kept(common: float, spread: float) -> None:
    for _ in range(10):
        kept, floor = kept_and_floor(2.0, common, spread)
        assert kept == pytest.approx(4.0 * floor, rel=0.5)


def test_centroids_and_weights_stand_a_hundred_thousand_steps() -> None:
    micro, _ = filled(torch.zeros(1, 8) + 7, capacity=1)
    micro.weights[0] = 1e5
    row = torch.full((8,), 8.0)
    for index in range(1, 11):
        micro.insert(row, torch.tensor([index]), torch.tensor([0, 0]), ONE)
        micro.merge()
    assert float(micro.weights.sum()) == 1e5 + 10
    assert torch.allclose(micro.centroids[:2][micro.weights > 0], torch.tensor(7 + 1e-4), rtol=1e-6)


def test_the_next_centroid_is_that_after_the_next_merge() -> None:
    rows = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 2.0]])
    micro, _ = filled(rows, capacity=3)
    assert micro.next_centroid(torch.tensor([0])).tolist() == [[0.0, 1.0]]
