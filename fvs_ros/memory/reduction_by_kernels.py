"""The parts of `slot_reduction` as one kernel each, for a GPU.

As tensor operations a reduction is some 11,000 kernels of 2 us, one after the other. Here a single block of threads
does what each of the parts does, in a loop on the device: the problem is small enough for the caches of one
multiprocessor. The arithmetic and the order among equals are those of `reduction_by_tensors`. Nothing waits for the
device, so all can be captured in a CUDA graph once it has run.

Threads of the block see what others wrote to global memory behind the next barrier: one stands before all stores that
overwrite what others may still read, and one behind them. Indices stay within their arrays whatever the values are.

Triton comes with torch for CUDA.

Shapes: V micro-clusters in order of time, K slots.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fvs_ros.memory.reduction_by_tensors import LEAST_GAIN, segment_costs, slot_sums, squares_and_costs
from fvs_ros.memory.ward import merge_costs

# Elements of a matrix that the block looks at together: 16 of each of 256 threads.
TILE = 4096
# Products and sums are rounded one by one, as in tensor operations.
OPTIONS: Any = {"num_warps": 8, "num_stages": 1, "enable_fp_fusion": False}


def agglomerate(distances: Tensor, weights: Tensor, times: Tensor, slots: int) -> Tensor:
    """See `reduction_by_tensors.agglomerate`."""
    count = weights.shape[0]
    costs = merge_costs(distances, weights).contiguous()
    distances, weights, times = distances.contiguous().clone(), weights.clone(), times.clone()
    heads = torch.arange(count, device=weights.device)
    _agglomerate[(1,)](distances, costs, weights, times, heads, count, count - slots, *_tile(count), **OPTIONS)
    return ((weights > 0).cumsum(0) - 1)[heads].clamp(0, slots - 1)


def segment_time(distances: Tensor, weights: Tensor, slots: int) -> Tensor:
    """See `reduction_by_tensors.segment_time`."""
    count = weights.shape[0]
    # The s-th segment ends behind the s-th micro-cluster at the earliest, behind the last but K - s at the latest.
    ends = count - slots + 1
    costs = segment_costs(distances, weights)
    # best[s, e]: least cost of s + 1 segments that end behind micro-cluster s + e; starts[s, e]: of the last of them.
    best = costs.new_empty(slots, ends)
    starts = torch.zeros(slots, ends, dtype=torch.int32, device=costs.device)
    labels = torch.empty(count, dtype=torch.int64, device=costs.device)
    _segment[(1,)](costs, best, starts, labels, count, slots, ends, *_tile(ends), *_tile(count)[:1], **OPTIONS)
    return labels


def refine(distances: Tensor, weights: Tensor, labels: Tensor, slots: int) -> Tensor:
    """See `reduction_by_tensors.refine`."""
    count = weights.shape[0]
    labels = labels.clone()
    totals, spreads, inner = slot_sums(distances, weights, labels, slots)
    squares, costs = squares_and_costs(totals, spreads, inner, weights, labels)
    # As a tensor, since a number would be passed in float32.
    kept = totals.new_full((1,), 1 - LEAST_GAIN)
    constant = distances.contiguous(), weights.contiguous(), kept
    _refine[(1,)](*constant, labels, totals, spreads, inner, squares, costs, count, slots, *_tile(count), **OPTIONS)
    return labels


def _tile(columns: int) -> tuple[int, int]:
    """Columns and rows of a tile, powers of 2: one that spans `columns`, and as many rows as make a tile."""
    block = max(16, triton.next_power_of_2(columns))
    return block, max(1, TILE // block)


@triton.jit
def _merge_factor(first, second):  # type: ignore[no-untyped-def]
    return first * second / (first + second)


@triton.jit
def _cheapest(costs, count, block: tl.constexpr, height: tl.constexpr):  # type: ignore[no-untyped-def]
    """The least of `costs` [V, V], how often it is there, and its first place."""
    column, rows = tl.arange(0, block), tl.arange(0, height)
    least = tl.full((height, block), float("inf"), tl.float64)
    for begin in range(0, count, height):
        row = begin + rows
        inside = (row[:, None] < count) & (column[None] < count)
        least = tl.minimum(least, tl.load(costs + row[:, None] * count + column[None], mask=inside, other=float("inf")))
    lowest = tl.min(tl.min(least, 1), 0)
    found = tl.zeros((height, block), tl.int32)
    place = tl.full((height, block), 1 << 30, tl.int32)
    for begin in range(0, count, height):
        row = begin + rows
        inside = (row[:, None] < count) & (column[None] < count)
        offset = row[:, None] * count + column[None]
        equal = inside & (tl.load(costs + offset, mask=inside, other=float("inf")) == lowest)
        found += equal.to(tl.int32)
        place = tl.minimum(place, tl.where(equal, offset, 1 << 30))
    # The second place is what there is if nothing is finite.
    return lowest, tl.sum(tl.sum(found, 1), 0), _within(tl.min(tl.min(place, 1), 0), count)


@triton.jit
def _within(place, count):  # type: ignore[no-untyped-def]
    """`place`, or 1 where there was none in a matrix [V, V]."""
    return tl.where(place < count * count, place, 1)


@triton.jit
def _nearest_in_time(  # type: ignore[no-untyped-def]
    costs, weights, times, lowest, count, block: tl.constexpr, height: tl.constexpr
):
    """The place of the pair that is nearest in time of those of `lowest` cost; of several the first."""
    column, rows = tl.arange(0, block), tl.arange(0, height)
    weight = tl.load(weights + column, mask=column < count, other=1.0)
    time = tl.load(times + column, mask=column < count, other=0.0)
    shortest = tl.min(tl.full((block,), float("inf"), tl.float64), 0)
    place = tl.min(tl.full((block,), 1 << 30, tl.int32), 0)
    for begin in range(0, count, height):
        row = begin + rows
        inside = (row[:, None] < count) & (column[None] < count)
        offset = row[:, None] * count + column[None]
        equal = inside & (tl.load(costs + offset, mask=inside, other=float("inf")) <= lowest)
        gap = tl.load(times + row, mask=row < count, other=0.0)[:, None] - time[None]
        own = tl.load(weights + row, mask=row < count, other=1.0)
        ties = tl.where(equal, _merge_factor(own[:, None], weight[None]) * (gap * gap), float("inf"))
        least = tl.min(tl.min(ties, 1), 0)
        first = tl.min(tl.min(tl.where(equal & (ties == least), offset, 1 << 30), 1), 0)
        place = tl.where(least < shortest, first, place)
        shortest = tl.minimum(shortest, least)
    return _within(place, count)


@triton.jit
def _agglomerate(  # type: ignore[no-untyped-def]
    distances, costs, weights, times, heads, count, merges, block: tl.constexpr, height: tl.constexpr
):
    """Merges the cheapest pair, `merges` times, in place; `heads` [V] become those that each was merged into."""
    index = tl.arange(0, block)
    inside = index < count
    head = tl.load(heads + index, mask=inside, other=0)
    for _ in range(merges):
        lowest, found, place = _cheapest(costs, count, block, height)
        if found > 2:
            place = _nearest_in_time(costs, weights, times, lowest, count, block, height)
        first, second = place // count, place % count
        own, other = tl.load(weights + first), tl.load(weights + second)
        total = own + other
        share = other / total
        start, end = tl.load(times + first), tl.load(times + second)
        time = tl.where(share < 0.5, start + share * (end - start), end - (end - start) * (1 - share))
        nearer = share * (1 - share) * tl.load(distances + first * count + second)
        row = (1 - share) * tl.load(distances + first * count + index, mask=inside, other=0.0)
        row = row + share * tl.load(distances + second * count + index, mask=inside, other=0.0) - nearer
        row = tl.where(index == first, 0.0, tl.maximum(row, 0.0))
        weight = tl.load(weights + index, mask=inside, other=0.0)
        weight = tl.where(index == first, total, tl.where(index == second, 0.0, weight))
        cost = tl.where((weight > 0) & (index != first), _merge_factor(total, weight) * row, float("inf"))
        tl.debug_barrier()
        tl.store(times + first, time)
        tl.store(weights + index, weight, mask=inside)
        tl.store(distances + first * count + index, row, mask=inside)
        tl.store(distances + index * count + first, row, mask=inside)
        tl.store(costs + second * count + index, float("inf"), mask=inside)
        tl.store(costs + index * count + second, float("inf"), mask=inside)
        # At the second, both write infinity.
        tl.store(costs + first * count + index, cost, mask=inside)
        tl.store(costs + index * count + first, cost, mask=inside)
        head = tl.where(head == second, first, head)
        tl.debug_barrier()
    tl.store(heads + index, head, mask=inside)


@triton.jit
def _segment(  # type: ignore[no-untyped-def]
    costs,
    best,
    starts,
    labels,
    count,
    slots,
    ends,
    block: tl.constexpr,
    height: tl.constexpr,
    labels_block: tl.constexpr,
):
    """Fills `best` and `starts` [K, E], then `labels` [V]; `costs` [V + 1, V + 1] as of `segment_costs`."""
    start, rows = tl.arange(0, block), tl.arange(0, height)
    one = tl.load(costs + (start + 1) * (count + 1), mask=start < ends, other=float("inf"))
    tl.store(best + start, one, mask=start < ends)
    tl.debug_barrier()
    for slot in range(1, slots):
        before = tl.load(best + (slot - 1) * ends + start, mask=start < ends, other=float("inf"))
        for begin in range(0, ends, height):
            end = begin + rows
            inside = (end[:, None] < ends) & (start[None] <= end[:, None])
            offset = (slot + 1 + end)[:, None] * (count + 1) + (slot + start)[None]
            sums = before[None] + tl.load(costs + offset, mask=inside, other=float("inf"))
            least, chosen = tl.min(sums, 1, return_indices=True)
            tl.store(best + slot * ends + end, least, mask=end < ends)
            tl.store(starts + slot * ends + end, slot + chosen, mask=end < ends)
        tl.debug_barrier()
    index = tl.arange(0, labels_block)
    stop = count + 0
    for step in range(slots):
        slot = slots - 1 - step
        last = tl.minimum(tl.maximum(stop - slot - 1, 0), ends - 1)
        begin = tl.load(starts + slot * ends + last)
        tl.store(labels + index, slot.to(tl.int64), mask=(index >= begin) & (index < stop))
        stop = begin


@triton.jit
def _best_move(costs, gain, count, slots, block: tl.constexpr, height: tl.constexpr):  # type: ignore[no-untyped-def]
    """The least of `costs` [K, V] less `gain` [V], and its first place, which is none where all are infinite."""
    index, rows = tl.arange(0, block), tl.arange(0, height)
    least = tl.min(tl.full((block,), float("inf"), tl.float64), 0)
    place = tl.min(tl.full((block,), 1 << 30, tl.int32), 0)
    for begin in range(0, slots, height):
        row = begin + rows
        offset = row[:, None] * count + index[None]
        known = (row[:, None] < slots) & (index[None] < count)
        change = tl.load(costs + offset, mask=known, other=float("inf")) - gain[None]
        lowest = tl.min(tl.min(change, 1), 0)
        first = tl.min(tl.min(tl.where(known & (change == lowest), offset, 1 << 30), 1), 0)
        place = tl.where(lowest < least, first, place)
        least = tl.minimum(least, lowest)
    return least, place


@triton.jit
def _refine(  # type: ignore[no-untyped-def]
    distances,
    weights,
    kept,
    labels,
    totals,
    spreads,
    inner,
    squares,
    costs,
    count,
    slots,
    block: tl.constexpr,
    height: tl.constexpr,
):
    """Up to K moves, in place; the sums as of `slot_sums`, `squares` [V] and `costs` [K, V]."""
    index = tl.arange(0, block)
    inside = index < count
    weight = tl.load(weights + index, mask=inside, other=1.0)
    label = tl.load(labels + index, mask=inside, other=0)
    square = tl.load(squares + index, mask=inside, other=0.0)
    share_kept = tl.load(kept)
    moves = 0
    while moves < slots:
        total = tl.load(totals + label, mask=inside, other=1.0)
        left = total - weight
        # A slot's only member stays.
        gain = tl.where(inside & (left > 0), weight * total / left * square * share_kept, -float("inf"))
        least, place = _best_move(costs, gain, count, slots, block, height)
        moves += 1
        if least < 0:
            target, mover = place // count, place % count
            source, moved = tl.load(labels + mover), tl.load(weights + mover)
            distance = tl.load(distances + mover * count + index, mask=inside, other=0.0)
            left_inner = tl.load(inner + source) + -moved * tl.load(spreads + source * count + mover)
            right_inner = tl.load(inner + target) + moved * tl.load(spreads + target * count + mover)
            left_total, right_total = tl.load(totals + source) - moved, tl.load(totals + target) + moved
            left_spread = tl.load(spreads + source * count + index, mask=inside, other=0.0) + -moved * distance
            right_spread = tl.load(spreads + target * count + index, mask=inside, other=0.0) + moved * distance
            tl.debug_barrier()
            tl.store(labels + mover, target.to(tl.int64))
            tl.store(inner + source, left_inner)
            tl.store(inner + target, right_inner)
            tl.store(totals + source, left_total)
            tl.store(totals + target, right_total)
            tl.store(spreads + source * count + index, left_spread, mask=inside)
            tl.store(spreads + target * count + index, right_spread, mask=inside)
            label = tl.where(index == mover, target.to(tl.int64), label)
            left_square = left_spread / left_total - left_inner / (left_total * left_total)
            right_square = right_spread / right_total - right_inner / (right_total * right_total)
            square = tl.where(label == source, left_square, tl.where(label == target, right_square, square))
            left_cost = tl.where(label == source, float("inf"), _merge_factor(left_total, weight) * left_square)
            right_cost = tl.where(label == target, float("inf"), _merge_factor(right_total, weight) * right_square)
            tl.store(costs + source * count + index, left_cost, mask=inside)
            tl.store(costs + target * count + index, right_cost, mask=inside)
            tl.debug_barrier()
        else:
            moves = slots
