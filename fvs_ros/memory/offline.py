"""The published, offline Flash Memory: all steps of a clip in, one memory out.

Shapes: T grid steps, P patches of a frame, D width of a patch feature.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fvs_ros.memory.config import SAMPLE, FlashMemoryConfig
from fvs_ros.memory.keyframes import NO_SLOT, every_slot, largest_clusters, steps_of_clusters
from fvs_ros.memory.kmeans import Clusters, ordered_kmeans
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.memory.spaced_steps import evenly_spaced

# Without stamps, frames are taken to be sampled at the published rate of one a second.
FRAME_PERIOD_NS = 1_000_000_000


def build_memory(
    features: StepFeatures,
    grid: PatchGrid,
    config: FlashMemoryConfig,
    *,
    start_ns: Tensor | None = None,
    end_ns: Tensor | None = None,
    initial_rows: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> MemorySnapshot:
    """Flash Memory of a whole clip, exactly as published (ICCV 2025; the Qwen2-VL code), plus a window if it has one.

    The CSM holds up to `csm_slots` steps unchanged; beyond, the clusters of an ordered k-means, or evenly spaced steps
    (`temporal_method`). The DAM holds up to `dam_slots` steps in order of time; beyond, a step for each of the largest
    clusters, in order of falling cluster weight and repeated where two clusters share theirs, or evenly spaced steps in
    order of time (`spatial_method`).

    Args:
        features: of T steps, high [T, P, D] and low [T, P / 4, D].
        grid: patches of a frame.
        config: sizes and methods.
        start_ns: [T] int64, stamp of each step's first frame; one frame a second from 0 if None.
        end_ns: [T] int64, stamp of each step's second frame; one second after its first if None.
        initial_rows: the start of k-means, see `ordered_kmeans`.
        generator: for the random numbers of k-means, see `ordered_kmeans`.

    Raises:
        ValueError: no steps, or features that do not fit the grid or each other.
    """
    _check(features, grid)
    high, low = features.high, features.low
    steps = low.shape[0]
    index = torch.arange(steps, device=low.device)
    start_ns = index * 2 * FRAME_PERIOD_NS if start_ns is None else start_ns
    end_ns = start_ns + FRAME_PERIOD_NS if end_ns is None else end_ns

    rows = low.reshape(steps, -1)
    if steps > config.csm_slots and config.clusters:
        clusters = ordered_kmeans(rows, config.csm_slots, initial_rows=initial_rows, generator=generator)
    else:
        clusters = _single_steps(rows, config.csm_slots)
    slots, keyframes = _choose_keyframes(rows, clusters, config)
    middles, count = _middle_steps(clusters), clusters.weights.shape[0]
    return MemorySnapshot(
        grid=grid,
        steps=steps,
        csm=clusters.centroids.to(low.dtype).reshape(count, grid.low_patches, low.shape[-1]),
        csm_weights=clusters.weights,
        csm_times=clusters.times,
        csm_start_ns=_reduce_stamps(start_ns, clusters, "amin"),
        csm_end_ns=_reduce_stamps(end_ns, clusters, "amax"),
        csm_steps=middles,
        csm_stamps_ns=start_ns[middles],
        dam=high[keyframes],
        dam_steps=keyframes,
        dam_slots=slots,
        dam_stamps_ns=start_ns[keyframes],
        window=high[max(0, steps - config.window_slots) :],
        window_stamps_ns=start_ns[max(0, steps - config.window_slots) :],
    )


def _check(features: StepFeatures, grid: PatchGrid) -> None:
    high, low = features.high, features.low
    steps = low.shape[0]
    if high.shape[:2] != (steps, grid.patches) or low.shape[1] != grid.low_patches or steps < 1:
        raise ValueError(
            f"features are {tuple(high.shape)} and {tuple(low.shape)}; a {grid.height} x {grid.width} grid of "
            f"T >= 1 steps needs [T, {grid.patches}, D] and [T, {grid.low_patches}, D]"
        )


def _single_steps(rows: Tensor, count: int) -> Clusters:
    """All steps if there are at most `count`, else that many evenly spaced ones, cut to whole numbers as published."""
    steps, device = rows.shape[0], rows.device
    if steps <= count:
        every = torch.arange(steps, device=device)
        return Clusters(rows, torch.ones(steps, device=device), every.float(), every)
    kept = evenly_spaced(steps, count, device).long()
    return Clusters(rows[kept], torch.ones(count, device=device), kept.float(), kept.new_zeros(0))


def _choose_keyframes(rows: Tensor, clusters: Clusters, config: FlashMemoryConfig) -> tuple[Tensor, Tensor]:
    """The slots [R] that get a keyframe, and its step [R]; all steps in order of time if there are at most M."""
    steps, count, device = rows.shape[0], config.dam_slots, rows.device
    if steps <= count:
        return every_slot(steps, config.csm_slots, device), torch.arange(steps, device=device)
    method = config.keyframe_method(steps)
    if method == SAMPLE:
        return torch.full((count,), NO_SLOT, device=device), evenly_spaced(steps, count, device).round().long()
    slots = largest_clusters(clusters.weights, count)
    return slots, steps_of_clusters(method, rows, clusters.centroids[slots], clusters.times[slots])


def _middle_steps(clusters: Clusters) -> Tensor:
    """The member [K] int64 of each cluster that is nearest to its mean time; that time where there are no members."""
    times = clusters.times.round().long()
    labels = clusters.labels
    if not labels.shape[0]:
        return times
    index, slots = (torch.arange(len(one), device=labels.device) for one in (labels, times))
    offsets = (index[None] - clusters.times[:, None]).abs().masked_fill(labels[None] != slots[:, None], torch.inf)
    return torch.where(offsets.isinf().all(1), times, offsets.argmin(1))


def _reduce_stamps(stamps: Tensor, clusters: Clusters, reduce: str) -> Tensor:
    """First or last stamp [K] of each cluster's members; a cluster without members takes the step nearest its time."""
    nearest = stamps[clusters.times.round().long()]
    members = stamps[: clusters.labels.shape[0]]
    return nearest.scatter_reduce(0, clusters.labels, members, reduce, include_self=False)
