"""Ordered weighted k-means of whole steps: the published, offline Context Synopsis Memory.

Shapes: T rows, K clusters, F features of a row.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

ITERATIONS = 10
CENTROID_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Clusters:
    """Clusters in order of their mean time.

    Attributes:
        centroids: [K, F] float32.
        weights: [K] float32, sum of the members' weights.
        times: [K] float32, mean row index of the members.
        labels: [T] int64, cluster of each row; empty where the rows were sampled, not clustered.
    """

    centroids: Tensor
    weights: Tensor
    times: Tensor
    labels: Tensor


def clip_generator(identity: str, device: torch.device) -> torch.Generator:
    """Random numbers for the k-means of one clip: they depend on its `identity` alone, not on what ran before."""
    seed = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:7], "big")
    return torch.Generator(device).manual_seed(seed)


def distances(rows: Tensor, centroids: Tensor) -> Tensor:
    """Euclidean distances [T, K] of rows [T, F] to centroids [K, F], in the expanded form, as published.

    Rounding can make the expanded square of a tiny distance negative. The published code takes its root, NaN; here
    the distance is 0.
    """
    norms = rows.square().sum(1)[:, None] + centroids.square().sum(1)[None]
    return torch.clamp(norms - 2 * rows @ centroids.T, min=0).sqrt()


def ordered_kmeans(
    rows: Tensor,
    clusters: int,
    weights: Tensor | None = None,
    *,
    initial_rows: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Clusters:
    """Weighted k-means as published (`kmeans_ordered`), on rows [T, F] of T steps.

    The released weights were trained with these details of the published code: at most ten iterations; convergence
    returns the centroids of the previous iteration; a cluster that runs empty restarts at a random row. With fewer
    distinct rows than clusters, each distinct row becomes a cluster of weight 1, and the first rows of the clip fill
    the remaining clusters in front of them.

    One detail differs: a cluster that is empty at the end has weight 0 and the time of its restart row, where the
    published code divides by zero.

    Args:
        rows: [T, F], any floating dtype; clustered in float32.
        clusters: K, at most T.
        weights: [T], ones if None.
        initial_rows: [K] int64, the rows that the centroids start from; random distinct rows if None.
        generator: for the random start and restarts, on the device of `rows`.

    Raises:
        ValueError: fewer rows than clusters, or `initial_rows` of another shape.
    """
    rows = rows.float()
    if not 1 <= clusters <= rows.shape[0]:
        raise ValueError(f"asked for {clusters} clusters of {rows.shape[0]} rows; ask for 1 to {rows.shape[0]}")
    weights = torch.ones(rows.shape[0], device=rows.device) if weights is None else weights.float()
    if initial_rows is None:
        distinct, inverse = torch.unique(rows, dim=0, return_inverse=True)
        if distinct.shape[0] < clusters:
            return _pad_distinct(rows, distinct, inverse, clusters)
        chosen = torch.randperm(distinct.shape[0], generator=generator, device=rows.device)[:clusters]
        centroids = distinct[chosen]
    else:
        if initial_rows.shape != (clusters,):
            raise ValueError(f"initial_rows has shape {tuple(initial_rows.shape)}; it must be ({clusters},)")
        centroids = rows[initial_rows]

    restart = torch.zeros(clusters, dtype=torch.long, device=rows.device)
    for _ in range(ITERATIONS):
        labels = distances(rows, centroids).argmin(1)
        masses = torch.zeros(clusters, device=rows.device).index_add_(0, labels, weights)
        restart = torch.randint(rows.shape[0], (clusters,), generator=generator, device=rows.device)
        sums = torch.zeros_like(centroids).index_add_(0, labels, rows * weights[:, None])
        moved = torch.where(masses[:, None] > 0, sums / masses[:, None], rows[restart])
        if (centroids - moved).norm(dim=1).sum() < CENTROID_TOLERANCE:
            break
        centroids = moved

    counts = torch.bincount(labels, minlength=clusters)
    index_sums = torch.zeros(clusters, device=rows.device).index_add_(
        0, labels, torch.arange(rows.shape[0], dtype=torch.float32, device=rows.device)
    )
    times = torch.where(counts > 0, index_sums / counts, restart.float())
    return _in_time_order(centroids, masses, times, labels)


def _in_time_order(centroids: Tensor, weights: Tensor, times: Tensor, labels: Tensor) -> Clusters:
    order = torch.argsort(times)
    return Clusters(centroids[order], weights[order], times[order], torch.argsort(order)[labels])


def _pad_distinct(rows: Tensor, distinct: Tensor, inverse: Tensor, clusters: int) -> Clusters:
    """Clusters of fewer distinct rows than there are clusters: each distinct row once, padded by raw rows in front."""
    missing = clusters - distinct.shape[0]
    counts = torch.bincount(inverse, minlength=distinct.shape[0])
    index = torch.arange(rows.shape[0], dtype=torch.float32, device=rows.device)
    times = torch.zeros(distinct.shape[0], device=rows.device).index_add_(0, inverse, index) / counts
    ordered = _in_time_order(distinct, torch.ones_like(times), times, inverse)
    return Clusters(
        centroids=torch.cat([rows[:missing], ordered.centroids]),
        weights=torch.cat([torch.ones(missing, device=rows.device), ordered.weights]),
        times=torch.cat([index[:missing], ordered.times]),
        labels=ordered.labels + missing,
    )
