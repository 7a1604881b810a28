"""Run with TRITON_INTERPRET=1: prints where kernels decide otherwise than tensor operations, on a CPU."""

import itertools
from types import ModuleType

import torch
from reduction_problems import KINDS, degenerate

from fvs_ros.memory import reduction_by_tensors
from fvs_ros.memory.slot_reduction import check


def disagreements(parts: ModuleType, kind: str, count: int, slots: int, seed: int, device: torch.device) -> list[str]:
    """The parts whose labels differ from those of tensor operations."""
    distances, weights, times = (tensor.to(device) for tensor in degenerate(kind, count, seed))
    spread = torch.arange(count, device=device) % slots
    merged = reduction_by_tensors.agglomerate(distances, weights, times, slots)
    segmented = reduction_by_tensors.segment_time(distances, weights, slots)
    pairs = {
        "agglomerate": (merged, parts.agglomerate(distances, weights, times, slots)),
        "segment_time": (segmented, parts.segment_time(distances, weights, slots)),
    }
    for name, start in {"merged": merged, "segmented": segmented, "spread": spread}.items():
        known = reduction_by_tensors.refine(distances, weights, start, slots)
        pairs[f"refine {name}"] = known, parts.refine(distances, weights, start, slots)
    return [name for name, (known, found) in pairs.items() if not torch.equal(known, found)]


if __name__ == "__main__":
    from fvs_ros.memory import reduction_by_kernels

    cpu = torch.device("cpu")
    check(reduction_by_kernels, cpu)
    # So that a matrix takes many tiles, as at the published sizes.
    reduction_by_kernels.TILE = 256
    sizes = [(1, 1), (2, 1), (9, 9), (10, 9), (31, 1), (33, 16), (40, 13)]
    for (count, slots), kind in itertools.product(sizes, KINDS):
        if wrong := disagreements(reduction_by_kernels, kind, count, slots, 0, cpu):
            print(kind, count, slots, wrong)
