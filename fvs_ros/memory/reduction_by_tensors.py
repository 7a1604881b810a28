"""The parts of `slot_reduction` as tensor operations, for any device: what runs on a GPU, and where numba is missing.

On a GPU nothing waits for the device or branches on values, so all can be captured in a CUDA graph. On a CPU
`reduction_by_loops` takes the same decisions many times faster; what changes here must change there.

Shapes: V micro-clusters in order of time, K slots.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fvs_ros.memory.ward import INFINITY, cheapest_pair_by_cost, merge_costs, merge_distances, merge_factors, set_row

# Relative gain below which a move could be rounding.
LEAST_GAIN = 1e-9


def membership(labels: Tensor, slots: int) -> Tensor:
    """[K, V] float64, 1 where the micro-cluster belongs to the slot and 0 elsewhere."""
    return (labels[None] == torch.arange(slots, device=labels.device)[:, None]).double()


def sum_of_squares(distances: Tensor, weights: Tensor, labels: Tensor, slots: int) -> Tensor:
    """Sum over micro-clusters of weight times squared distance to the slot's centroid, a float64 scalar."""
    members = membership(labels, slots) * weights
    return (((members @ distances) * members).sum(1) / members.sum(1)).sum() / 2


def slot_sums(distances: Tensor, weights: Tensor, labels: Tensor, slots: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the squared distances of micro-clusters i to the centroids of slots k follow from.

    Returns:
        totals: [K], sum of the members' weights.
        spreads: [K, V], sum over the members j of slot k of w_j d_ij.
        inner: [K], half the sum of w_i w_j d_ij over pairs of members.
    """
    members = membership(labels, slots)
    spreads = (members * weights) @ distances
    return members @ weights, spreads, (spreads * members * weights).sum(1) / 2


def squares_and_costs(
    totals: Tensor, spreads: Tensor, inner: Tensor, weights: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """What a move of a micro-cluster is judged by, from `slot_sums`.

    Returns:
        squares: [V], squared distance to the centroid of its own slot.
        costs: [K, V], of moving it to each slot; infinite at its own.
    """
    squares = spreads / totals[:, None] - (inner / totals.square())[:, None]
    costs = (merge_factors(totals, weights) * squares).scatter_(0, labels[None], INFINITY)
    return squares.gather(0, labels[None])[0], costs


def agglomerate(distances: Tensor, weights: Tensor, times: Tensor, slots: int) -> Tensor:
    """Labels [V] by Ward's method: the cheapest pair is merged, V - K times."""
    count = weights.shape[0]
    distances, weights, times = distances.clone(), weights.clone(), times.clone()
    costs = merge_costs(distances, weights)
    heads = torch.arange(count, device=weights.device)
    for _ in range(count - slots):
        first, second = cheapest_pair_by_cost(costs, weights, times)
        total = weights[first] + weights[second]
        merge_distances(distances, weights, first, second)
        times.index_copy_(0, first, torch.lerp(times[first], times[second], weights[second] / total))
        weights.index_copy_(0, first, total)
        weights.index_fill_(0, second, 0)
        # Of the costs, only those of the two change.
        row = torch.where(weights > 0, merge_factors(total, weights) * distances[first], INFINITY).view(-1)
        set_row(costs, first, row.index_fill(0, first, INFINITY))
        set_row(costs, second, torch.full_like(row, INFINITY))
        heads = torch.where(heads == second, first, heads)
    return ((weights > 0).cumsum(0) - 1)[heads]


def segment_costs(distances: Tensor, weights: Tensor) -> Tensor:
    """Costs [V + 1, V + 1], at [b, a] of one slot of the micro-clusters a to b - 1; infinite but for b > a."""
    count = weights.shape[0]
    # sums[a, b]: over the first a rows and first b columns.
    sums = distances.new_zeros(count + 1, count + 1)
    sums[1:, 1:] = (weights[:, None] * weights[None] * distances).cumsum(0).cumsum(1)
    totals = torch.nn.functional.pad(weights.cumsum(0), (1, 0))
    corners = sums.diagonal()
    blocks = corners[None] - sums - sums.T + corners[:, None]
    index = torch.arange(count + 1, device=weights.device)
    spans = totals[:, None] - totals[None]
    return torch.where(index[:, None] > index[None], blocks.T / spans / 2, INFINITY).contiguous()


def segment_time(distances: Tensor, weights: Tensor, slots: int) -> Tensor:
    """Labels [V] of the K consecutive segments with the least sum of squares, by dynamic programming."""
    costs = segment_costs(distances, weights)
    index = torch.arange(weights.shape[0] + 1, device=weights.device)
    best = costs[:, 0]
    previous = []
    # Reused: a new tensor of this size would be mapped and unmapped each time, which costs more than the sum.
    sums = torch.empty_like(costs)
    for _ in range(slots - 1):
        best, start = torch.add(best, costs, out=sums).min(1)
        previous.append(start)
    start = index[-1:]
    starts = []
    for choice in reversed(previous):
        start = choice[start]
        starts.append(start)
    return (index[:-1, None] >= torch.cat([*starts, index[:1]])[None]).sum(1) - 1


def refine(distances: Tensor, weights: Tensor, labels: Tensor, slots: int) -> Tensor:
    """Labels [V] after up to K moves, each the best move of one micro-cluster to another slot (Hartigan 1975).

    The gain of a move counts the shift of both centroids, so it finds improvements where Lloyd's iterations stand
    still. A move changes two slots, and only their rows are computed anew.
    """
    labels = labels.clone()
    totals, spreads, inner = slot_sums(distances, weights, labels, slots)
    own, costs = squares_and_costs(totals, spreads, inner, weights, labels)
    for _ in range(slots):
        left = totals[labels] - weights
        gains = weights * totals[labels] / left * own
        # A slot's only member stays.
        changes = costs - torch.where(left > 0, gains * (1 - LEAST_GAIN), -INFINITY)
        flat = changes.argmin().view(1)
        target, mover = flat // weights.shape[0], flat % weights.shape[0]
        source = labels[mover]
        gain = changes.view(-1)[flat]
        if gain.device.type == "cpu" and not gain < 0:
            break
        moved = torch.where(gain < 0, weights[mover], 0.0)
        both, change = torch.cat([source, target]), torch.cat([-moved, moved])
        inner.index_add_(0, both, change * spreads[both, mover])
        spreads.index_add_(0, both, change[:, None] * distances[mover])
        totals.index_add_(0, both, change)
        labels.index_copy_(0, mover, torch.where(moved > 0, target, source))
        squares = spreads[both] / totals[both, None] - (inner[both] / totals[both].square())[:, None]
        owned = labels[None] == both[:, None]
        own = torch.where(owned[0], squares[0], torch.where(owned[1], squares[1], own))
        costs.index_copy_(0, both, torch.where(owned, INFINITY, merge_factors(totals[both], weights) * squares))
    return labels
