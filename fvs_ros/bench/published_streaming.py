"""The published streaming memory, written straightforwardly: the baseline of `fvs bench memory`.

For every step, weighted k-means from a random start over the K centroids and the new step, then retrieval over a bank
that keeps every step. Only sizes and cost are of interest here; the defects of its times and positions are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.keyframes import largest_clusters, nearest_steps
from fvs_ros.memory.kmeans import ordered_kmeans


class PublishedStreamingMemory:
    """Grows by a step's features with every step.

    Args:
        config: K and M.
        generator: of k-means' starts.
    """

    def __init__(self, config: FlashMemoryConfig, generator: torch.Generator) -> None:
        self._config = config
        self._generator = generator
        self._centroids: Tensor | None = None
        self._weights: Tensor | None = None
        self._high: Tensor | None = None
        self._low: Tensor | None = None

    def append(self, high: Tensor, low: Tensor) -> Tensor:
        """Adds a step [P, D], [P / 4, D] and returns the detail memory [M, P, D]."""
        row = low.reshape(1, -1)
        self._high = high[None] if self._high is None else torch.cat([self._high, high[None]])
        self._low = row if self._low is None else torch.cat([self._low, row])
        centroids = row if self._centroids is None else torch.cat([self._centroids, row])
        ones = torch.ones(1, device=row.device)
        weights = ones if self._weights is None else torch.cat([self._weights, ones])
        if centroids.shape[0] > self._config.csm_slots:
            clusters = ordered_kmeans(centroids, self._config.csm_slots, weights, generator=self._generator)
            centroids, weights = clusters.centroids, clusters.weights
        self._centroids, self._weights = centroids, weights
        slots = largest_clusters(weights, self._config.dam_slots)
        return self._high[nearest_steps(self._low, centroids[slots])]
