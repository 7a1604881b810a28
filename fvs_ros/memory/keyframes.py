"""Keyframes: which steps the Detail Augmentation Memory keeps (the published `klarge_retrieve`)."""

from __future__ import annotations

import torch
from torch import Tensor

from fvs_ros.memory.kmeans import distances


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
