"""Keyframes: which steps the Detail Augmentation Memory keeps, by the published methods."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fvs_ros.memory.config import KLARGE_RETRIEVE_COS, NEAREST
from fvs_ros.memory.kmeans import distances

NO_SLOT = -1
"""The CSM slot of a keyframe that stands for none."""


@dataclass(frozen=True)
class Keyframes:
    """The DAM of a snapshot.

    Attributes:
        slots: [R] int64, the CSM slot of each keyframe.
        high: [R, P, D].
        steps, stamps_ns: [R] int64.
    """

    slots: Tensor
    high: Tensor
    steps: Tensor
    stamps_ns: Tensor


def largest_clusters(weights: Tensor, count: int) -> Tensor:
    """The `count` largest clusters, as [count] int64, in order of falling weight.

    Equal weights come in the order of torch's unstable sort, since the released model was evaluated so: of 60 equal
    weights, a CPU takes the later 30.

    Args:
        weights: [K], of the clusters.
        count: at most K.
    """
    return torch.argsort(weights, descending=True)[:count]


def nearest_steps(low: Tensor, centroids: Tensor) -> Tensor:
    """The step [R] int64 whose low-resolution features [T, F] are nearest to each centroid [R, F].

    Distances are computed in float32. The published code computes them in the model's dtype, where bfloat16 loses
    them to cancellation: on a slow drift of 307k features it agreed with float32 on 33 percent of the choices.
    """
    return distances(centroids.float(), low.float()).argmin(1)


def least_similar_steps(low: Tensor, centroids: Tensor) -> Tensor:
    """The step [R] int64 whose features [T, F] have the least cosine similarity to each centroid [R, F].

    The published `klarge_retrieve_cos` takes the argmin of a similarity as if it were a distance: an accident, kept.
    """
    directions = functional.normalize(low.float(), dim=1)
    return (functional.normalize(centroids.float(), dim=1) @ directions.T).argmin(1)


def steps_of_clusters(method: str, low: Tensor, centroids: Tensor, times: Tensor) -> Tensor:
    """The step [R] int64 that stands for each of R clusters, among all T steps.

    Args:
        method: any spatial method but `sample`.
        low: [T, F], the steps.
        centroids: [R, F].
        times: [R], the clusters' mean step indices.
    """
    if method == NEAREST:
        return times.round().long()
    if method == KLARGE_RETRIEVE_COS:
        return least_similar_steps(low, centroids)
    return nearest_steps(low, centroids)


def every_slot(steps: int, csm_slots: int, device: torch.device) -> Tensor:
    """The slot [T] int64 of each of T steps that are all keyframes: its own while the CSM holds single steps."""
    if steps <= csm_slots:
        return torch.arange(steps, device=device)
    return torch.full((steps,), NO_SLOT, device=device)
