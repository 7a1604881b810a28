"""Parity: does this pipeline compute what the published code computed?

A golden file holds a checkpoint's weights, frames, and every quantity that the published code computed from them. The
model is rebuilt from the weights, the pipeline of this package runs on the frames, and each quantity is compared.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fvs_ros.errors import ReadableError
from fvs_ros.memory.geometry import FRAMES_PER_STEP, PATCH
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.positions import memory_positions
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid
from fvs_ros.model.backbone import Backbone
from fvs_ros.model.checkpoint import ModelConfig, load_network
from fvs_ros.model.qwen2_vl import Qwen2VLBackbone
from fvs_ros.model.reference import ReferenceDecoder
from fvs_ros.model.sequence import text_positions

TOLERANCE = 1e-4
WEIGHTS = "weights."
# A file of memory quantities alone need not have a prompt, one without clusters no start of k-means.
INPUTS = FRAMES, PROMPT, KMEANS_START = ("frames", "input_ids", "kmeans_init")
OF_PROMPT = ("position_ids", "logits_memory_end", "logits_last", "generated")


class GoldenError(ReadableError, ValueError):
    """A file cannot be used as a golden file."""


@dataclass(frozen=True)
class Golden:
    """One golden file: `config.json`, weights by published name, and inputs and results by name."""

    config: ModelConfig
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Comparison:
    """How far one quantity is from the golden one.

    Attributes:
        quantity: its name in the golden file.
        shape: of the golden quantity.
        error: largest absolute difference; infinite where the shapes differ or a value is not a number.
        tolerance: largest error that agrees; 0 for integers.
    """

    quantity: str
    shape: tuple[int, ...]
    error: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.tolerance


def read_golden(path: Path) -> Golden:
    """Reads a golden file.

    Raises:
        GoldenError: it cannot be read, or lacks its config or an input.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    except (OSError, SafetensorError) as error:
        raise GoldenError(f"cannot be read: {error}") from error
    if "config" not in metadata:
        raise GoldenError("its metadata has no config; a golden file carries the checkpoint's config.json there")
    try:
        config = ModelConfig.from_json(json.loads(metadata["config"]))
    except json.JSONDecodeError as error:
        raise GoldenError(f"its config is not valid JSON: {error}") from error
    needed = (True, not tensors.keys().isdisjoint(OF_PROMPT), config.memory.clusters)
    missing = [name for name, needs in zip(INPUTS, needed, strict=True) if needs and name not in tensors]
    if missing:
        raise GoldenError(f"has no {', '.join(missing)}")
    weights = {name.removeprefix(WEIGHTS): tensors[name] for name in tensors if name.startswith(WEIGHTS)}
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(WEIGHTS)}
    return Golden(config, weights, rest)


def compare(golden: Golden) -> list[Comparison]:
    """Compares every quantity of the file with this package's.

    Raises:
        GoldenError: the file holds an unknown quantity, or none at all.
    """
    results = compute(golden)
    expected = {name: tensor for name, tensor in golden.tensors.items() if name not in INPUTS}
    unknown = sorted(expected.keys() - results.keys())
    if unknown or not expected:
        raise GoldenError(f"holds unknown quantities: {', '.join(unknown)}" if unknown else "holds no results")
    return [_compare(name, results[name], tensor) for name, tensor in expected.items()]


@torch.no_grad()
def compute(golden: Golden) -> dict[str, Tensor]:
    """Runs the pipeline on `frames` [T, 3, height, width] and returns each quantity by its name in a golden file.

    Raises:
        GoldenError: `input_ids` does not fit the memory.
    """
    frames = golden.tensors[FRAMES].float()
    config = golden.config.memory
    network = load_network(golden.config, weights=dict(golden.weights), device=torch.device("cpu"), dtype=torch.float32)
    backbone = Qwen2VLBackbone(network)
    grid = PatchGrid.of_frames(frames.shape[2], frames.shape[3], PATCH)
    features = backbone.tower.encode(frames)
    initial = golden.tensors.get(KMEANS_START)
    memory = build_memory(
        features, grid, config, initial_rows=initial if initial is not None and initial.numel() else None
    )
    width = features.low.shape[-1]
    of_memory = {
        "video_grid_thw": torch.tensor([[frames.shape[0] // FRAMES_PER_STEP, grid.height, grid.width]]),
        "vit_features": torch.cat([features.high.reshape(-1, width), features.low.reshape(-1, width)]),
        "csm": memory.csm.reshape(-1, width),
        "csm_weights": memory.csm_weights,
        "csm_time": memory.csm_times,
        "dam_steps": memory.dam_steps,
        "memory_features": memory.features(),
    }
    if PROMPT not in golden.tensors:
        return of_memory
    return of_memory | _of_prompt(golden, backbone, memory)


def _of_prompt(golden: Golden, backbone: Backbone, memory: MemorySnapshot) -> dict[str, Tensor]:
    """The quantities of the language model, which reads the memory within `input_ids` [1, L]."""
    config, ids = golden.config.memory, golden.tensors[PROMPT][0].tolist()
    video_token = golden.config.network.video_token_id
    if ids.count(video_token) != memory.tokens:
        raise GoldenError(f"input_ids has {ids.count(video_token)} memory tokens; this memory has {memory.tokens}")
    first = ids.index(video_token)
    head, suffix = ids[:first], ids[first + memory.tokens :]
    reference = ReferenceDecoder(backbone, config, end_tokens=())
    prefix = reference.prefix(memory, head)
    assert prefix is not None  # nothing stops it
    logits = reference.continue_prefix(prefix, suffix, prefix.next_position)
    reference.rewind(prefix)
    wanted = golden.tensors["generated"].shape[0] if "generated" in golden.tensors else 0
    generated = list(itertools.islice(reference.generate(prefix, suffix), wanted))
    positions = [
        text_positions(0, first, backbone.device),
        memory_positions(memory, first, config.horizon),
        text_positions(prefix.next_position, len(suffix), backbone.device),
    ]
    return {
        "position_ids": torch.cat(positions, dim=1)[:, None],
        "logits_memory_end": prefix.logits,
        "logits_last": logits[-1],
        "generated": torch.tensor(generated),
    }


def _compare(name: str, result: Tensor, expected: Tensor) -> Comparison:
    tolerance = TOLERANCE if expected.is_floating_point() else 0.0
    error = math.inf
    if result.shape == expected.shape:
        error = (result.double() - expected.double()).abs().max().item() if expected.numel() else 0.0
    error = math.inf if math.isnan(error) else error
    return Comparison(name, tuple(expected.shape), error, tolerance)
