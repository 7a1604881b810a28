"""From micro-clusters to CSM slots: weighted k-means on squared distances alone.

A snapshot reduces V micro-clusters to K slots. Two starts are refined and the better result is taken: Ward's
agglomeration, which finds scenes that return, and the best segmentation of the stream into K stretches of time, which
suits a slow drift. All comes as compiled loops for a CPU, as kernels for a GPU and as tensor operations for any device,
with one result.

Shapes: V micro-clusters in order of time, K slots.
"""

from __future__ import annotations

import functools
import logging
from types import ModuleType

import torch
from torch import Tensor

from fvs_ros.memory import reduction_by_tensors
from fvs_ros.memory.reduction_by_tensors import sum_of_squares

logger = logging.getLogger(__name__)

# A kernel is a single block of threads, which is slower than many kernels where the matrices are large.
MOST_KERNEL_CLUSTERS = 512
EXAMPLE_CLUSTERS = 40


def reduce_clusters(distances: Tensor, weights: Tensor, times: Tensor, slots: int) -> Tensor:
    """The slot [V] int64 of each micro-cluster, chosen for a small sum of squares within slots.

    Every slot gets at least one micro-cluster. Equal input gives equal output, bit for bit.

    Args:
        distances: [V, V] float64, squared distances between the centroids.
        weights: [V] float64, all positive.
        times: [V] float64, rising.
        slots: K, at most V.
    """
    parts = implementation(distances.device, weights.shape[0])
    # Triton launches on the current device.
    with torch.cuda.device_of(distances):
        merged = parts.refine(distances, weights, parts.agglomerate(distances, weights, times, slots), slots)
        segmented = parts.refine(distances, weights, parts.segment_time(distances, weights, slots), slots)
    better = sum_of_squares(distances, weights, segmented, slots) < sum_of_squares(distances, weights, merged, slots)
    return torch.where(better, segmented, merged)


def prepare(device: torch.device, clusters: int, slots: int) -> None:
    """Compiles what reducing V = `clusters`, or one more, to K = `slots` on `device` needs, so that no snapshot waits.

    Takes seconds once, and a few tenths of a second where the compilers find what they kept. Waits for the device.
    """
    if implementation(device, clusters) is not reduction_by_tensors and device.type == "cuda":
        for count in (clusters, clusters + 1):
            reduce_clusters(*_example(count, device), slots)


def implementation(device: torch.device, clusters: int) -> ModuleType:
    """The module whose `agglomerate`, `segment_time` and `refine` are used for V = `clusters` on `device`."""
    compiled = None
    if device.type == "cpu":
        compiled = _loops()
    elif device.type == "cuda" and clusters <= MOST_KERNEL_CLUSTERS:
        compiled = _kernels(device)
    return compiled or reduction_by_tensors


@functools.cache
def _loops() -> ModuleType | None:
    """The compiled loops; None, with a warning, where numba does not work."""
    try:
        from fvs_ros.memory import reduction_by_loops
    except Exception as error:
        _warn("numba", error)
        return None
    return reduction_by_loops


@functools.cache
def _kernels(device: torch.device) -> ModuleType | None:
    """The kernels; None, with a warning, where Triton does not work or decides otherwise than tensor operations."""
    try:
        from fvs_ros.memory import reduction_by_kernels

        check(reduction_by_kernels, device)
    except Exception as error:
        _warn("Triton", error)
        return None
    return reduction_by_kernels


def check(parts: ModuleType, device: torch.device) -> None:
    """Compares an implementation with tensor operations on a small problem.

    Raises:
        RuntimeError: they do not agree.
    """
    distances, weights, times = _example(EXAMPLE_CLUSTERS, device)
    slots = EXAMPLE_CLUSTERS // 3
    spread = torch.arange(EXAMPLE_CLUSTERS, device=device) % slots
    found, expected = (
        (
            module.agglomerate(distances, weights, times, slots),
            module.segment_time(distances, weights, slots),
            module.refine(distances, weights, spread, slots),
        )
        for module in (parts, reduction_by_tensors)
    )
    for part, labels, known in zip(("agglomerate", "segment_time", "refine"), found, expected, strict=True):
        if not torch.equal(labels, known):
            raise RuntimeError(f"{part} of {parts.__name__} gives {labels.tolist()} instead of {known.tolist()}")


def _example(count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Distances, weights and times of micro-clusters on a winding way, some of them equal."""
    times = torch.arange(count, dtype=torch.float64, device=device)
    places = torch.stack([(times // 2 * turn).sin() for turn in (0.7, 1.3, 2.9)], dim=1)
    return (places[:, None] - places).square().sum(2), 1 + times % 3, times


def _warn(compiler: str, error: Exception) -> None:
    logger.warning(
        f"snapshots of the memory take many times longer than they could, since {compiler} does not work here "
        f"({type(error).__name__}: {error}); install the one that suits this Python, NumPy and torch, or go on as it is"
    )
