"""Model shapes to benchmark. Speed does not depend on the weights' values, so that random ones do."""

from __future__ import annotations

from dataclasses import dataclass, field

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import PatchGrid


@dataclass(frozen=True)
class MemoryShape:
    """What the Flash Memory of a model holds.

    Attributes:
        grid: patches of a frame.
        feature_dim: width of a patch feature.
        config: slots.
    """

    grid: PatchGrid
    feature_dim: int
    config: FlashMemoryConfig = field(default_factory=FlashMemoryConfig)


# Qwen2-VL has the same vision tower at all sizes; 24 x 40 patches are a 16:9 camera in the published protocol.
MEMORY_SHAPES = {
    "tiny": MemoryShape(PatchGrid(8, 8), 64),
    "qwen2-vl-2b": MemoryShape(PatchGrid(24, 40), 1280),
    "qwen2-vl-7b": MemoryShape(PatchGrid(24, 40), 1280),
}
