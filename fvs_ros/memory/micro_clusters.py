"""What stays of a stream of any length: a fixed number of weighted means of similar steps.

Shapes: N micro-clusters of which one is spare, F features of a low-resolution step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fvs_ros.memory.ward import INFINITY, cheapest_pair, join_distances, join_factors, set_distances

# Inner products are summed in float32 over so many features and in float64 beyond. Of vectors with a common mean, whose
# terms do not cancel, the error over 307200 features is 8e-8 of the product instead of 5e-6, at the same speed.
BLOCK = 4096
# Squared distances below this part of the product of the norms are rounding, up to twice 4e-7 for a single block, and
# count as zero.
ROUNDING = 2.0**-20


class MicroClusters:
    """Weighted means of similar steps, with the squared distances between all of them.

    A new step takes the spare place; its distances to all others cost one pass over the means, a matrix-vector
    product. Once all places are taken, `merge` joins the pair that Ward's criterion finds cheapest and so frees one.
    Joining updates the distances in closed form and touches two rows. Every shape is fixed and every choice stays on
    the device.

    The means are float32: over 10^5 steps the rounding of repeated averaging stays near 1e-5 of a feature. Distances,
    weights and times are float64, since they are small and decide. Inner products are taken of the difference to
    the first step, so that a large mean common to all features does not drown the distances in rounding.

    Args:
        capacity: micro-clusters to keep; one more place is spare.
        features: F.
        time_weight, horizon: how time counts in joining, see `FlashMemoryConfig`.
    """

    def __init__(
        self, capacity: int, features: int, device: torch.device, *, time_weight: float = 0.0, horizon: int = 2
    ) -> None:
        places = capacity + 1
        self.capacity = capacity
        self._time_weight = time_weight
        self._horizon = horizon

        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        # The last row is the reference, the stream's first step.
        self.means = zeros(places + 1, features, dtype=torch.float32)
        self.distances = zeros(places, places)
        # |mean - reference|².
        self.norms = zeros(places)
        self.weights = zeros(places)
        self.times = zeros(places)
        self.start_ns = zeros(places, dtype=torch.int64)
        self.end_ns = zeros(places, dtype=torch.int64)
        self.spare = zeros(1, dtype=torch.int64)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, by name."""
        names = ("means", "distances", "norms", "weights", "times", "start_ns", "end_ns", "spare")
        return {name: getattr(self, name) for name in names}

    def set_reference(self, low: Tensor) -> None:
        """Takes the stream's first step, [F] float32, as the origin of inner products."""
        self.means[-1].copy_(low)

    def insert(self, low: Tensor, step: Tensor, stamps_ns: Tensor) -> None:
        """Puts a step into the spare place, which stays spare until `occupy` or `merge`.

        Args:
            low: [F] float32.
            step: [1] int64, its index in the stream.
            stamps_ns: [2] int64, its start and end.
        """
        reference = self.means[-1]
        offset = low - reference
        blocks = zip(self.means.split(BLOCK, dim=1), offset.split(BLOCK), strict=True)
        products = torch.stack([means @ part for means, part in blocks]).double().sum(0)
        norm = torch.linalg.vector_norm(offset, dtype=torch.float64).square()
        distances = norm + self.norms - 2 * (products[:-1] - products[-1])
        length = torch.linalg.vector_norm(reference, dtype=torch.float64)
        floor = ROUNDING * norm.sqrt() * (length + self.norms.sqrt())
        set_distances(self.distances, self.spare, torch.where(distances > floor, distances, 0.0))
        self.means.index_copy_(0, self.spare, low[None])
        self.norms.index_copy_(0, self.spare, norm[None])
        self.weights.index_fill_(0, self.spare, 1)
        self.times.index_copy_(0, self.spare, step.double())
        self.start_ns.index_copy_(0, self.spare, stamps_ns[:1])
        self.end_ns.index_copy_(0, self.spare, stamps_ns[1:])

    def occupy(self) -> None:
        """Keeps the inserted step in its place, while the stream is no longer than the capacity."""
        self.spare.add_(1)

    def discard(self) -> None:
        """Forgets the inserted step. What its place holds otherwise is overwritten by the next one."""
        self.weights.index_fill_(0, self.spare, 0)

    def merge(self) -> tuple[Tensor, Tensor]:
        """Joins the cheapest pair; the second of it, [1] int64 as the first, becomes spare."""
        first, second = cheapest_pair(self.separations(), self.weights, self.times)
        total = self.weights[first] + self.weights[second]
        share = self.weights[second] / total
        gap = self.distances[first, second]
        # lerp is exact where both ends are equal: identical steps stay identical.
        mean = torch.lerp(self.means[first], self.means[second], share.float()[:, None])
        norm = torch.lerp(self.norms[first], self.norms[second], share) - share * (1 - share) * gap
        join_distances(self.distances, self.weights, first, second)
        self.means.index_copy_(0, first, mean)
        self.norms.index_copy_(0, first, norm.clamp_(min=0))
        self.times.index_copy_(0, first, torch.lerp(self.times[first], self.times[second], share))
        self.start_ns.index_copy_(0, first, torch.minimum(self.start_ns[first], self.start_ns[second]))
        self.end_ns.index_copy_(0, first, torch.maximum(self.end_ns[first], self.end_ns[second]))
        self.weights.index_copy_(0, first, total)
        self.weights.index_fill_(0, second, 0)
        self.spare.copy_(second)
        return first, second

    def prospect(self, place: Tensor) -> Tensor:
        """The mean, [1, F], that the micro-cluster at `place` [1] would have once joined with its cheapest partner."""
        own = self.weights[place]
        costs = join_factors(own, self.weights) * self.separations()[place]
        partner = torch.where(self.weights > 0, costs, INFINITY).index_fill_(1, place, INFINITY).argmin().view(1)
        share = self.weights[partner] / (own + self.weights[partner])
        return torch.lerp(self.means[place], self.means[partner], share.float()[:, None])

    def separations(self) -> Tensor:
        """Squared distances [N, N] by which clusters are joined: of their means and, weighted, of their times.

        Time is one more coordinate of every step, so that both parts of a joined cluster's distances follow from its
        means. The whole stream stays as long as the horizon: what has been joined stays so, and what has not moves
        closer together as the stream grows.
        """
        if not self._time_weight:
            return self.distances
        longest = self._horizon - 1
        places = self.times * (longest / (self.weights.sum() - 1).clamp(min=longest))
        return self.distances + self._time_weight * (places[:, None] - places[None]).square()

    def in_time_order(self, count: int) -> Tensor:
        """Places [count] int64 of the micro-clusters, of which there are `count`, by mean time."""
        times = torch.where(self.weights > 0, self.times, INFINITY)
        return torch.argsort(times, stable=True)[:count]
