"""`fvs bench ingest`: what a grid step costs from the camera's message to the published memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from rich.progress import Progress

from fvs_ros.bench.costs import ModelCosts
from fvs_ros.bench.measure import Machine, Measure, Stopwatch, held_bytes, single, summarise
from fvs_ros.bench.shapes import MODEL_SHAPES, random_checkpoint
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.memory.streaming import EAGER_UPDATES, micro_cluster_count
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.preprocess import PATCH, normalise, resize_frames
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.sources.images import PlainImage, decode_compressed_image, decode_image
from fvs_ros.stream.ingest import DecodedFrame, EpisodeMemory
from fvs_ros.stream.origins import StepOrigin

CAMERA = (1_080, 1_920)
REPEATS = 20
BATCH_STEPS = {"cpu": 4, "cuda": 16}
CAMERA_STEPS_PER_S = 15
# Steps after which resident memory has settled.
SETTLED = 100


@dataclass(frozen=True)
class IngestTargets:
    """What is asked of a step on an H100-class GPU with the 7B model at 448 x 448."""

    step_ms: float = 12.0
    batched_ms: float = 5.0
    camera_share: float = 0.2


TARGETS = {("cuda", "qwen2-vl-7b"): IngestTargets()}
GROWTH = 0.01


@dataclass(frozen=True)
class _Compressed:
    """The fields of a `sensor_msgs/CompressedImage` that decoding reads."""

    data: bytes
    format: str = "jpeg"


def bench_ingest(
    name: str, machine: Machine, device: torch.device, dtype: torch.dtype, steps: int, seed: int
) -> list[Measure]:
    """Measures a model with random weights on a camera's noise.

    Args:
        name: of the model's shape.
        machine: for the floors.
        device: where the model is.
        dtype: of its weights.
        steps: grid steps over which memory must stay flat, at least 200.
        seed: of weights and frames.

    Raises:
        ValueError: too few steps.
    """
    if steps < 2 * SETTLED:
        raise ValueError(f"asked for {steps} steps; that memory is flat needs at least {2 * SETTLED}")
    checkpoint = random_checkpoint(name, device, dtype, seed)
    model, costs = FlashVStream(checkpoint, name), ModelCosts(checkpoint.network)
    targets = TARGETS.get((device.type, name))
    watch = Stopwatch(device)
    generator = np.random.default_rng(seed)
    side = MODEL_SHAPES[name].frame
    grid = PatchGrid(side // PATCH, side // PATCH)
    batch = BATCH_STEPS[device.type]
    images = [generator.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(2 * batch)]

    def times(call: Callable[[], object], count: int = REPEATS) -> list[float]:
        call()
        return [watch.milliseconds(call) for _ in range(count)]

    frames = _camera_frames(generator, watch, grid, device)
    pixels = normalise(resize_frames(images[:2], grid, device), checkpoint.pixels)
    encode = times(lambda: model.encode_pixels(pixels))
    memory = EpisodeMemory(model, grid, 0)
    stream = _Stream(memory, images)
    # A memory that has merged long since, as it is from the first minutes on: reducing it costs most of a snapshot.
    for _ in range(0, micro_cluster_count(model.memory_config) + EAGER_UPDATES, batch):
        stream.add(batch)
    step = times(lambda: stream.add(1))
    batched = [milliseconds / batch for milliseconds in times(lambda: stream.add(batch))]
    growth = _growth(stream, batch, steps, device)
    step_floor, batch_floor = (costs.encode(grid, count).floor_ms(machine) / count for count in (1, batch))
    share = [milliseconds / 1e3 * CAMERA_STEPS_PER_S for milliseconds in batched]
    return [
        *frames,
        summarise("encode a step (ViT)", "ms", encode, floor=step_floor),
        summarise("a step to memory", "ms", step, floor=step_floor, target=targets.step_ms if targets else None),
        summarise(
            f"step in a batch of {batch}",
            "ms",
            batched,
            floor=batch_floor,
            target=targets.batched_ms if targets else None,
        ),
        summarise("share of 30 fps camera", "x", share, target=targets.camera_share if targets else None),
        single(f"growth since step {SETTLED}", "x", growth, GROWTH),
    ]


def _camera_frames(
    generator: np.random.Generator, watch: Stopwatch, grid: PatchGrid, device: torch.device
) -> list[Measure]:
    """What a frame of a 1080p camera costs before the ViT."""
    # Smooth, as a scene is: JPEG takes twice as long on noise.
    coarse = generator.integers(0, 256, (CAMERA[0] // 40, CAMERA[1] // 40, 3), dtype=np.uint8)
    frame = cv2.resize(coarse, (CAMERA[1], CAMERA[0]), interpolation=cv2.INTER_CUBIC)
    raw: Any = PlainImage.of(frame, "bgr8")
    compressed: Any = _Compressed(cv2.imencode(".jpg", frame)[1].tobytes())
    calls: dict[str, Callable[[], object]] = {
        "decode 1080p, raw": lambda: decode_image(raw),
        "decode 1080p, JPEG": lambda: decode_compressed_image(compressed),
        "resize it": lambda: resize_frames([frame], grid, device),
    }
    measures = []
    for name, call in calls.items():
        call()
        measures.append(summarise(name, "ms", [watch.milliseconds(call) for _ in range(REPEATS)]))
    return measures


class _Stream:
    """Steps of the same few frames, stamped one after the other."""

    def __init__(self, memory: EpisodeMemory, images: list[np.ndarray]) -> None:
        self._memory = memory
        self._images = images
        self._frames = 0

    def add(self, steps: int) -> None:
        """So many steps as one batch; a snapshot is taken of them, as when they are published."""
        frames = []
        for _ in range(2 * steps):
            message: Any = PlainImage.of(self._images[self._frames % len(self._images)], "rgb8")
            self._frames += 1
            frames.append(DecodedFrame(self._frames * SECOND_NS, decode_image(message), StepOrigin()))
        self._memory.add(frames)


def _growth(stream: _Stream, batch: int, steps: int, device: torch.device) -> float:
    """By how much memory has grown at its most since it settled, as a share of what it was then."""
    held = []
    with Progress(transient=True) as progress:
        for step in progress.track(range(0, steps, batch), description=f"{steps} steps"):
            stream.add(batch)
            if step >= SETTLED:
                held.append(held_bytes(device))
    return max(held) / held[0] - 1
