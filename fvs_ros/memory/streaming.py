"""The Flash Memory of an endless stream: bounded, incremental, repeatable bit for bit.

Shapes: T grid steps seen, K CSM slots, M DAM slots, R of them filled, P patches of a frame, D width of a patch feature.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor

from fvs_ros.memory.clustered_steps import ClusteredSteps, keyframes_by_cluster, micro_cluster_count
from fvs_ros.memory.config import SAMPLE, FlashMemoryConfig
from fvs_ros.memory.csm import CsmSlots
from fvs_ros.memory.keyframes import NO_SLOT, Keyframes, every_slot, largest_clusters, steps_of_clusters
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid
from fvs_ros.memory.spaced_steps import SpacedSteps, evenly_spaced

# Names of settings in a saved memory.
SETTING = "settings."


class StreamingFlashMemory:
    """Flash Memory that takes grid steps one by one and never grows.

    Up to K steps it equals `build_memory`, bit for bit. Beyond, it keeps `MicroClusters`, more of them than slots;
    `snapshot` reduces them to K slots and picks the keyframes of the DAM by the published rule among the `Candidates`,
    the only steps kept in high resolution. The published streaming code instead runs k-means from a random start over
    its K slots and the new step, and keeps every step ever seen.

    The other published methods have bounded equivalents. Sampled steps, for the CSM or the DAM, come from
    `SpacedSteps`: exact for as many steps as it keeps, at most a quarter of their spacing off beyond. `nearest` and
    `klarge_retrieve_cos` choose among the candidates by the published rules: among all steps until the first two
    micro-clusters are merged, among four of each micro-cluster beyond.

    Equal input gives an equal memory, no matter when snapshots are taken. Identical steps merge at no cost, neighbours
    in time first, so a still scene becomes slots of equal length; the published offline code would show it as one slot
    and padding. Features must be finite: a NaN would spread to every distance.

    All memory is allocated, and touched, on construction: with the default methods 1.9 GB in bfloat16 and 3.5 GB in
    float32 for 60 slots and 960 patches of 1280 features.

    Args:
        config: K, M, the length of the window, how time counts, and the methods.
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
        self._like = torch.zeros(0, grid.low_patches, feature_dim, device=device, dtype=dtype)
        # Of the step to insert: index; start, end, and the stamp that it has as a keyframe; as how many it counts.
        self._step = torch.zeros(1, dtype=torch.int64, device=device)
        self._stamps_ns = torch.zeros(3, dtype=torch.int64, device=device)
        self._weight = torch.ones(1, dtype=torch.float64, device=device)
        self._clustered: ClusteredSteps | None = None
        if config.clusters:
            self._clustered = ClusteredSteps(
                config,
                grid,
                feature_dim,
                device,
                dtype,
                step=self._step,
                stamps_ns=self._stamps_ns,
                weight=self._weight,
            )
        spaced_slots = 0 if config.clusters else config.csm_slots
        spaced_keyframes = 0 if keyframes_by_cluster(config) else config.dam_slots
        self._spaced: SpacedSteps | None = None
        if spaced_slots or spaced_keyframes:
            self._spaced = SpacedSteps(
                max(spaced_slots, spaced_keyframes),
                grid.patches if spaced_keyframes else 0,
                grid.low_patches * feature_dim if spaced_slots else 0,
                feature_dim,
                device,
                dtype,
            )
        # A ring of the newest steps, with room for a provisional one.
        ring = config.window_slots + 1 if config.window_slots else 0
        self._window = torch.zeros(ring, grid.patches, feature_dim, device=device, dtype=dtype)
        self._window_ns = torch.zeros(ring, dtype=torch.int64, device=device)

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
        clustered = self._step[:0] if self._clustered is None else self._clustered.candidate_steps()
        spaced = self._step[:0] if self._spaced is None else self._spaced.kept_steps(self._steps)
        return torch.cat([clustered, spaced])

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
            self._append(step_high, step_low, (start, end, start), 1)

    @torch.no_grad()
    def append_run(self, high: Tensor, low: Tensor, start_ns: int, end_ns: int, keyframe_ns: int, weight: int) -> None:
        """Adds a run of grid steps that show one scene, of which one is left, as if all had its features.

        While each micro-cluster still is a single step, so is each step of the run; beyond, all of them are one
        micro-cluster of their weight, at the cost of a single step.

        Args:
            high: [P, D], of one step, the keyframe.
            low: [P / 4, D], of that step or the mean of all.
            start_ns: stamp of the run's first frame.
            end_ns: stamp of its last frame.
            keyframe_ns: stamp of the keyframe.
            weight: steps in the run.

        Raises:
            ValueError: as `append`, or stamps that are not in order, or a weight below 1.
        """
        self._check(high[None], low[None], [start_ns], [end_ns])
        if weight < 1 or not start_ns <= keyframe_ns <= end_ns:
            raise ValueError(
                f"a run of {weight} steps from {start_ns} to {end_ns} ns with its keyframe at {keyframe_ns} ns; it "
                "needs a step or more, and stamps in order"
            )
        singles = min(weight, max(0, micro_cluster_count(self._config) - self._steps)) if self._clustered else 0

        edges = [*range(singles + 1), *([weight] if singles < weight else [])]
        for first, last in itertools.pairwise(edges):
            start, end = (start_ns + (end_ns - start_ns) * edge // weight for edge in (first, last))
            self._append(high, low, (start, end, min(max(start, keyframe_ns), end)), last - first)

    def _append(self, high: Tensor, low: Tensor, stamps_ns: tuple[int, int, int], weight: int) -> None:
        """Adds steps with the same features; stamps of their start, end and keyframe."""
        self._set_times(*stamps_ns, weight)
        high, low = self._keep(high, low, weight)
        if self._clustered is not None:
            self._clustered.append(self._steps, high, low)
        if self._spaced is not None:
            self._spaced.append(self._steps, high, low, self._stamps_ns, weight)
        self._steps += weight

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
            return self._snapshot(self._steps, provisional=False)
        high, low, stamp_ns = provisional
        self._check(high[None], low[None], [stamp_ns], [stamp_ns])
        self._set_times(stamp_ns, stamp_ns, stamp_ns)
        high, low = self._keep(high, low)
        if self._clustered is not None:
            self._clustered.insert(self._steps, high, low)
        if self._spaced is not None:
            self._spaced.provide(high, low, self._stamps_ns)
        snapshot = self._snapshot(self._steps + 1, provisional=True)
        if self._clustered is not None:
            self._clustered.discard()
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
            f"{name.removeprefix(SETTING)} {_setting(state[name])} where this one has {_setting(value)}"
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
        tensors = {} if self._clustered is None else self._clustered.tensors()
        if self._spaced is not None:
            tensors |= {f"spaced.{name}": tensor for name, tensor in self._spaced.tensors().items()}
        if self._config.window_slots:
            tensors |= {"window.high": self._window, "window.stamps_ns": self._window_ns}
        return tensors

    def _settings(self) -> dict[str, Tensor]:
        """What the state, or what follows from it, depends on: int64 or float64 scalars, names as uint8 characters."""
        candidates = self._clustered.candidates if self._clustered else None
        values = {
            **asdict(self._config),
            "grid_height": self._grid.height,
            "grid_width": self._grid.width,
            "feature_dim": self._width,
            "micro_clusters": micro_cluster_count(self._config),
            "candidates": candidates.per_cluster if candidates else 0,
        }
        types = {int: torch.int64, float: torch.float64, list: torch.uint8}
        listed = {name: list(value.encode()) if isinstance(value, str) else value for name, value in values.items()}
        return {SETTING + name: torch.tensor(value, dtype=types[type(value)]) for name, value in listed.items()}

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

    def _set_times(self, start_ns: int, end_ns: int, keyframe_ns: int, weight: int = 1) -> None:
        """Sets mean index, stamps and weight of the next steps."""
        # fill_ passes the number with the kernel launch; a copy from the host would wait.
        self._step.fill_(self._steps + (weight - 1) // 2)
        self._stamps_ns[0].fill_(start_ns)
        self._stamps_ns[1].fill_(end_ns)
        self._stamps_ns[2].fill_(keyframe_ns)
        self._weight.fill_(weight)

    def _keep(self, high: Tensor, low: Tensor, weight: int = 1) -> tuple[Tensor, Tensor]:
        """The next steps' features as they are kept, `high` [P, D] and `low` [F]; the window takes them in."""
        high, low = high.to(self._like), low.to(self._like).reshape(-1)
        if self._config.window_slots:
            ring = len(self._window)
            for step in range(self._steps + max(0, weight - ring), self._steps + weight):
                self._window[step % ring].copy_(high)
                self._window_ns[step % ring].copy_(self._stamps_ns[2])
        return high, low

    def _snapshot(self, steps: int, provisional: bool) -> MemorySnapshot:
        """The snapshot after `steps` steps, of which a provisional one is the last."""
        keyframes = None
        if self._clustered is None:
            csm = self._sampled_slots(steps, provisional)
        else:
            reduction = self._clustered.reduce(steps, provisional)
            csm, keyframes = reduction.csm, reduction.keyframes
        if keyframes is None:
            keyframes = self._spaced_keyframes(csm, steps, provisional)
        snapshot = MemorySnapshot(
            grid=self._grid,
            steps=steps,
            csm=csm.centroids.to(self._like.dtype).view(-1, self._grid.low_patches, self._width),
            csm_weights=csm.weights,
            csm_times=csm.times,
            csm_start_ns=csm.start_ns,
            csm_end_ns=csm.end_ns,
            csm_steps=csm.steps,
            csm_stamps_ns=csm.stamps_ns,
            dam=keyframes.high,
            dam_steps=keyframes.steps,
            dam_slots=keyframes.slots,
            dam_stamps_ns=keyframes.stamps_ns,
            window=self._newest(self._window, steps),
            window_stamps_ns=self._newest(self._window_ns, steps),
            provisional=provisional,
        )
        if self._step.device.type != "cuda":
            return snapshot
        return replace(snapshot, ready=torch.cuda.current_stream(self._step.device).record_event())

    def _sampled_slots(self, steps: int, provisional: bool) -> CsmSlots:
        """The CSM of single steps: all of them, or evenly spaced ones, as near as they are kept."""
        count, device = self._config.csm_slots, self._step.device
        if self._spaced is None or count == 0:
            none = self._stamps_ns[:0].clone()
            return CsmSlots(self._like.flatten(1), none.float(), none.float(), none, none, none, none)
        wanted = torch.arange(steps, device=device) if steps <= count else evenly_spaced(steps, count, device).long()
        rows, kept = self._spaced.rows(wanted, steps, provisional)
        return CsmSlots(
            centroids=self._spaced.low[rows],
            weights=torch.ones(rows.shape[0], device=device),
            times=kept.float(),
            start_ns=self._spaced.start_ns[rows],
            end_ns=self._spaced.end_ns[rows],
            steps=kept,
            stamps_ns=self._spaced.start_ns[rows],
        )

    def _spaced_keyframes(self, csm: CsmSlots, steps: int, provisional: bool) -> Keyframes:
        """The DAM where it holds no candidates: all steps, or evenly spaced ones, as near as they are kept."""
        count, device = self._config.dam_slots, self._step.device
        if self._spaced is None or count == 0:
            none = self._stamps_ns[:0].clone()
            return Keyframes(none, self._window.new_zeros(0, self._grid.patches, self._width), none, none)
        method = self._config.keyframe_method(steps)
        if steps <= count:
            wanted = torch.arange(steps, device=device)
            slots = every_slot(steps, self._config.csm_slots, device)
        elif method == SAMPLE:
            wanted = evenly_spaced(steps, count, device).round().long()
            slots = torch.full((count,), NO_SLOT, device=device)
        else:
            # The CSM is to be sampled, and still holds all steps.
            slots = largest_clusters(csm.weights, count)
            wanted = steps_of_clusters(method, csm.centroids, csm.centroids[slots], csm.times[slots])
        rows, kept = self._spaced.rows(wanted, steps, provisional)
        return Keyframes(slots, self._spaced.high[rows], kept, self._spaced.start_ns[rows])

    def _newest(self, ring: Tensor, steps: int) -> Tensor:
        """What a ring holds of the filled window, [min(steps, W), ...], after `steps` steps."""
        count = min(steps, self._config.window_slots)
        if count == 0:
            return ring[:0]
        return torch.stack([ring[step % len(ring)] for step in range(steps - count, steps)])


def _setting(value: Tensor) -> object:
    """A setting of a saved memory as it is shown."""
    return bytes(value.tolist()).decode(errors="replace") if value.dtype == torch.uint8 else value.tolist()
