"""The parts of `slot_reduction` as compiled loops, for a CPU.

A reduction is some 10^6 steps of arithmetic in sequences that depend on what came before: as tensor operations of a few
microseconds each they took 50 ms for 256 micro-clusters, here 2. The arithmetic and the order among equals are those of
`reduction_by_tensors`, so that both take the same decisions.

numba compiles when this module is imported, or loads what it compiled before, which it keeps beside this file or in the
user's cache. Matrices are contiguous float64. Loops stand for slices on the left of an assignment as well, since each
kind of array operation takes up to a second to compile.

Shapes: V micro-clusters in order of time, K slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numba import njit
from torch import Tensor

from fvs_ros.memory.reduction_by_tensors import LEAST_GAIN, slot_sums

INFINITY = np.inf
# Other threads run meanwhile; dividing by zero gives what it gives in tensors.
OPTIONS: Any = {"nogil": True, "error_model": "numpy"}

Function = TypeVar("Function", bound=Callable[..., Any])


def agglomerate(distances: Tensor, weights: Tensor, times: Tensor, slots: int) -> Tensor:
    """See `reduction_by_tensors.agglomerate`."""
    distances, weights, times = distances.contiguous(), weights.contiguous(), times.contiguous()
    return torch.from_numpy(_agglomerate(distances.numpy(), weights.numpy(), times.numpy(), slots))


def segment_time(distances: Tensor, weights: Tensor, slots: int) -> Tensor:
    """See `reduction_by_tensors.segment_time`."""
    costs = _segment_costs(distances.contiguous().numpy(), weights.contiguous().numpy())
    return torch.from_numpy(_best_segments(costs, slots))


def refine(distances: Tensor, weights: Tensor, labels: Tensor, slots: int) -> Tensor:
    """See `reduction_by_tensors.refine`."""
    distances, weights, labels = distances.contiguous(), weights.contiguous(), labels.contiguous().clone()
    # Tensor operations here too, since a matrix product rounds otherwise than a loop, which decides between equals.
    totals, spreads, inner = (tensor.numpy() for tensor in slot_sums(distances, weights, labels, slots))
    _refine(distances.numpy(), weights.numpy(), labels.numpy(), totals, spreads, inner, LEAST_GAIN)
    return labels


def _compiled(signature: str) -> Callable[[Function], Function]:
    """Compiles a function for arguments of these types."""

    def compile_now(function: Function) -> Function:
        try:
            return njit(signature, cache=True, **OPTIONS)(function)
        except (OSError, RuntimeError):
            # There is no place to keep the result, or no room.
            return njit(signature, **OPTIONS)(function)

    return compile_now


@njit(**OPTIONS)
def _lerp(start: float, end: float, share: float) -> float:
    """As `torch.lerp` computes it, but for its fused multiplication and addition."""
    return start + share * (end - start) if share < 0.5 else end - (end - start) * (1 - share)


@njit(**OPTIONS)
def _merge_factor(first: float, second: float) -> float:
    return first * second / (first + second)


@njit(**OPTIONS)
def _cheapest_pair(costs: np.ndarray, least: np.ndarray, weights: np.ndarray, times: np.ndarray) -> tuple[int, int]:
    """The pair of least cost; of several the one nearest in time, of these the first. See `ward.cheapest_pair`."""
    lowest = least.min()
    if not lowest < INFINITY:
        raise ValueError("distances of micro-clusters are not finite; the features must be")
    first, second, shortest = -1, -1, INFINITY
    for one in range(len(least)):
        if least[one] != lowest:
            continue
        for other in range(one + 1, len(least)):
            if costs[one, other] == lowest:
                gap = times[one] - times[other]
                tie = _merge_factor(weights[one], weights[other]) * (gap * gap)
                if first < 0 or tie < shortest:
                    first, second, shortest = one, other, tie
    return first, second


@njit(**OPTIONS)
def _merge(
    distances: np.ndarray, costs: np.ndarray, least: np.ndarray, weights: np.ndarray, first: int, second: int
) -> None:
    """Merges two micro-clusters into the first; `least` [V] are the least `costs` [V, V] of each."""
    total, share = weights[first] + weights[second], weights[second] / (weights[first] + weights[second])
    nearer = share * (1 - share) * distances[first, second]
    weights[first], weights[second] = total, 0
    least[first] = least[second] = INFINITY
    costs[first, second] = costs[second, first] = INFINITY
    for other in range(len(weights)):
        if weights[other] == 0 or other == first:
            continue
        distance = max((1 - share) * distances[first, other] + share * distances[second, other] - nearer, 0.0)
        cost = _merge_factor(total, weights[other]) * distance
        outdated = least[other] == costs[first, other] or least[other] == costs[second, other]
        distances[first, other] = distances[other, first] = distance
        costs[first, other] = costs[other, first] = cost
        costs[second, other] = costs[other, second] = INFINITY
        least[first] = min(least[first], cost)
        least[other] = costs[other].min() if outdated else min(least[other], cost)


@_compiled("int64[::1](float64[:, ::1], float64[::1], float64[::1], int64)")
def _agglomerate(distances: np.ndarray, weights: np.ndarray, times: np.ndarray, slots: int) -> np.ndarray:
    """Labels [V]."""
    distances, weights, times = distances.copy(), weights.copy(), times.copy()
    count = len(weights)
    costs = np.full((count, count), INFINITY)
    least = np.full(count, INFINITY)
    for first in range(count):
        for second in range(count):
            if first != second:
                costs[first, second] = _merge_factor(weights[first], weights[second]) * distances[first, second]
        least[first] = costs[first].min()
    heads = np.arange(count)
    for _ in range(count - slots):
        first, second = _cheapest_pair(costs, least, weights, times)
        times[first] = _lerp(times[first], times[second], weights[second] / (weights[first] + weights[second]))
        _merge(distances, costs, least, weights, first, second)
        heads[heads == second] = first
    return (np.cumsum(weights > 0) - 1)[heads]


@_compiled("float64[:, ::1](float64[:, ::1], float64[::1])")
def _segment_costs(distances: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Costs [V + 1, V + 1], at [b, a] of one slot of the micro-clusters a to b - 1; only those with b > a are set."""
    count = len(weights)
    # sums[a, b]: over the first a rows and first b columns.
    sums = np.zeros((count + 1, count + 1))
    totals = np.zeros(count + 1)
    for row in range(count):
        totals[row + 1] = totals[row] + weights[row]
        for column in range(count):
            weighted = weights[row] * weights[column] * distances[row, column]
            sums[row + 1, column + 1] = sums[row, column + 1] + weighted
    for row in range(count):
        for column in range(count):
            sums[row + 1, column + 1] += sums[row + 1, column]
    costs = np.empty((count + 1, count + 1))
    for end in range(1, count + 1):
        for begin in range(end):
            block = sums[end, end] - sums[begin, end] - sums[end, begin] + sums[begin, begin]
            costs[end, begin] = block / (totals[end] - totals[begin]) / 2
    return costs


@_compiled("int64[::1](float64[:, ::1], int64)")
def _best_segments(costs: np.ndarray, slots: int) -> np.ndarray:
    """Labels [V] of the K consecutive segments of least cost, by dynamic programming.

    Each segment holds a micro-cluster, so the s-th ends behind the s-th at the earliest, and behind the last but K - s
    at the latest: V - K + 1 ends, of which only those are looked at.
    """
    count = costs.shape[0] - 1
    ends = count - slots + 1
    # best[s, e]: least cost of s + 1 segments that end behind micro-cluster s + e; starts[s, e]: of the last of them.
    best = np.empty((slots, ends))
    starts = np.zeros((slots, ends), np.int64)
    for end in range(ends):
        best[0, end] = costs[end + 1, 0]
    for slot in range(1, slots):
        for end in range(ends):
            row = costs[slot + end + 1]
            least = INFINITY
            for start in range(end + 1):
                cost = best[slot - 1, start] + row[slot + start]
                if cost < least:
                    least = cost
                    starts[slot, end] = slot + start
            best[slot, end] = least
    if not best[slots - 1, ends - 1] < INFINITY:
        raise ValueError("distances of micro-clusters are not finite; the features must be")
    labels = np.empty(count, np.int64)
    end = count
    for slot in range(slots - 1, -1, -1):
        start = starts[slot, end - slot - 1]
        for one in range(start, end):
            labels[one] = slot
        end = start
    return labels


@njit(**OPTIONS)
def _set_slot(
    squares: np.ndarray,
    costs: np.ndarray,
    least: np.ndarray,
    weights: np.ndarray,
    labels: np.ndarray,
    slot: int,
    total: float,
    spreads: np.ndarray,
    inner: float,
) -> None:
    """Sets what follows from a slot's sums: column `slot` of `costs` [V, K], `least` [V], `squares` of its members."""
    for one in range(len(weights)):
        square, cost = spreads[one] / total - inner / (total * total), INFINITY
        if labels[one] == slot:
            squares[one] = square
        else:
            cost = _merge_factor(total, weights[one]) * square
        outdated = least[one] == costs[one, slot]
        costs[one, slot] = cost
        if cost <= least[one]:
            least[one] = cost
        elif outdated:
            least[one] = costs[one].min()


@njit(**OPTIONS)
def _best_move(costs: np.ndarray, least: np.ndarray, gains: np.ndarray) -> tuple[int, int]:
    """The micro-cluster and the slot whose cost less gain is least; of several the first slot, then micro-cluster."""
    lowest = (least - gains).min()
    mover, target = -1, costs.shape[1]
    for one in range(len(least)):
        if least[one] - gains[one] == lowest:
            for slot in range(target):
                if costs[one, slot] - gains[one] == lowest:
                    mover, target = one, slot
                    break
    return mover, target


@_compiled("void(float64[:, ::1], float64[::1], int64[::1], float64[::1], float64[:, ::1], float64[::1], float64)")
def _refine(
    distances: np.ndarray,
    weights: np.ndarray,
    labels: np.ndarray,
    totals: np.ndarray,
    spreads: np.ndarray,
    inner: np.ndarray,
    least_gain: float,
) -> None:
    """Moves in place, of `labels` and of the `slot_sums` `totals`, `spreads` and `inner`."""
    slots, count = spreads.shape
    # squares[i]: squared distance of micro-cluster i to the centroid of its own slot; costs[i, k]: of moving it to
    # slot k; least[i]: of moving it anywhere.
    squares, gains = np.empty(count), np.empty(count)
    costs, least = np.full((count, slots), INFINITY), np.full(count, INFINITY)
    for slot in range(slots):
        _set_slot(squares, costs, least, weights, labels, slot, totals[slot], spreads[slot], inner[slot])
    for _ in range(slots):
        for one in range(count):
            own = totals[labels[one]]
            left = own - weights[one]
            # A slot's only member stays.
            gains[one] = weights[one] * own / left * squares[one] * (1 - least_gain) if left > 0 else -INFINITY
        mover, target = _best_move(costs, least, gains)
        if mover < 0 or not costs[mover, target] - gains[mover] < 0:
            break
        source, moved = labels[mover], weights[mover]
        labels[mover] = target
        for slot, change in ((source, -moved), (target, moved)):
            inner[slot] += change * spreads[slot, mover]
            for one in range(count):
                spreads[slot, one] += change * distances[mover, one]
            totals[slot] += change
        for slot in (source, target):
            _set_slot(squares, costs, least, weights, labels, slot, totals[slot], spreads[slot], inner[slot])
