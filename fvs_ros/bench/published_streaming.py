"""The published streaming memory in its plainest form: the baseline of `fvs bench memory`.

Every step runs weighted k-means from a random start over the K centroids and the new step, then picks keyframes from a
bank of all steps. Only sizes and cost matter here; the defects of its times and positions are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.keyframes import largest_clusters, nearest_steps
from fvs_ros.memory.kmeans import ordered_kmeans


class PublishedStreamingMemory:
    """A memory that grows by the features of every step.

    Args:
        config: K and M.
        generator: for the starts of k-means.
    """

    def __init__(self, config: FlashMemoryConfig, generator: torch.Generator) -> None:
        self._config = config
        self._generator = generator
        self._centroids: Tensor | None = None
        self._weights: Tensor | None = None
        self._high: Tensor | None = None
        self._low: Tensor | None = None

    def append(self, high: Tensor, low: Tensor) -> Tensor:
        """Adds a step `high` [P, D], `low` [P / 4, D] and returns the keyframes [M, P, D]."""
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
