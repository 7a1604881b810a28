"""`fvs memory-plan`: what a model takes at each quantization and frame size, and which devices that fits."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.commands.model_arguments import SLOTS, add_memory_arguments
from fvs_ros.model.checkpoint_errors import CheckpointError
from fvs_ros.model.quantization import Quantization

if TYPE_CHECKING:
    from fvs_ros.memory.snapshot import PatchGrid
    from fvs_ros.model.checkpoint import ModelConfig
    from fvs_ros.model.memory_plan import MemoryPlan
    from fvs_ros.model.preprocess import PixelConfig

MAX_PIXELS = (100_352, 200_704, 401_408)
"""Half of the node's default, the default and twice it."""
DEVICES_GB = (8, 12, 16, 24)
OVERHEAD_BYTES = 10**9
"""Of a device that is taken by what is not planned: CUDA's context, libraries, and what allocators keep."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the model, its dtype and the frame sizes."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a folder with a config.json (no weights are needed), a model in the hub's local cache, embedded, or a "
        "shape: qwen2-vl-2b, qwen2-vl-7b, qwen2.5-vl-3b, qwen2.5-vl-7b, qwen3-vl-2b, qwen3-vl-4b or qwen3-vl-8b",
    )
    parser.add_argument("--dtype", default="bfloat16", help="float32, bfloat16 or float16 (%(default)s)")
    parser.add_argument(
        "--max-pixels",
        type=int,
        nargs="+",
        metavar="N",
        default=list(MAX_PIXELS),
        help=f"largest areas of a processed frame, of a 16:9 camera ({', '.join(map(str, MAX_PIXELS))})",
    )
    add_memory_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints a row for each frame size and quantization.

    Raises:
        CheckpointError: there is no such model, or its configuration cannot be used.
    """
    import torch
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from fvs_ros.model.flash_vstream import pick_dtype
    from fvs_ros.model.memory_plan import MemoryPlanner

    dtype = pick_dtype(arguments.dtype, torch.device("cpu"))
    config, pixels = _configuration(arguments.model)
    try:
        memory = config.memory.with_slots(*(getattr(arguments, name) for name in SLOTS))
        planner = MemoryPlanner(config.network, memory, deepstack=not arguments.no_deepstack)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    table = Table(title=f"GB as {arguments.dtype}, of a 16:9 camera", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("frame", "quantization", "weights", "memory", "buffers", "working", "peak", "fits"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("quantization", "fits") else "right")
    for most in arguments.max_pixels:
        grid = frames_of(most, pixels)
        for quantization in Quantization:
            plan = planner.plan(grid, dtype, quantization, "cuda")
            parts = (plan.weights, plan.memory + plan.snapshots, plan.buffers, plan.working, plan.peak)
            table.add_row(
                f"{grid.width * pixels.patch} x {grid.height * pixels.patch}",
                quantization.value,
                *(f"{part / 1e9:.1f}" for part in parts),
                smallest_device(plan),
            )
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(
        f"fits: the smallest of {', '.join(map(str, DEVICES_GB))} GB that leaves {OVERHEAD_BYTES / 1e9:.0f} GB for the "
        "rest",
        highlight=False,
    )
    return 0


def frames_of(max_pixels: int, pixels: PixelConfig) -> PatchGrid:
    """Patches of a camera's processed frames of at most that area."""
    from fvs_ros.model.memory_plan import CAMERA, FRAME_PIXELS
    from fvs_ros.model.preprocess import frame_grid

    return frame_grid(*CAMERA, min(max_pixels, FRAME_PIXELS[0]), max_pixels, pixels)


def smallest_device(plan: MemoryPlan) -> str:
    """The smallest of the devices that it fits."""
    fitting = [size for size in DEVICES_GB if plan.peak + OVERHEAD_BYTES <= size * 10**9]
    return f"{fitting[0]} GB" if fitting else "none of them"


def _configuration(name: str) -> tuple[ModelConfig, PixelConfig]:
    """A model's settings, without its weights."""
    from fvs_ros.bench.shapes import SHAPES
    from fvs_ros.model.checkpoint import ModelConfig, read_settings
    from fvs_ros.model.hub import cached_snapshot
    from fvs_ros.model.names import EMBEDDED_FOLDER, is_embedded

    folder = EMBEDDED_FOLDER if is_embedded(name) else Path(name).expanduser()
    if folder.is_dir():
        return read_settings(folder)
    if name in SHAPES:
        shape = SHAPES[name]
        return ModelConfig(shape.network_config(), shape.memory.config), shape.family.pixels
    cached = cached_snapshot(name) if "/" in name else None
    if cached is None:
        raise CheckpointError(
            f"{name} is no folder here and not in the hub's local cache; name a folder with its config.json, or one of "
            f"{', '.join(SHAPES)}"
        )
    return read_settings(cached)
