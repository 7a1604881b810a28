"""How much memory a model takes, from its configuration alone: before it is downloaded, or loaded.

Shapes: N tokens of the memory, D width of a patch feature, H width of the language model.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.model.backbone import Backbone
from fvs_ros.model.checkpoint_errors import CheckpointError
from fvs_ros.model.decoder import MOST_CHUNK, chunk_tokens
from fvs_ros.model.families import FAMILIES, backbone_of
from fvs_ros.model.prefix_cache import ALIGNED_TOKENS, BUFFERS
from fvs_ros.model.preprocess import PixelConfig, frame_grid
from fvs_ros.model.quantization import Quantization
from fvs_ros.model.quantized_weights import linear_layers, quantized_bytes
from fvs_ros.model.relevance import slot_capacity
from fvs_ros.model.suffix_rows import FIRST_ROWS, FIRST_TOKENS

logger = logging.getLogger(__name__)

# Of the prompt's words before the memory.
HEAD_TOKENS = 16
# Snapshots at a time: the published one, the next one, and the one that is prefilled.
SNAPSHOTS = 3
# Words of a step's time in Qwen3-VL, `<1234.5 seconds>`, with the tokens around it.
TIME_TOKENS = 16
# Weights from which on it is worth a second to find out whether they fit.
LARGE = 250_000_000
CAMERA = (1_080, 1_920)
"""Height and width of a camera's frames, for the sizes that are processed."""
FRAME_PIXELS = (100_352, 200_704)
"""Least and largest area of a processed frame: the node's defaults, as is the next."""
BATCH_STEPS = 4
"""Grid steps encoded at once."""
# What a tower's block holds of a patch at a time, in multiples of its width: on a GPU as measured at 448 x 448 (0.1 GB
# a step in bfloat16, with what its captured graph keeps), on a CPU its largest tensors, in and out of the MLP.
PATCH_WIDTHS = {"cuda": 32, "cpu": 10}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of a model on its device, with a memory that is full.

    Attributes:
        weights: of the whole network, as they are stored.
        memory: the Flash Memory.
        snapshots: copies of what it shows, as they are published and prefilled.
        buffers: keys and values of two prefilled memories, and of four questions' own tokens.
        working: what a chunk of a prefill takes for a moment, and what a batch of frames does meanwhile, about.
    """

    weights: int
    memory: int
    snapshots: int
    buffers: int
    working: int

    @property
    def peak(self) -> int:
        """All of it at a time."""
        return self.weights + self.memory + self.snapshots + self.buffers + self.working


def check_room(
    planner: MemoryPlanner,
    pixels: PixelConfig,
    dtype: torch.dtype,
    quantization: Quantization,
    device: torch.device,
    others: Sequence[Quantization],
    stored_bytes: int | None = None,
) -> None:
    """Says before a model is loaded that it does not fit its device, and which setting would.

    The frames are those of a 16:9 camera at the node's default size.

    Args:
        planner: of the model.
        pixels: how it takes frames.
        dtype: of the weights that are not quantised.
        quantization: as it is to be loaded.
        device: where.
        others: what it could be loaded as instead.
        stored_bytes: of the weights, where they are taken as they lie in the files, packed by another library.

    Raises:
        CheckpointError: the weights alone do not fit. Where only what comes later does not, the log warns of it.
    """
    free, grid = free_bytes(device), frame_grid(*CAMERA, *FRAME_PIXELS, pixels)
    plan = planner.plan(grid, dtype, quantization, device.type)
    if stored_bytes is not None:
        plan = replace(plan, weights=stored_bytes)
    if plan.peak <= free:
        return
    plans = {one: planner.plan(grid, dtype, one, device.type).peak for one in others}
    fitting = [f"{one.value}, which needs {size / 1e9:.1f} GB" for one, size in plans.items() if size <= free]
    advice = f"set quantization to {fitting[0]}" if fitting else "choose a smaller model, fewer slots or smaller frames"
    sizes = f"the weights take {plan.weights / 1e9:.1f} GB, with a full memory {plan.peak / 1e9:.1f} GB"
    message = f"{sizes}, and {device} has {free / 1e9:.1f} GB free; {advice}"
    if plan.weights > free:
        raise CheckpointError(message)
    logger.warning(message)


def free_bytes(device: torch.device) -> int:
    """Bytes that a device has left: of a GPU with memory of its own, else of this machine."""
    # A Jetson's GPU shares the machine's memory, and CUDA does not count what the system would give back of its caches.
    if device.type == "cuda" and not torch.cuda.get_device_properties(device).is_integrated:
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return sys.maxsize


class MemoryPlanner:
    """Plans of one model.

    Args:
        config: of its network.
        memory: sizes of its Flash Memory.
        deepstack: of Qwen3-VL; False plans it without.

    Raises:
        ValueError: it has no DeepStack that it could do without.
    """

    def __init__(self, config: PreTrainedConfig, memory: FlashMemoryConfig, *, deepstack: bool = True) -> None:
        self._memory = memory
        with torch.device("meta"):
            network = FAMILIES[config.model_type].network._from_config(copy.deepcopy(config))
        network.tie_weights()
        self._network: nn.Module = network
        self._backbone: Backbone = backbone_of(network)
        if not deepstack:
            self._backbone.drop_deepstack()

    def plan(self, grid: PatchGrid, dtype: torch.dtype, quantization: Quantization, device: str) -> MemoryPlan:
        """What it takes with frames of that many patches.

        Args:
            grid: patches of a frame.
            dtype: of the weights that are not quantised, and of the memory.
            quantization: of the language model's linear layers.
            device: `cpu` or `cuda`, whose chunks of a prefill differ.
        """
        memory, width = self._memory, self._backbone.tower.width
        meta = torch.device("meta")
        slots = (memory.dam_slots + memory.window_slots) * grid.patches + memory.csm_slots * grid.low_patches
        return MemoryPlan(
            weights=self.weight_bytes(dtype, quantization),
            memory=StreamingFlashMemory(memory, grid, width, device=meta, dtype=dtype).bytes,
            snapshots=SNAPSHOTS * slots * width * dtype.itemsize,
            buffers=self._buffers(grid, dtype),
            working=self._prefilling(grid, dtype, quantization, device) + self._encoding(grid, dtype, device),
        )

    def weight_bytes(self, dtype: torch.dtype, quantization: Quantization) -> int:
        """Bytes of all weights; tied ones count once."""
        total = sum(weight.numel() for weight in self._network.parameters()) * dtype.itemsize
        if quantization is Quantization.NONE:
            return total
        for _, linear in linear_layers(self._backbone.layers):
            total += quantized_bytes(linear.weight.shape, quantization) - linear.weight.numel() * dtype.itemsize
        return total

    def _tokens(self, grid: PatchGrid) -> int:
        """N, with the prompt's words, as buffers have them."""
        memory = self._memory
        tokens = HEAD_TOKENS + memory.tokens(grid)
        if self._backbone.prompt_style.step_start:
            tokens += TIME_TOKENS * slot_capacity(memory)
        return tokens + -tokens % ALIGNED_TOKENS

    def _buffers(self, grid: PatchGrid, dtype: torch.dtype) -> int:
        text, layers = self._backbone.text_config, list[Any](self._backbone.layers)
        token = 2 * text.num_hidden_layers * text.num_key_value_heads * layers[0].self_attn.head_dim * dtype.itemsize
        return token * (BUFFERS * self._tokens(grid) + FIRST_ROWS * (FIRST_TOKENS + 1))

    def _encoding(self, grid: PatchGrid, dtype: torch.dtype, device: str) -> int:
        """Of a batch of frames on both resolutions."""
        patches = BATCH_STEPS * (grid.patches + grid.low_patches)
        return PATCH_WIDTHS[device] * patches * self._backbone.tower.block_width * dtype.itemsize

    def _prefilling(self, grid: PatchGrid, dtype: torch.dtype, quantization: Quantization, device: str) -> int:
        """The memory's features and embeddings as a whole, and a chunk's activations and scores."""
        text, tokens = self._backbone.text_config, self._tokens(grid)
        width = self._backbone.tower.width
        embeddings = tokens * (4 * width + 3 * text.hidden_size) * dtype.itemsize
        layers = sum(weight.numel() for weight in self._backbone.layers.parameters())
        chunk = min(chunk_tokens(layers, device), MOST_CHUNK)
        activations = chunk * (4 * text.hidden_size + 3 * text.intermediate_size) * dtype.itemsize
        widened = 0
        if quantization is Quantization.INT8:
            # torchao widens the weights of one layer before it multiplies.
            widened = max(linear.weight.numel() for _, linear in linear_layers(self._backbone.layers)) * dtype.itemsize
        return embeddings + activations + widened
