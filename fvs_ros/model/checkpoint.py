"""Checkpoints: the published Flash-VStream layout and plain models of `families.py`, from a folder or a hub name.

Only safetensors and JSON are read, and no code that comes with a checkpoint is run.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2Tokenizer
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from fvs_ros.model.backbone import Backbone
from fvs_ros.model.checkpoint_checks import check_tokenizer, check_weights_fit
from fvs_ros.model.checkpoint_errors import CheckpointError, described
from fvs_ros.model.checkpoint_files import (
    CONFIG,
    check_text_files,
    checkpoint_folder,
    read_json,
    read_weight_headers,
    stored_bytes,
)
from fvs_ros.model.families import FAMILIES, backbone_of
from fvs_ros.model.hub import Progress
from fvs_ros.model.layerwise import WeightFiles, add_layers, without_layers
from fvs_ros.model.memory_plan import LARGE, MemoryPlanner, check_room
from fvs_ros.model.model_config import ModelConfig
from fvs_ros.model.packed_weights import PACKED_PARTS, PackedLayers, check_packed_usable
from fvs_ros.model.preprocess import PixelConfig
from fvs_ros.model.quantization import PARTS, Quantization
from fvs_ros.model.quantized_weights import check_usable, save_quantized, usable
from fvs_ros.model.recall import RecallHead


@dataclass(frozen=True)
class Checkpoint:
    """All that a checkpoint holds; `recall` is None where nothing was trained for it."""

    config: ModelConfig
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pixels: PixelConfig
    end_tokens: tuple[int, ...]
    recall: RecallHead | None = None

    @functools.cached_property
    def backbone(self) -> Backbone:
        """The network in the parts that the memory's world needs."""
        return backbone_of(self.network)


def load_checkpoint(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    attention: str = "sdpa",
    quantization: Quantization = Quantization.NONE,
    on_progress: Progress = lambda line: None,
) -> Checkpoint:
    """Loads a checkpoint from a folder, by its name from the hub, or the one that ships with the package.

    Everything else is read and checked before the weights.

    Args:
        name: a folder, a name on the hub (OWNER/MODEL), of which the local cache is taken where it is whole, or
            `embedded`.
        device: where the weights are put.
        dtype: what they are converted to.
        attention: transformers' name of the attention to use.
        quantization: of the language model's linear layers; none takes them as they are in the files.
        on_progress: called with a line on what is being done, about once a second while something is downloaded.

    Raises:
        CheckpointError: a file is missing or broken, the weights do not fit the configuration, or the quantization
            cannot be used here.
        HubError: the hub does not give what the local cache lacks; another try may succeed.
    """
    check_usable(quantization, device, dtype)
    folder = checkpoint_folder(name, on_progress)
    config, pixels = read_settings(folder)
    stored = config.quantised_as is not None
    config = _with_quantization(config, quantization, folder)
    check_usable(config.quantization, device, dtype)
    if config.packed is not None:
        check_packed_usable(config.packed, dtype)
    generation = read_json(folder, "generation_config.json", default={})
    tokenizer = _load_tokenizer(folder)
    check_tokenizer(config.network, tokenizer, folder)
    end_tokens = _end_tokens(generation.get("eos_token_id", config.network.text_config.eos_token_id), tokenizer)
    headers = read_weight_headers(folder, _quantised_parts(config, stored))
    check_weights_fit(config.network, headers, folder)
    if sum(math.prod(header.shape) for header in headers.values()) >= LARGE:
        others = [] if stored else [one for one in Quantization if usable(one, device, dtype)]
        packed_bytes = None if config.packed is None else stored_bytes(folder)
        planner = MemoryPlanner(config.network, config.memory)
        check_room(planner, pixels, dtype, config.quantization, device, others, packed_bytes)
    on_progress("reading the weights")
    if config.quantised_as is None:
        network = load_network(config, name=str(folder), device=device, dtype=dtype, attention=attention)
    else:
        network = _load_by_layers(config, folder, stored, device=device, dtype=dtype, attention=attention)
    try:
        recall = RecallHead.load(folder, config.network.text_config.hidden_size, device)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    return Checkpoint(config, network, tokenizer, pixels, end_tokens, recall)


def read_settings(folder: Path) -> tuple[ModelConfig, PixelConfig]:
    """What a checkpoint says of itself, without its weights and its tokenizer.

    Raises:
        CheckpointError: a file is missing or cannot be used.
    """
    check_text_files(folder)
    config = ModelConfig.from_json(read_json(folder, CONFIG))
    try:
        of_family = FAMILIES[config.network.model_type].pixels
        pixels = PixelConfig.from_preprocessor(read_json(folder, "preprocessor_config.json", default={}), of_family)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / 'preprocessor_config.json'} cannot be used: {error}") from error
    return config, pixels


def _with_quantization(config: ModelConfig, asked: Quantization, folder: Path) -> ModelConfig:
    """The configuration with the quantization that was asked for, where its weights can have it."""
    if asked in (Quantization.NONE, config.quantization):
        return config
    if config.quantised_as is not None:
        raise CheckpointError(
            f"{folder} holds {config.quantised_as} weights, and quantization is {asked.value}; set it to none, or name "
            "the checkpoint in full precision"
        )
    return replace(config, quantization=asked)


def _quantised_parts(config: ModelConfig, stored: bool) -> tuple[str, ...]:
    """How names end of those tensors in the files that are no plain weights."""
    if config.packed is not None:
        return tuple(f".{part}" for part in PACKED_PARTS[config.packed.method])
    return tuple(f".weight.{part}" for part in PARTS.get(config.quantization, ())) if stored else ()


def _load_tokenizer(folder: Path) -> Qwen2Tokenizer:
    try:
        # Its own bound only warns of long texts.
        tokenizer = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True, model_max_length=VERY_LARGE_INTEGER)
        # Some of what is wrong in its files shows only here.
        tokenizer.decode(tokenizer.encode("What is here?"))
        return tokenizer
    except Exception as error:
        # The Rust library raises plain Exception.
        raise CheckpointError(f"the tokenizer of {folder} cannot be loaded: {described(error)}") from error


def _end_tokens(end: object, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    ends = end if isinstance(end, list) else [] if end is None else [end]
    if strange := [token for token in ends if not isinstance(token, int) or isinstance(token, bool)]:
        raise CheckpointError(f"generation_config.json has eos_token_id {strange[0]!r}; it must be a whole number")
    return tuple(sorted({*ends, tokenizer.convert_tokens_to_ids("<|im_end|>")}))


def load_network(
    config: ModelConfig,
    *,
    name: str | None = None,
    weights: dict[str, torch.Tensor] | None = None,
    device: torch.device,
    dtype: torch.dtype,
    attention: str = "sdpa",
) -> PreTrainedModel:
    """The network in evaluation mode, with weights from a folder or hub name, or given under the published names.

    Raises:
        CheckpointError: weights are missing, superfluous or of another shape than the configuration says.
    """
    try:
        network, report = FAMILIES[config.network.model_type].network.from_pretrained(
            name,
            config=config.network,
            state_dict=weights,
            use_safetensors=None if weights is not None else True,
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
        )
    except Exception as error:
        # Of many kinds: from the file system, safetensors, transformers and torch.
        raise CheckpointError(
            f"the weights of {name or 'the checkpoint'} cannot be loaded: {described(error)}"
        ) from error
    for problem, keys in (
        ("lacks", report["missing_keys"]),
        ("has unknown", report["unexpected_keys"]),
        ("has misshapen", [key[0] for key in report["mismatched_keys"]]),
    ):
        if keys:
            some = ", ".join(sorted(keys)[:3])
            raise CheckpointError(f"{name or 'the checkpoint'} {problem} {len(keys)} weights, such as {some}")
    try:
        network = network.to(device)
    except torch.OutOfMemoryError as error:
        raise CheckpointError(
            f"the weights of {name or 'the checkpoint'} take {network.get_memory_footprint() / 1e9:.1f} GB as {dtype}, "
            f"and {device} has {torch.cuda.mem_get_info(device)[0] / 1e9:.1f} GB free; choose a smaller model or dtype"
        ) from error
    if device.type == "cpu" and weights is None:
        _unmap(network)
    return network.eval()


def _load_by_layers(
    config: ModelConfig,
    folder: Path,
    stored: bool,
    *,
    device: torch.device,
    dtype: torch.dtype,
    attention: str,
) -> PreTrainedModel:
    """As `load_network`, with the language model's linear layers quantised as they are read, or stored so."""
    files, bare = WeightFiles(folder), replace(config, network=without_layers(config.network))
    network = load_network(bare, weights=files.outside_layers(), device=device, dtype=dtype, attention=attention)
    if device.type == "cpu":
        _unmap(network)
    packed = None if config.packed is None else PackedLayers(config.packed, device, dtype)
    try:
        add_layers(backbone_of(network), config.network, files, config.quantization, stored=stored, packed=packed)
    except torch.OutOfMemoryError as error:
        raise CheckpointError(
            f"the weights of {folder} as {config.quantised_as} do not fit {device}, which has "
            f"{torch.cuda.mem_get_info(device)[0] / 1e9:.1f} GB free; choose a smaller model"
        ) from error
    return network


def _unmap(network: torch.nn.Module) -> None:
    """Copies weights off the files that safetensors has mapped into memory.

    A page of a mapped file is read when it is first used. Where the file has been cut by then (by a download or a sync
    that writes it anew), the system ends the process with SIGBUS, maybe hours after the model was loaded. The copy
    costs the weights' size in memory that cannot be paged out, and about 0.5 s per GB at loading.
    """
    with torch.no_grad():
        for weight in (*network.parameters(), *network.buffers()):
            weight.data = weight.data.clone()


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes a checkpoint in the published layout, so that `load_checkpoint` and the published code read it."""
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoint.config.quantization is Quantization.NONE:
        checkpoint.network.save_pretrained(folder)
    else:
        save_quantized(checkpoint.network, folder)
    checkpoint.tokenizer.save_pretrained(folder)
    if checkpoint.recall is not None:
        checkpoint.recall.save(folder)
    end_tokens = list(checkpoint.end_tokens)
    for file, values in (
        ("config.json", checkpoint.config.to_json()),
        ("preprocessor_config.json", checkpoint.pixels.to_preprocessor()),
        ("generation_config.json", {"do_sample": False, "eos_token_id": end_tokens}),
    ):
        (folder / file).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
