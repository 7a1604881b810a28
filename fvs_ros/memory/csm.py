"""The CSM of a snapshot: slots made of micro-clusters.

Shapes: S filled slots, V micro-clusters present, F features of a low-resolution step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fvs_ros.memory.micro_clusters import MicroClusters
from fvs_ros.memory.slot_reduction import membership, reduce_clusters


@dataclass(frozen=True)
class Synopsis:
    """CSM slots in order of their mean time.

    Attributes:
        means: [S, F] float32, weighted mean of the slot's steps.
        weights: [S] float32, steps in the slot.
        times: [S] float32, their mean index.
        start_ns, end_ns: [S] int64, the first and last of their stamps.
    """

    means: Tensor
    weights: Tensor
    times: Tensor
    start_ns: Tensor
    end_ns: Tensor


def take_steps(micro: MicroClusters, count: int) -> Synopsis:
    """The first `count` micro-clusters as slots, in storage of their own; each is still a single step."""
    return Synopsis(
        means=micro.means[:count].clone(),
        weights=micro.weights[:count].float(),
        times=micro.times[:count].float(),
        start_ns=micro.start_ns[:count].clone(),
        end_ns=micro.end_ns[:count].clone(),
    )


def reduce_to_slots(micro: MicroClusters, count: int, slots: int) -> Synopsis:
    """The V = `count` micro-clusters that are present, reduced to `slots`."""
    order = micro.in_time_order(count)
    weights, times = micro.weights[order], micro.times[order]
    labels = reduce_clusters(micro.separations()[order][:, order], weights, times, slots)
    members = membership(labels, slots)
    totals = members @ weights
    mean_times = (members @ (weights * times)) / totals
    chronological = torch.argsort(mean_times, stable=True)
    members, totals = members[chronological], totals[chronological]

    labels = torch.argsort(chronological)[labels]
    sorted_labels, grouped = torch.sort(labels, stable=True)
    sizes = members.sum(1).long()
    # One pass over the means, without a copy of them in order; a matrix product takes three times as long.
    means = functional.embedding_bag(
        order[grouped],
        micro.means,
        sizes.cumsum(0) - sizes,
        mode="sum",
        per_sample_weights=(weights[grouped] / totals[sorted_labels]).float(),
    )
    stamps = torch.iinfo(torch.int64)
    belongs = members > 0
    return Synopsis(
        means=means,
        weights=totals.float(),
        times=mean_times[chronological].float(),
        start_ns=torch.where(belongs, micro.start_ns[order], stamps.max).amin(1),
        end_ns=torch.where(belongs, micro.end_ns[order], stamps.min).amax(1),
    )
