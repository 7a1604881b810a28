import torch

from fvs_ros.memory.keyframes import largest_clusters, nearest_steps


def test_largest_clusters_come_by_falling_weight() -> None:
    assert largest_clusters(torch.tensor([2.0, 9.0, 1.0, 5.0]), 3).tolist() == [1, 3, 0]


def test_equal_weights_come_in_the_published_order() -> None:
    weights = torch.ones(60)
    assert torch.equal(largest_clusters(weights, 30), torch.argsort(weights, descending=True)[:30])


def test_nearest_step_of_each_centroid() -> None:
    low = torch.tensor([[0.0, 0.0], [4.0, 0.0], [9.0, 9.0]])
    centroids = torch.tensor([[8.0, 8.0], [3.0, 1.0], [3.5, 0.0]])
    assert nearest_steps(low, centroids).tolist() == [2, 1, 1]


def test_bfloat16_features_are_compared_in_float32() -> None:
    # In bfloat16 the squared norms of these differ by less than their rounding.
    low = torch.arange(20, dtype=torch.float32)[:, None].mul(0.0625).add(8).repeat(1, 4096).bfloat16()
    assert nearest_steps(low, low).tolist() == list(range(20))
