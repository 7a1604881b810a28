"""`fvs bench ingest`: the cost of a grid step from the camera's message to the published memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from fvs_ros.bench.costs import ModelCosts
from fvs_ros.bench.measure import BenchError, Measurement, Setup, Stopwatch, growth, held_bytes, single, summarise
from fvs_ros.bench.shapes import SHAPES, random_checkpoint
from fvs_ros.bench.targets import GROWTH, model_targets
from fvs_ros.memory.clustered_steps import EAGER_UPDATES, micro_cluster_count
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.preprocess import normalise, resize_frames
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.sources.images import PlainImage, decode_compressed_image, decode_image
from fvs_ros.stream.episode_memory import DecodedFrame, EpisodeMemory
from fvs_ros.stream.origins import StepOrigin

CAMERA = (1_080, 1_920)
BATCH_STEPS = {"cpu": 4, "cuda": 16}
CAMERA_STEPS_PER_S = 15
# Steps after which resident memory has settled.
SETTLED = 100


@dataclass(frozen=True)
class _Compressed:
    """The fields of a `sensor_msgs/CompressedImage` that decoding reads."""

    data: bytes
    format: str = "jpeg"


def bench_ingest(name: str, setup: Setup) -> list[Measurement]:
    """Measures the model shape `name` on noise from a camera.

    Raises:
        BenchError: fewer than 200 steps, too few to see whether memory grows.
    """
    if setup.steps < 2 * SETTLED:
        raise BenchError(f"asked for {setup.steps} steps; that memory is flat needs at least {2 * SETTLED}")
    device, machine = setup.device, setup.machine
    checkpoint = random_checkpoint(name, device, setup.dtype, setup.seed, setup.quantization)
    model, costs = FlashVStream(checkpoint, name), ModelCosts(checkpoint.network)
    targets = model_targets(device, name)
    watch = Stopwatch(device)
    generator = np.random.default_rng(setup.seed)
    side = SHAPES[name].frame
    grid = PatchGrid.of_frames(side, side, checkpoint.pixels.patch)
    batch = BATCH_STEPS[device.type]
    images = [generator.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(2 * batch)]

    frames = _camera_frames(generator, watch, grid, device)
    pixels = normalise(resize_frames(images[:2], grid, device), checkpoint.pixels)
    encode = watch.samples(lambda: model.encode_pixels(pixels))
    stream = _Stream(EpisodeMemory(model, grid, 0), images)
    # A memory has merged micro-clusters from its first minutes on; reducing them is most of the cost of a snapshot.
    for _ in range(0, micro_cluster_count(model.memory_config) + EAGER_UPDATES, batch):
        stream.add(batch)
    step = watch.samples(lambda: stream.add(1))
    batched = [milliseconds / batch for milliseconds in watch.samples(lambda: stream.add(batch))]
    held = _held_bytes(stream, batch, setup)
    step_floor, batch_floor = (costs.encode(grid, count).floor_ms(machine) / count for count in (1, batch))
    share = [milliseconds / 1e3 * CAMERA_STEPS_PER_S for milliseconds in batched]
    alone = summarise("encode a step (ViT)", "ms", encode, floor=step_floor)
    whole = summarise("a step to memory", "ms", step, floor=step_floor, target=targets.step_ms)
    return [
        *frames,
        alone,
        whole,
        single("a step / its ViT", "x", whole.median / alone.median, targets.step_over_encode),
        summarise(f"step in a batch of {batch}", "ms", batched, floor=batch_floor, target=targets.batched_step_ms),
        summarise("share of 30 fps camera", "x", share, target=targets.camera_share),
        single(f"growth since step {SETTLED}", "x", growth(held), GROWTH),
    ]


def _camera_frames(
    generator: np.random.Generator, watch: Stopwatch, grid: PatchGrid, device: torch.device
) -> list[Measurement]:
    """The cost of a frame of a 1080p camera before the ViT."""
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
    return [summarise(name, "ms", watch.samples(call)) for name, call in calls.items()]


class _Stream:
    """A stream that repeats a few frames with rising stamps."""

    def __init__(self, memory: EpisodeMemory, images: list[np.ndarray]) -> None:
        self._memory = memory
        self._images = images
        self._frames = 0

    def add(self, steps: int) -> None:
        """Adds `steps` steps as one batch, which also takes the snapshot that is published."""
        frames = []
        for _ in range(2 * steps):
            message: Any = PlainImage.of(self._images[self._frames % len(self._images)], "rgb8")
            self._frames += 1
            frames.append(DecodedFrame(self._frames * SECOND_NS, decode_image(message), StepOrigin()))
        self._memory.add(frames)


def _held_bytes(stream: _Stream, batch: int, setup: Setup) -> list[int]:
    """Bytes held after each batch of `setup.steps` steps, once memory has settled."""
    held = []
    for step in setup.track(range(0, setup.steps, batch), f"{setup.steps} steps"):
        stream.add(batch)
        if step >= SETTLED:
            held.append(held_bytes(setup.device))
    return held
