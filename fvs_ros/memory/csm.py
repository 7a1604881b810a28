"""The Context Synopsis Memory of a snapshot: slots made of micro-clusters.

Shapes: S filled slots, V micro-clusters present, F features of a low-resolution step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fvs_ros.memory.candidates import Candidates
from fvs_ros.memory.micro_clusters import MicroClusters
from fvs_ros.memory.reduction_by_tensors import membership
from fvs_ros.memory.slot_reduction import reduce_clusters


@dataclass(frozen=True)
class CsmSlots:
    """CSM slots in order of their mean time.

    Attributes:
        centroids: [S, F] float32, mean features of the slot's steps.
        weights: [S] float32, number of those steps.
        times: [S] float32, their mean index.
        start_ns, end_ns: [S] int64, their first and last stamp.
        steps, stamps_ns: [S] int64, the known one of those steps that is nearest to the mean, and its stamp.
    """

    centroids: Tensor
    weights: Tensor
    times: Tensor
    start_ns: Tensor
    end_ns: Tensor
    steps: Tensor
    stamps_ns: Tensor


def slots_of_steps(micro: MicroClusters, count: int) -> CsmSlots:
    """The first `count` micro-clusters, each still a single step, as slots in storage of their own."""
    return CsmSlots(
        centroids=micro.centroids[:count].clone(),
        weights=micro.weights[:count].float(),
        times=micro.times[:count].float(),
        start_ns=micro.start_ns[:count].clone(),
        end_ns=micro.end_ns[:count].clone(),
        steps=micro.times[:count].long(),
        stamps_ns=micro.start_ns[:count].clone(),
    )


def reduce_to_slots(micro: MicroClusters, candidates: Candidates | None, count: int, slots: int) -> CsmSlots:
    """The V = `count` micro-clusters that are present, reduced to S = `slots`.

    Without candidates, no step of a merged micro-cluster is known but its first.
    """
    order = micro.in_time_order(count)
    weights, times = micro.weights[order], micro.times[order]
    labels = reduce_clusters(micro.timed_distances()[order][:, order], weights, times, slots)
    members = membership(labels, slots)
    totals = members @ weights
    mean_times = (members @ (weights * times)) / totals
    chronological = torch.argsort(mean_times, stable=True)
    members, totals = members[chronological], totals[chronological]
    chronological_times = mean_times[chronological]

    labels = torch.argsort(chronological)[labels]
    sorted_labels, grouped = torch.sort(labels, stable=True)
    sizes = members.sum(1).long()
    # One pass over the centroids, without a sorted copy of them; a matrix product takes three times as long.
    centroids = functional.embedding_bag(
        order[grouped],
        micro.centroids,
        sizes.cumsum(0) - sizes,
        mode="sum",
        per_sample_weights=(weights[grouped] / totals[sorted_labels]).float(),
    )
    stamps = torch.iinfo(torch.int64)
    belongs = members > 0
    steps, stamps_ns = micro.times[order].long(), micro.start_ns[order]
    if candidates is not None:
        steps, stamps_ns = candidates.nearest_in_time(order, chronological_times[labels])
    offsets = (steps[None] - chronological_times[:, None]).abs()
    middles = torch.where(belongs, offsets, torch.inf).argmin(1)
    return CsmSlots(
        centroids=centroids,
        weights=totals.float(),
        times=chronological_times.float(),
        start_ns=torch.where(belongs, micro.start_ns[order], stamps.max).amin(1),
        end_ns=torch.where(belongs, micro.end_ns[order], stamps.min).amax(1),
        steps=steps[middles],
        stamps_ns=stamps_ns[middles],
    )
