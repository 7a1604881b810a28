"""Micro-clusters: a stream of any length as a fixed number of centroids of similar steps.

Shapes: N micro-clusters, one of them spare, F features of a low-resolution step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fvs_ros.memory.ward import INFINITY, cheapest_pair, merge_distances, merge_factors, set_distances

# Inner products are summed in float32 over this many features and in float64 beyond. For vectors with a common mean,
# whose terms do not cancel, the error over 307200 features is 8e-8 of the product instead of 5e-6, at the same speed.
BLOCK = 4096
# Squared distances below this fraction of the product of the norms count as zero: rounding reaches up to twice 4e-7 of
# it where all features lie in a single block.
ROUNDING = 2.0**-20


class MicroClusters:
    """Weighted centroids of similar steps, with the squared distances between all of them.

    A new step becomes the spare micro-cluster; its distances to all others cost one pass over the centroids, a
    matrix-vector product. Once all micro-clusters are in use, `merge` merges the pair that is cheapest by Ward's
    criterion, which leaves one spare again. A merge updates the distances in closed form and touches two rows. Every
    shape is fixed and every choice stays on the device.

    Centroids are float32: over 10^5 steps the rounding of repeated averaging stays near 1e-5 of a feature. Distances,
    weights and times are small and decide what is merged, so they are float64. Inner products are taken of differences
    to the first step, so that a large mean common to all features does not drown the distances in rounding.

    Args:
        capacity: N - 1, micro-clusters in use once the stream is long enough.
        features: F.
        time_weight, horizon: how time counts in merging, see `FlashMemoryConfig`.
    """

    def __init__(
        self, capacity: int, features: int, device: torch.device, *, time_weight: float = 0.0, horizon: int = 2
    ) -> None:
        count = capacity + 1
        self.capacity = capacity
        self._time_weight = time_weight
        self._horizon = horizon

        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        # The last row is the reference, the stream's first step.
        self.centroids = zeros(count + 1, features, dtype=torch.float32)
        self.distances = zeros(count, count)
        # |centroid - reference|².
        self.norms = zeros(count)
        self.weights = zeros(count)
        self.times = zeros(count)
        self.start_ns = zeros(count, dtype=torch.int64)
        self.end_ns = zeros(count, dtype=torch.int64)
        self.spare = zeros(1, dtype=torch.int64)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, by name."""
        names = ("centroids", "distances", "norms", "weights", "times", "start_ns", "end_ns", "spare")
        return {name: getattr(self, name) for name in names}

    def set_reference(self, low: Tensor) -> None:
        """Makes the stream's first step, [F] float32, the origin of inner products."""
        self.centroids[-1].copy_(low)

    def insert(self, low: Tensor, step: Tensor, stamps_ns: Tensor, weight: Tensor) -> None:
        """Writes steps that are alike into the spare micro-cluster, which stays spare until `occupy` or `merge`.

        Args:
            low: [F] float32.
            step: [1] int64, their mean index in the stream.
            stamps_ns: [2] int64 or more, their start and end first.
            weight: [1] float64, how many they are.
        """
        reference = self.centroids[-1]
        offset = low - reference
        blocks = zip(self.centroids.split(BLOCK, dim=1), offset.split(BLOCK), strict=True)
        products = torch.stack([centroids @ part for centroids, part in blocks]).double().sum(0)
        norm = torch.linalg.vector_norm(offset, dtype=torch.float64).square()
        distances = norm + self.norms - 2 * (products[:-1] - products[-1])
        length = torch.linalg.vector_norm(reference, dtype=torch.float64)
        floor = ROUNDING * norm.sqrt() * (length + self.norms.sqrt())
        set_distances(self.distances, self.spare, torch.where(distances > floor, distances, 0.0))
        self.centroids.index_copy_(0, self.spare, low[None])
        self.norms.index_copy_(0, self.spare, norm[None])
        self.weights.index_copy_(0, self.spare, weight)
        self.times.index_copy_(0, self.spare, step.double())
        self.start_ns.index_copy_(0, self.spare, stamps_ns[:1])
        self.end_ns.index_copy_(0, self.spare, stamps_ns[1:2])

    def occupy(self) -> None:
        """Takes the spare micro-cluster into use, as long as the stream is no longer than the capacity."""
        self.spare.add_(1)

    def discard(self) -> None:
        """Forgets the inserted step; the next one overwrites whatever it left."""
        self.weights.index_fill_(0, self.spare, 0)

    def merge(self) -> tuple[Tensor, Tensor]:
        """Merges the cheapest pair into its first micro-cluster, [1] int64; the second, [1] int64, becomes spare."""
        first, second = cheapest_pair(self.timed_distances(), self.weights, self.times)
        total = self.weights[first] + self.weights[second]
        share = self.weights[second] / total
        gap = self.distances[first, second]
        # lerp is exact where both ends are equal: identical steps stay identical.
        centroid = torch.lerp(self.centroids[first], self.centroids[second], share.float()[:, None])
        norm = torch.lerp(self.norms[first], self.norms[second], share) - share * (1 - share) * gap
        merge_distances(self.distances, self.weights, first, second)
        self.centroids.index_copy_(0, first, centroid)
        self.norms.index_copy_(0, first, norm.clamp_(min=0))
        self.times.index_copy_(0, first, torch.lerp(self.times[first], self.times[second], share))
        self.start_ns.index_copy_(0, first, torch.minimum(self.start_ns[first], self.start_ns[second]))
        self.end_ns.index_copy_(0, first, torch.maximum(self.end_ns[first], self.end_ns[second]))
        self.weights.index_copy_(0, first, total)
        self.weights.index_fill_(0, second, 0)
        self.spare.copy_(second)
        return first, second

    def next_centroid(self, cluster: Tensor) -> Tensor:
        """The centroid [1, F] that micro-cluster `cluster` [1] would have after merging with its cheapest partner."""
        own = self.weights[cluster]
        costs = merge_factors(own, self.weights) * self.timed_distances()[cluster]
        partner = torch.where(self.weights > 0, costs, INFINITY).index_fill_(1, cluster, INFINITY).argmin().view(1)
        share = self.weights[partner] / (own + self.weights[partner])
        return torch.lerp(self.centroids[cluster], self.centroids[partner], share.float()[:, None])

    def timed_distances(self) -> Tensor:
        """Squared distances [N, N] that decide what is merged: of the centroids plus, weighted, of the mean times.

        Time is one more coordinate of every step, so a merged cluster's centroid and mean time give its distances.
        Times are scaled so that the whole stream is never longer than the horizon: micro-clusters move closer together
        in time as the stream grows.
        """
        if not self._time_weight:
            return self.distances
        longest = self._horizon - 1
        times = self.times * (longest / (self.weights.sum() - 1).clamp(min=longest))
        return self.distances + self._time_weight * (times[:, None] - times[None]).square()

    def in_time_order(self, count: int) -> Tensor:
        """The `count` micro-clusters in use, as [count] int64, by mean time."""
        times = torch.where(self.weights > 0, self.times, INFINITY)
        return torch.argsort(times, stable=True)[:count]
