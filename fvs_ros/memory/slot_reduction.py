"""From micro-clusters to CSM slots: weighted k-means on squared distances alone.

A snapshot reduces V micro-clusters to K slots. Two starts are refined and the better result is taken: Ward's
agglomeration, which finds scenes that return, and the best segmentation of the stream into K stretches of time, which
suits a slow drift. Both come as compiled loops for a CPU and as tensor operations for any device, with one result.

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


def reduce_clusters(distances: Tensor, weights: Tensor, times: Tensor, slots: int) -> Tensor:
    """The slot [V] int64 of each micro-cluster, chosen for a small sum of squares within slots.

    Every slot gets at least one micro-cluster. Equal input gives equal output, bit for bit.

    Args:
        distances: [V, V] float64, squared distances between the centroids.
        weights: [V] float64, all positive.
        times: [V] float64, rising.
        slots: K, at most V.
    """
    parts = implementation(distances.device)
    merged = parts.refine(distances, weights, parts.agglomerate(distances, weights, times, slots), slots)
    segmented = parts.refine(distances, weights, parts.segment_time(distances, weights, slots), slots)
    better = sum_of_squares(distances, weights, segmented, slots) < sum_of_squares(distances, weights, merged, slots)
    return torch.where(better, segmented, merged)


def prepare(device: torch.device) -> None:
    """Spares the first reduction on `device` the wait for the compiler: seconds once, a few tenths of one later."""
    implementation(device)


def implementation(device: torch.device) -> ModuleType:
    """The module whose `agglomerate`, `segment_time` and `refine` are used on `device`."""
    return (_compiled() if device.type == "cpu" else None) or reduction_by_tensors


@functools.cache
def _compiled() -> ModuleType | None:
    """The compiled loops; None, with a warning, where this machine cannot compile."""
    try:
        from fvs_ros.memory import reduction_by_loops
    except Exception as error:
        logger.warning(
            f"reducing the memory for a snapshot takes many times longer than it could, since numba does not work here "
            f"({type(error).__name__}: {error}); install the numba that suits this Python and NumPy"
        )
        return None
    return reduction_by_loops
