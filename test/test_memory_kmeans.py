import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fvs_ros.memory.kmeans import Clusters, distances, ordered_kmeans


def within_cluster(rows: Tensor, clusters: Clusters) -> Tensor:
    return (rows - clusters.centroids[clusters.labels]).square().sum()


def test_distances_match_cdist() -> None:
    rows, centroids = torch.randn(7, 33), torch.randn(4, 33)
    torch.testing.assert_close(distances(rows, centroids), torch.cdist(rows, centroids), atol=1e-4, rtol=1e-4)


def test_distance_of_a_row_to_itself_is_a_number() -> None:
    rows = torch.randn(50, 200) * 100 + 1000
    assert torch.isfinite(distances(rows, rows)).all()


def test_separated_groups_are_found_with_weights_and_mean_times() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    members = torch.tensor([2, 2, 0, 0, 0, 1, 2])  # group of each row: 2 is met first, last and most
    rows = centres[members]
    clusters = ordered_kmeans(rows, 3, initial_rows=torch.tensor([5, 0, 2]))
    # Mean times: group 0 (2+3+4)/3 = 3, group 2 (0+1+6)/3 = 2.33, group 1 5.
    torch.testing.assert_close(clusters.times, torch.tensor([7 / 3, 3.0, 5.0]))
    assert clusters.weights.tolist() == [3, 3, 1]
    torch.testing.assert_close(clusters.centroids, centres[[2, 0, 1]])
    assert clusters.labels.tolist() == [0, 0, 1, 1, 1, 2, 0]


def test_row_weights_pull_the_centroid() -> None:
    rows = torch.tensor([[0.0], [1.0], [100.0]])
    clusters = ordered_kmeans(rows, 2, torch.tensor([3.0, 1.0, 2.0]), initial_rows=torch.tensor([0, 2]))
    torch.testing.assert_close(clusters.centroids, torch.tensor([[0.25], [100.0]]))
    assert clusters.weights.tolist() == [4, 2]
    assert clusters.times.tolist() == [0.5, 2]  # the published mean time does not weigh


def test_fewer_distinct_rows_than_clusters_are_padded_in_front() -> None:
    rows = torch.tensor([[1.0], [1.0], [2.0], [1.0], [2.0]])
    clusters = ordered_kmeans(rows, 4)
    assert clusters.centroids.flatten().tolist() == [1, 1, 1, 2]  # two raw rows, then the distinct ones by mean time
    assert clusters.weights.tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(clusters.times, torch.tensor([0.0, 1.0, 4 / 3, 3.0]))
    assert clusters.labels.tolist() == [2, 2, 3, 2, 3]


def test_a_cluster_that_runs_empty_restarts() -> None:
    rows = torch.cat([torch.zeros(6, 2), torch.ones(6, 2) * 9]) + torch.rand(12, 2) * 0.1
    # Both centroids start in the same place; argmin gives every row to the first.
    clusters = ordered_kmeans(rows, 2, initial_rows=torch.tensor([0, 0]), generator=torch.Generator().manual_seed(1))
    assert clusters.weights.tolist() == [6, 6]


def test_same_generator_same_clusters() -> None:
    rows = torch.randn(30, 5)
    first, second = (ordered_kmeans(rows, 4, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.centroids, second.centroids)


@pytest.mark.parametrize("clusters", [0, 4])
def test_impossible_numbers_of_clusters_are_refused(clusters: int) -> None:
    with pytest.raises(ValueError, match=rf"{clusters} clusters of 3 rows"):
        ordered_kmeans(torch.randn(3, 2), clusters)


def test_initial_rows_must_be_one_per_cluster() -> None:
    with pytest.raises(ValueError, match="initial_rows"):
        ordered_kmeans(torch.randn(5, 2), 3, initial_rows=torch.tensor([0, 1]))


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(4, 40), clusters=st.integers(1, 8), seed=st.integers(0, 2**20))
def test_invariants_of_any_clustering(rows: int, clusters: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(rows, 6, generator=generator)
    found = ordered_kmeans(data, min(clusters, rows), generator=generator)
    assert found.weights.sum() == rows
    assert (found.times.diff() >= 0).all()
    assert found.times.min() >= 0
    assert found.times.max() <= rows - 1
    assert torch.isfinite(found.centroids).all()
    assert torch.equal(torch.bincount(found.labels, minlength=len(found.weights)).float(), found.weights)
    assert within_cluster(data, found) <= (data - data.mean(0)).square().sum() * 1.0001
