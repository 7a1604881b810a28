"""What the benchmarks ask for: two CPU cores with the embedded model, and an H100-class GPU with the 7B one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

UPDATE_MS = {"cpu": 60.0, "cuda": 1.0}
"""A memory update at published sizes, by device type."""
UPDATE_OVER_FLOOR = 3.0
SNAPSHOT_MS = {"cuda": 3.0}
"""A snapshot of a memory that has merged, at published sizes, by device type."""
LATE_OVER_EARLY = 1.2
"""An update after a long stream over one near its beginning."""
PUBLISHED_OVER_OURS = 20.0
"""An update of the published streaming method over ours; a least value."""
GROWTH = 0.01
"""Growth of memory once it has settled, as a share of what it was then."""
AGE_ALLOWANCE_MS = 100.0
"""Age of the newest frame in memory beyond the interval between two kept frames."""


@dataclass(frozen=True)
class ModelTargets:
    """Targets for one model on one type of device; None where nothing is asked for.

    Attributes:
        step_ms: a grid step from message to memory.
        step_over_encode: the same over the ViT of the step alone.
        batched_step_ms: a step in a batch.
        camera_share: share of the device for a 30 fps camera.
        warm_ms: p95 of the time to the first token while frames come in.
        fresh_ms: the same with the newest frame required in memory.
        tokens_per_s: least rate of a single answer.
        recall_ms: p95 of the time to the first token of a question that recalls, while frames come in.
        store_s: seconds from opening a day's store to the first answer from it.
    """

    step_ms: float | None = None
    step_over_encode: float | None = None
    batched_step_ms: float | None = None
    camera_share: float | None = None
    warm_ms: float | None = None
    fresh_ms: float | None = None
    tokens_per_s: float | None = None
    recall_ms: float | None = None
    store_s: float | None = None


_TARGETS = {
    ("cpu", "embedded"): ModelTargets(step_over_encode=4.0, warm_ms=100.0, recall_ms=150.0, store_s=2.0),
    ("cuda", "qwen2-vl-7b"): ModelTargets(
        step_ms=12.0,
        batched_step_ms=5.0,
        camera_share=0.2,
        warm_ms=30.0,
        fresh_ms=600.0,
        tokens_per_s=120.0,
        recall_ms=100.0,
    ),
}


def model_targets(device: torch.device, name: str) -> ModelTargets:
    """The targets for the model shape `name`; none for a pair that is not listed."""
    return _TARGETS.get((device.type, name), ModelTargets())
