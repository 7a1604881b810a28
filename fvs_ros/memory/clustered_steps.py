"""Steps of an endless stream as micro-clusters: CSM slots, and the keyframes that stand for them.

Shapes: K CSM slots, M DAM slots, R of them filled, P patches of a frame, D width of a patch feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fvs_ros.cuda_graph import CapturedCall
from fvs_ros.memory.candidates import NO_STEP, Candidates
from fvs_ros.memory.config import KLARGE_RETRIEVE_COS, NEAREST, SAMPLE, FlashMemoryConfig
from fvs_ros.memory.csm import CsmSlots, reduce_to_slots, slots_of_steps
from fvs_ros.memory.keyframes import Keyframes, largest_clusters, steps_of_clusters
from fvs_ros.memory.micro_clusters import MicroClusters
from fvs_ros.memory.slot_reduction import prepare
from fvs_ros.memory.snapshot import PatchGrid

# Micro-clusters: MICRO_PER_SLOT K + MICRO_EXTRA. With 8 slots and 20 K steps of a curved drift, the variance was up to
# 9 percent above that of offline k-means with 2 K, 4 percent with 4 K; with 60 slots, 2 K sufficed.
MICRO_PER_SLOT = 2
MICRO_EXTRA = 16
# Candidates of each micro-cluster. With 60 slots and 20 K steps, five streams of each kind, 3, 4 and 5 candidates kept
# 94.7, 96.7 and 98.7 percent of the keyframes within 5 percent of the best step where there are more scenes than slots,
# at least 98 percent on other kinds, but 65, 72 and 77 percent on a drift whose slots are far longer than its steps are
# noisy.
CANDIDATES = 4
# Updates beyond the capacity that run eagerly before one is captured: libraries allocate and choose their algorithms at
# the first call.
EAGER_UPDATES = 2


def micro_cluster_count(config: FlashMemoryConfig) -> int:
    """Micro-clusters of a memory, which is also the number of steps before the first two are merged."""
    return MICRO_PER_SLOT * config.csm_slots + MICRO_EXTRA


def keyframes_by_cluster(config: FlashMemoryConfig) -> bool:
    """Whether the keyframes of a long stream stand for clusters, and do not come from evenly spaced steps."""
    return config.clusters and config.dam_slots > 0 and config.keyframe_method(config.csm_slots + 1) != SAMPLE


@dataclass(frozen=True)
class Reduction:
    """What a snapshot computes: the CSM's slots, and the keyframes where they stand for clusters."""

    csm: CsmSlots
    keyframes: Keyframes | None

    def clone(self) -> Reduction:
        """A copy in storage of its own."""
        csm = CsmSlots(**{name: tensor.clone() for name, tensor in vars(self.csm).items()})
        if self.keyframes is None:
            return Reduction(csm, None)
        return Reduction(csm, Keyframes(**{name: tensor.clone() for name, tensor in vars(self.keyframes).items()}))


class ClusteredSteps:
    """`MicroClusters` with their `Candidates`, and what is captured of them on CUDA.

    Candidates are kept only where keyframes stand for clusters.

    Args:
        config: K, M, how time counts, and the methods.
        grid: patches of a frame.
        width: D.
        dtype: of the candidates' features, the model's.
        step: [1] int64, index of the step to insert,
        stamps_ns: [3] int64, its start, end and the stamp that it has as a keyframe, and
        weight: [1] float64, as how many steps it counts: on the device, so that an update reads nothing from the host.
    """

    def __init__(
        self,
        config: FlashMemoryConfig,
        grid: PatchGrid,
        width: int,
        device: torch.device,
        dtype: torch.dtype,
        step: Tensor,
        stamps_ns: Tensor,
        weight: Tensor,
    ) -> None:
        self._config = config
        self._step, self._stamps_ns, self._weight = step, stamps_ns, weight
        prepare(device, micro_cluster_count(config), config.csm_slots)
        self.micro = MicroClusters(
            micro_cluster_count(config),
            grid.low_patches * width,
            device,
            time_weight=config.time_weight,
            horizon=config.horizon,
        )
        self.candidates: Candidates | None = None
        if keyframes_by_cluster(config):
            self.candidates = Candidates(self.micro.capacity + 1, CANDIDATES, grid.patches, width, device, dtype)
        # Once all micro-clusters are in use, every update launches the same kernels. On CUDA it is captured then, and
        # so is the reduction of a snapshot, with and without a provisional step.
        self.captures = device.type == "cuda"
        self.update_graph: CapturedCall[None] | None = None
        self._eager_updates = EAGER_UPDATES
        self._reduction_graphs: dict[int, CapturedCall[Reduction]] = {}
        self._new_high = torch.zeros(grid.patches, width, device=device, dtype=dtype)
        self._new_low = torch.zeros(grid.low_patches * width, device=device, dtype=dtype)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, by name."""
        parts = {"micro": self.micro.tensors(), "candidates": self.candidates.tensors() if self.candidates else {}}
        return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def candidate_steps(self) -> Tensor:
        """Indices [n] int64 of the candidates. Waits for the device."""
        if self.candidates is None:
            return self._step[:0]
        return self.candidates.steps[self.candidates.steps != NO_STEP]

    def append(self, steps: int, high: Tensor, low: Tensor) -> None:
        """Adds a complete step, `high` [P, D] and `low` [F] in the memory's dtype, after `steps` others.

        Below the capacity its weight is 1: each micro-cluster is a single step.
        """
        if steps < self.micro.capacity:
            self.insert(steps, high, low)
            self.micro.occupy()
        elif not self.captures or self._eager_updates:
            self._eager_updates = max(0, self._eager_updates - 1)
            self._update(steps, high, low)
        else:
            self._new_high.copy_(high)
            self._new_low.copy_(low)
            if self.update_graph is None:
                self.update_graph = CapturedCall(
                    lambda: self._update(steps, self._new_high, self._new_low), warm_up=False
                )
            self.update_graph()

    def insert(self, steps: int, high: Tensor, low: Tensor) -> None:
        """Puts a step after `steps` others into the spare micro-cluster, which stays spare."""
        features = low.float()
        if steps == 0:
            self.micro.set_reference(features)
        spare = self.micro.spare
        self.micro.insert(features, self._step, self._stamps_ns, self._weight)
        if self.candidates is not None:
            self.candidates.insert(spare, high, low, self._step, self._stamps_ns[2:], self.micro.norms[spare])

    def discard(self) -> None:
        """Forgets the inserted step."""
        if self.candidates is not None:
            self.candidates.discard(self.micro.spare)
        self.micro.discard()

    def reduce(self, steps: int, provisional: bool) -> Reduction:
        """Slots and keyframes after `steps` steps, of which an inserted, `provisional` one is the last."""
        clusters = min(steps - provisional, self.micro.capacity) + provisional
        if not self.captures or steps <= self.micro.capacity:
            return self._reduce(steps, clusters)
        if clusters not in self._reduction_graphs:
            self._reduction_graphs[clusters] = CapturedCall(partial(self._reduce, steps, clusters))
        # The next snapshot overwrites the tensors of the graph.
        return self._reduction_graphs[clusters]().clone()

    def _update(self, steps: int, high: Tensor, low: Tensor) -> None:
        """Inserts a step and merges two micro-clusters, once all of them are in use."""
        self.insert(steps, high, low)
        first, second = self.micro.merge()
        if self.candidates is not None:
            self.candidates.merge(first, second, self.micro.centroids[first], self.micro.next_centroid(first))

    def _reduce(self, steps: int, clusters: int) -> Reduction:
        """Computes a snapshot; beyond the capacity, no kernel depends on the value of `steps`."""
        slots = self._config.csm_slots
        if steps <= slots:
            csm = slots_of_steps(self.micro, steps)
        else:
            csm = reduce_to_slots(self.micro, self.candidates, clusters, slots)
        return Reduction(csm, None if self.candidates is None else self._keyframes(self.candidates, csm, steps))

    def _keyframes(self, candidates: Candidates, csm: CsmSlots, steps: int) -> Keyframes:
        config = self._config
        if steps <= config.dam_slots:
            slots = chosen = torch.arange(steps, device=self._step.device)
        else:
            slots = largest_clusters(csm.weights, config.dam_slots)
            centroids, times, method = csm.centroids[slots], csm.times[slots], config.spatial_method
            if steps <= config.csm_slots:
                chosen = steps_of_clusters(method, candidates.low[:steps], centroids, times)
            elif method == NEAREST:
                chosen = candidates.at_times(times)
            elif method == KLARGE_RETRIEVE_COS:
                chosen = candidates.least_similar(centroids)
            else:
                chosen = candidates.nearest(centroids - self.micro.centroids[-1])
        return Keyframes(slots, candidates.high[chosen], candidates.steps[chosen], candidates.stamps_ns[chosen])
