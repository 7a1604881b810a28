"""The Flash Memory of an endless stream: bounded, incremental, repeatable bit for bit.

Shapes: T grid steps seen, K CSM slots, M DAM slots, R of them filled, P patches of a frame, D width of a patch feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fvs_ros.cuda_graph import CapturedCall
from fvs_ros.memory.candidates import NO_STEP, Candidates
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.csm import CsmSlots, reduce_to_slots, slots_of_steps
from fvs_ros.memory.keyframes import largest_clusters, nearest_steps
from fvs_ros.memory.micro_clusters import MicroClusters
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid

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
# Names of settings in a saved memory.
SETTING = "settings."


def micro_cluster_count(config: FlashMemoryConfig) -> int:
    """Micro-clusters of a memory, which is also the number of steps before the first two are merged."""
    return MICRO_PER_SLOT * config.csm_slots + MICRO_EXTRA


@dataclass(frozen=True)
class _Reduction:
    """The tensors that a snapshot computes.

    Attributes:
        csm: its slots.
        slots: [R] int64, the CSM slot of each keyframe.
        high: [R, P, D], the keyframes.
        steps, stamps_ns: [R] int64, of the keyframes.
    """

    csm: CsmSlots
    slots: Tensor
    high: Tensor
    steps: Tensor
    stamps_ns: Tensor

    def clone(self) -> _Reduction:
        """A copy in storage of its own."""
        csm = CsmSlots(**{name: tensor.clone() for name, tensor in vars(self.csm).items()})
        rest = (self.slots, self.high, self.steps, self.stamps_ns)
        return _Reduction(csm, *(tensor.clone() for tensor in rest))


class StreamingFlashMemory:
    """Flash Memory that takes grid steps one by one and never grows.

    Up to K steps it equals `build_memory`, bit for bit. Beyond, it keeps `MicroClusters`, more of them than slots;
    `snapshot` reduces them to K slots and picks the keyframes of the DAM by the published rule among the `Candidates`,
    the only steps kept in high resolution. The published streaming code instead runs k-means from a random start over
    its K slots and the new step, and keeps every step ever seen.

    Equal input gives an equal memory, no matter when snapshots are taken. Identical steps merge at no cost, neighbours
    in time first, so a still scene becomes slots of equal length; the published offline code would show it as one slot
    and padding. Features must be finite: a NaN would spread to every distance.

    All memory is allocated, and touched, on construction: 1.9 GB in bfloat16 and 3.5 GB in float32 for 60 slots and
    960 patches of 1280 features.

    Args:
        config: K, M, the length of the window, and how time counts.
        grid: patches of a frame.
        feature_dim: D.
        device: where the memory lives.
        dtype: of the features kept and of the snapshots, the model's. Centroids are float32, decisions float64.
    """

    def __init__(
        self,
        config: FlashMemoryConfig,
        grid: PatchGrid,
        feature_dim: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        device = torch.device(device)
        self._config = config
        self._grid = grid
        self._width = feature_dim
        self._steps = 0
        self._micro = MicroClusters(
            micro_cluster_count(config),
            grid.low_patches * feature_dim,
            device,
            time_weight=config.time_weight,
            horizon=config.horizon,
        )
        # A ring of the newest steps, with room for a provisional one.
        ring = config.window_slots + 1 if config.window_slots else 0
        self._window = torch.zeros(ring, grid.patches, feature_dim, device=device, dtype=dtype)
        clusters = self._micro.capacity + 1
        self._candidates = Candidates(clusters, CANDIDATES, grid.patches, feature_dim, device, dtype)
        # Index and stamps of the step to insert, on the device so that an update reads nothing from the host.
        self._step = torch.zeros(1, dtype=torch.int64, device=device)
        self._stamps_ns = torch.zeros(2, dtype=torch.int64, device=device)
        # Once all micro-clusters are in use, every update launches the same kernels. On CUDA it is captured then, and
        # so is the reduction of a snapshot, with and without a provisional step.
        self._captures = device.type == "cuda"
        self._update_graph: CapturedCall[None] | None = None
        self._reduction_graphs: dict[int, CapturedCall[_Reduction]] = {}
        self._new_high = torch.zeros(grid.patches if self._captures else 0, feature_dim, device=device, dtype=dtype)
        self._new_low = torch.zeros(grid.low_patches if self._captures else 0, feature_dim, device=device, dtype=dtype)

    @property
    def steps(self) -> int:
        """T, complete grid steps in memory."""
        return self._steps

    @property
    def bytes(self) -> int:
        """Bytes of the memory's tensors on its device; constant from the first step to the last."""
        return sum(tensor.nbytes for tensor in self._tensors().values())

    def candidate_steps(self) -> Tensor:
        """Indices [n] int64 of the steps that can still become keyframes. Waits for the device."""
        return self._candidates.steps[self._candidates.steps != NO_STEP]

    @torch.no_grad()
    def append(self, high: Tensor, low: Tensor, start_ns: int | Sequence[int], end_ns: int | Sequence[int]) -> None:
        """Adds one complete grid step, or n of them.

        Args:
            high: [P, D], or [n, P, D] for n steps.
            low: [P / 4, D] or [n, P / 4, D], of the frames pooled 2 x 2.
            start_ns: stamp of the step's first frame, or a list of n.
            end_ns: stamp of the step's second frame, or a list of n.

        Raises:
            ValueError: shapes that do not fit the memory or each other, or an end before its start. The memory is
                unchanged.
        """
        starts = [start_ns] if isinstance(start_ns, int) else start_ns
        ends = [end_ns] if isinstance(end_ns, int) else end_ns
        if isinstance(start_ns, int):
            high, low = high[None], low[None]
        self._check(high, low, starts, ends)
        for step_high, step_low, start, end in zip(high, low, starts, ends, strict=True):
            self._set_times(start, end)
            if self._steps < self._micro.capacity:
                self._insert(step_high, step_low)
                self._micro.occupy()
            elif not self._captures or self._steps < self._micro.capacity + EAGER_UPDATES:
                self._update(step_high, step_low)
            else:
                self._new_high.copy_(step_high)
                self._new_low.copy_(step_low)
                if self._update_graph is None:
                    self._update_graph = CapturedCall(
                        lambda: self._update(self._new_high, self._new_low), warm_up=False
                    )
                self._update_graph()
            self._steps += 1

    @torch.no_grad()
    def snapshot(self, provisional: tuple[Tensor, Tensor, int] | None = None) -> MemorySnapshot:
        """The memory as it is now, in storage of its own.

        Args:
            provisional: the newest frame while it has no partner, as a step of its own: `high` [P, D], `low` [P / 4, D]
                and its stamp in nanoseconds. It counts in this snapshot and leaves no trace in the memory.

        Raises:
            ValueError: the memory is empty, or the provisional step does not fit it.
        """
        if provisional is None:
            if self._steps == 0:
                raise ValueError("the memory holds no steps yet; append one, or pass a provisional step")
            return self._snapshot(self._steps, min(self._steps, self._micro.capacity))
        high, low, stamp_ns = provisional
        self._check(high[None], low[None], [stamp_ns], [stamp_ns])
        self._set_times(stamp_ns, stamp_ns)
        self._insert(high, low)
        snapshot = self._snapshot(self._steps + 1, min(self._steps, self._micro.capacity) + 1)
        self._candidates.discard(self._micro.spare)
        self._micro.discard()
        return snapshot

    @torch.no_grad()
    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the whole state, and the settings that it depends on, as a flat dict of tensors for safetensors."""
        state = {name: tensor.clone() for name, tensor in self._tensors().items()}
        return {**state, **self._settings(), "steps": torch.tensor([self._steps])}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores a state of `state_dict`; from there on, both memories continue identically.

        Raises:
            ValueError: names, settings, shapes or dtypes other than those of this memory, which is then unchanged.
        """
        tensors, settings = self._tensors(), self._settings()
        changed = [
            f"{name.removeprefix(SETTING)} {state[name].tolist()} where this one has {value.tolist()}"
            for name, value in settings.items()
            if name in state and state[name].tolist() != value.tolist()
        ]
        if changed:
            raise ValueError(
                f"the saved memory has {', '.join(changed)}; create the memory with the settings of the saved one"
            )
        expected = {**tensors, **settings, "steps": torch.tensor([0])}
        missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
        if missing or unknown:
            raise ValueError(
                f"the saved memory lacks {missing} and holds the unknown {unknown}; load what `state_dict` returned"
            )
        for name, tensor in expected.items():
            if state[name].shape != tensor.shape or state[name].dtype != tensor.dtype:
                raise ValueError(
                    f"{name} of the saved memory is {state[name].dtype} {tuple(state[name].shape)}; this memory needs "
                    f"{tensor.dtype} {tuple(tensor.shape)}, so create it with the saved dtype"
                )
        for name, tensor in tensors.items():
            tensor.copy_(state[name])
        self._steps = int(state["steps"])

    def _tensors(self) -> dict[str, Tensor]:
        parts = {"micro": self._micro.tensors(), "candidates": self._candidates.tensors()}
        if self._config.window_slots:
            parts["window"] = {"high": self._window}
        return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def _settings(self) -> dict[str, Tensor]:
        """Scalars that the state, or what follows from it, depends on: int64 or float64."""
        values = {
            **asdict(self._config),
            "grid_height": self._grid.height,
            "grid_width": self._grid.width,
            "feature_dim": self._width,
            "micro_clusters": self._micro.capacity,
            "candidates": self._candidates.per_cluster,
        }
        return {
            SETTING + name: torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)
            for name, value in values.items()
        }

    def _check(self, high: Tensor, low: Tensor, start_ns: Sequence[int], end_ns: Sequence[int]) -> None:
        grid, width = self._grid, self._width
        if high.shape[1:] != (grid.patches, width) or low.shape[1:] != (grid.low_patches, width):
            raise ValueError(
                f"a step's features are {tuple(high.shape[1:])} and {tuple(low.shape[1:])}; a {grid.height} x "
                f"{grid.width} grid needs {(grid.patches, width)} and {(grid.low_patches, width)}"
            )
        counts = (high.shape[0], low.shape[0], len(start_ns), len(end_ns))
        if len(set(counts)) != 1:
            raise ValueError(f"steps of high, low, start_ns and end_ns are {counts}; they must be equally many")
        for start, end in zip(start_ns, end_ns, strict=True):
            if end < start:
                raise ValueError(f"a step ends at {end} ns, before its start at {start} ns")

    def _set_times(self, start_ns: int, end_ns: int) -> None:
        """Sets index and stamps of the next step."""
        # fill_ passes the number with the kernel launch; a copy from the host would wait.
        self._step.fill_(self._steps)
        self._stamps_ns[0].fill_(start_ns)
        self._stamps_ns[1].fill_(end_ns)

    def _insert(self, high: Tensor, low: Tensor) -> None:
        kept = self._candidates.high
        high, low = high.to(kept), low.to(kept).reshape(-1)
        features = low.float()
        if self._steps == 0:
            self._micro.set_reference(features)
        spare = self._micro.spare
        self._micro.insert(features, self._step, self._stamps_ns)
        self._candidates.insert(spare, high, low, self._step, self._stamps_ns[:1], self._micro.norms[spare])
        if self._config.window_slots:
            self._window.index_copy_(0, self._step % len(self._window), high[None])

    def _update(self, high: Tensor, low: Tensor) -> None:
        """Inserts a step and merges two micro-clusters, once all of them are in use."""
        self._insert(high, low)
        first, second = self._micro.merge()
        self._candidates.merge(first, second, self._micro.centroids[first], self._micro.next_centroid(first))

    def _snapshot(self, steps: int, micro_clusters: int) -> MemorySnapshot:
        """The snapshot after `steps` steps, which lie in `micro_clusters`."""
        if self._captures and steps > self._micro.capacity:
            if micro_clusters not in self._reduction_graphs:
                self._reduction_graphs[micro_clusters] = CapturedCall(partial(self._reduce, steps, micro_clusters))
            # The next snapshot overwrites the tensors of the graph.
            reduction = self._reduction_graphs[micro_clusters]().clone()
        else:
            reduction = self._reduce(steps, micro_clusters)
        csm, dtype = reduction.csm, self._candidates.high.dtype
        snapshot = MemorySnapshot(
            grid=self._grid,
            steps=steps,
            csm=csm.centroids.to(dtype).view(-1, self._grid.low_patches, self._width),
            csm_weights=csm.weights,
            csm_times=csm.times,
            csm_start_ns=csm.start_ns,
            csm_end_ns=csm.end_ns,
            dam=reduction.high,
            dam_steps=reduction.steps,
            dam_slots=reduction.slots,
            dam_stamps_ns=reduction.stamps_ns,
            window=self._newest(steps),
        )
        if self._step.device.type != "cuda":
            return snapshot
        return replace(snapshot, ready=torch.cuda.current_stream(self._step.device).record_event())

    def _reduce(self, steps: int, micro_clusters: int) -> _Reduction:
        """Computes a snapshot; beyond the capacity, no kernel depends on the value of `steps`."""
        config, candidates = self._config, self._candidates
        if steps <= config.csm_slots:
            csm = slots_of_steps(self._micro, steps)
        else:
            csm = reduce_to_slots(self._micro, micro_clusters, config.csm_slots)
        if steps <= config.dam_slots:
            slots = chosen = torch.arange(steps, device=self._step.device)
        else:
            slots = largest_clusters(csm.weights, config.dam_slots)
            centroids = csm.centroids[slots]
            if steps <= config.csm_slots:
                chosen = nearest_steps(candidates.low[:steps], centroids)
            else:
                chosen = candidates.nearest(centroids - self._micro.centroids[-1])
        return _Reduction(csm, slots, candidates.high[chosen], candidates.steps[chosen], candidates.stamps_ns[chosen])

    def _newest(self, steps: int) -> Tensor:
        """The filled window [min(steps, W), P, D] after `steps` steps."""
        count = min(steps, self._config.window_slots)
        if count == 0:
            return self._window[:0]
        return torch.stack([self._window[step % len(self._window)] for step in range(steps - count, steps)])
