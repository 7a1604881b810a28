"""Which steps the Detail Augmentation Memory keeps: the published `klarge_retrieve`."""

from __future__ import annotations

import torch
from torch import Tensor

from fvs_ros.memory.kmeans import distances


def largest_clusters(weights: Tensor, count: int) -> Tensor:
    """Slots [count] int64 of the largest clusters, by falling weight.

    Equal weights come in the order of torch's unstable sort, as published: with 60 equal weights on a CPU these
    are the later 30 slots, since the released model was evaluated so.
    """
    return torch.argsort(weights, descending=True)[:count]


def nearest_steps(low: Tensor, centroids: Tensor) -> Tensor:
    """The step [R] int64 whose low-resolution features [T, F] are nearest to each centroid [R, F].

    Distances are taken in float32. The published code takes them in the model's dtype, where bfloat16 loses
    them to cancellation: on a slow drift of 307k features its choice agreed with float32 in 33 percent.
    """
    return distances(centroids.float(), low.float()).argmin(1)
