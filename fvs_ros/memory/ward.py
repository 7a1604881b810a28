"""Ward's method on squared distances alone: which two clusters to merge, and how far the merged one is from the others.

No function here looks at features. On a GPU none waits for the device or branches on values, so all can be captured in
a CUDA graph.

Shapes: N clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor

INFINITY = float("inf")


def cheapest_pair(distances: Tensor, weights: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """The two clusters whose union adds least to the sum of squares within clusters (Ward 1963).

    Merging clusters of weights v, w at squared distance d adds d vw / (v + w). Ties, as between the identical steps of
    a camera on a still scene, go to the pair nearest in time, by the same formula on time: a still hour becomes slots
    of equal length, not one long slot and many of a single step.

    Args:
        distances: [N, N] float64, squared, symmetric.
        weights: [N] float64, 0 marks an absent cluster. At least two are present.
        times: [N] float64, mean times.

    Returns:
        Two indices [1] int64, the smaller first.
    """
    return cheapest_pair_by_cost(merge_costs(distances, weights), weights, times)


def merge_costs(distances: Tensor, weights: Tensor) -> Tensor:
    """What merging each two clusters adds to the sum of squares, [N, N]; infinite where either is absent."""
    present = weights > 0
    mergeable = present[:, None] & present[None]
    mergeable.fill_diagonal_(False)
    # The factor of two absent clusters is 0 / 0.
    return torch.where(mergeable, merge_factors(weights, weights) * distances, INFINITY)


def cheapest_pair_by_cost(costs: Tensor, weights: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """`cheapest_pair`, given the `merge_costs` of all pairs."""
    if costs.device.type == "cpu":
        # Reading values is free here, and ties are rare: if only two rows hold the least cost, one pair has it. For 136
        # clusters this takes 10 us instead of 60.
        least = costs.amin(1)
        rows = (least == least.amin()).nonzero()
        if rows.shape[0] == 2:
            return rows[0], rows[1]
    ties = merge_factors(weights, weights) * (times[:, None] - times[None]).square()
    flat = torch.where(costs <= costs.amin(), ties, INFINITY).argmin().view(1)
    count = weights.shape[0]
    return flat // count, flat % count


def merge_factors(first: Tensor, second: Tensor) -> Tensor:
    """What merging adds to the sum of squares, per squared distance: [N, M] for weights [N] and [M]."""
    return first[:, None] * second[None] / (first[:, None] + second[None])


def merge_distances(distances: Tensor, weights: Tensor, first: Tensor, second: Tensor) -> None:
    """Overwrites the squared distances of `first` with those of `first` and `second` merged, in place.

    Lance and Williams 1967: with c = (1 - s) a + s b, |c - x|² = (1 - s) |a - x|² + s |b - x|² - s (1 - s) |a - b|².
    """
    share = weights[second] / (weights[first] + weights[second])
    # Indexed by [1] tensors throughout: indexing by a 0-dim tensor reads its value on the host.
    row = (1 - share) * distances[first] + share * distances[second] - share * (1 - share) * distances[first, second]
    set_distances(distances, first, row.view(-1).clamp(min=0))


def set_distances(distances: Tensor, index: Tensor, row: Tensor) -> None:
    """Sets the squared distances `row` [N] of cluster `index` [1] to all others, in place and symmetrically."""
    set_row(distances, index, row.index_fill(0, index, 0))


def set_row(matrix: Tensor, index: Tensor, row: Tensor) -> None:
    """Writes `row` [N] over the row and the column `index` [1] of a symmetric matrix [N, N]."""
    matrix.index_copy_(0, index, row[None])
    matrix.index_copy_(1, index, row[:, None])
