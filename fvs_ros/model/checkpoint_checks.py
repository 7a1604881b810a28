"""Whether a checkpoint is of the kind that this library computes with, told before its weights are read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from fvs_ros.memory.geometry import FRAMES_PER_STEP, MERGE, PATCH
from fvs_ros.model.checkpoint_errors import CheckpointError
from fvs_ros.model.checkpoint_files import FULL_PRECISION_HINT, TensorHeader
from fvs_ros.model.families import FAMILIES, QWEN2_5_VL, QWEN3_VL
from fvs_ros.model.quantization import METHOD, Quantization
from fvs_ros.model.vision_pathways import ROPE_BASE

CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
# Qwen2-VL-72B has 80.
MOST_LAYERS = 1000
# Published with 1e6; far above it, float32 turns no pair any more.
MOST_THETA = 1e12
_LAYER = re.compile(r"\.(layers|blocks)\.(\d+)\.")


def stored_quantization(values: Mapping[str, Any]) -> Quantization:
    """What `config.json` says of weights that `fvs quantize` has written; none of all others.

    Raises:
        CheckpointError: it names a quantization that is not known.
    """
    settings = values.get("quantization_config")
    if not isinstance(settings, Mapping) or settings.get("quant_method") != METHOD:
        return Quantization.NONE
    try:
        return Quantization(settings.get("weights"))
    except ValueError as error:
        raise CheckpointError(
            f"config.json has weights quantised as {settings.get('weights')!r}, which this version does not know; "
            "quantise the checkpoint again (fvs quantize)"
        ) from error


def check_values(values: Mapping[str, Any]) -> None:
    """Refuses a `config.json` that transformers must not read.

    Raises:
        CheckpointError: the checkpoint is quantised (AWQ, GPTQ, bitsandbytes, FP8 and others), or has more than
            `MOST_LAYERS`, with which transformers would run out of memory before it can complain.
    """
    parts = (values, values.get("text_config"), values.get("vision_config"))
    for part in (part for part in parts if isinstance(part, Mapping)):
        settings, count = part.get("quantization_config"), part.get("num_hidden_layers")
        if settings is not None:
            settings = settings if isinstance(settings, Mapping) else {"quant_method": settings}
            bits = settings.get("bits") or settings.get("w_bit")
            width = f" with {bits} bits" if bits else ""
            raise CheckpointError(
                f"the checkpoint is quantised by {settings.get('quant_method')}{width}, which this library does not "
                f"compute with; {FULL_PRECISION_HINT}"
            )
        if isinstance(count, int) and count > MOST_LAYERS:
            raise CheckpointError(f"config.json has num_hidden_layers {count}; at most {MOST_LAYERS} make sense")


def check_supported(network: PreTrainedConfig) -> None:
    """Refuses settings of the network with which the library would compute something else than the model.

    Raises:
        CheckpointError: a setting is not supported, or two do not fit each other.
    """
    text, vision, family = network.text_config, network.vision_config, FAMILIES[network.model_type]
    # Qwen3-VL has neither a window nor kinds of layers.
    window = getattr(text, "sliding_window", None)
    slides = window and text.use_sliding_window and text.max_window_layers < text.num_hidden_layers
    if slides or set(getattr(text, "layer_types", None) or ()) > {"full_attention"}:
        raise CheckpointError(
            f"config.json has a sliding window ({window} tokens); the memory must be attended as a whole, "
            "so use a checkpoint with use_sliding_window false"
        )
    for name, value, supported in (
        ("vision_config.patch_size", vision.patch_size, family.pixels.patch),
        ("vision_config.temporal_patch_size", vision.temporal_patch_size, FRAMES_PER_STEP),
        ("vision_config.spatial_merge_size", vision.spatial_merge_size, MERGE),
        ("vision_config.in_channels", vision.in_channels, 3),
        (f"vision_config.{family.tower_output}", getattr(vision, family.tower_output), text.hidden_size),
    ):
        if value != supported:
            raise CheckpointError(f"config.json has {name} {value}; it must be {supported}")
    if not 0 <= text.rms_norm_eps < 1:
        raise CheckpointError(f"config.json has rms_norm_eps {text.rms_norm_eps}; it must be from 0 to below 1")
    own_head_size = getattr(text, "head_dim", None)
    for name, size, parts in (
        # Heads with a size of their own need not be parts of the width.
        ("hidden_size", text.hidden_size, 1 if own_head_size else text.num_attention_heads),
        ("num_attention_heads", text.num_attention_heads, text.num_key_value_heads),
        (f"vision_config.{family.tower_width}", getattr(vision, family.tower_width), vision.num_heads),
    ):
        if parts < 1 or size < 1 or size % parts:
            raise CheckpointError(f"config.json has {name} {size} and {parts} heads; the first must be a multiple")
    _check_rotary(text.rope_parameters or {}, own_head_size or text.hidden_size // text.num_attention_heads)
    base = (getattr(vision, "rope_parameters", None) or {}).get("rope_theta", ROPE_BASE)
    if base != ROPE_BASE:
        raise CheckpointError(f"config.json has a rope_theta of {base} in vision_config; it must be {ROPE_BASE:g}")
    if network.model_type == QWEN2_5_VL.model_type:
        _check_windowed_tower(vision)
    if network.model_type == QWEN3_VL.model_type:
        _check_deepstack_tower(vision, text.num_hidden_layers)


def _check_windowed_tower(vision: PreTrainedConfig) -> None:
    block = PATCH * MERGE
    if vision.window_size < block or vision.window_size % block:
        raise CheckpointError(
            f"config.json has vision_config.window_size {vision.window_size}; it must be a positive multiple of {block}"
        )
    if vision.tokens_per_second < 1:
        raise CheckpointError(
            f"config.json has vision_config.tokens_per_second {vision.tokens_per_second}; it must be 1 or more"
        )


def _check_deepstack_tower(vision: PreTrainedConfig, layers: int) -> None:
    blocks, positions = list(vision.deepstack_visual_indexes), vision.num_position_embeddings
    if len(set(blocks)) < len(blocks) or any(not 0 <= block < vision.depth for block in blocks) or len(blocks) > layers:
        raise CheckpointError(
            f"config.json has vision_config.deepstack_visual_indexes {blocks}; they must be different blocks of the "
            f"{vision.depth} of the tower, and no more than the {layers} layers that they are added to"
        )
    if positions < 4 or math.isqrt(positions) ** 2 != positions:
        raise CheckpointError(
            f"config.json has vision_config.num_position_embeddings {positions}; it must be a square of 4 or more"
        )


def _check_rotary(rope: Mapping[str, Any], head_size: int) -> None:
    section, theta = rope.get("mrope_section"), rope.get("rope_theta")
    whole = isinstance(section, list | tuple) and len(section) == 3 and all(isinstance(part, int) for part in section)
    if not whole or 2 * sum(section or ()) != head_size:
        raise CheckpointError(
            f"config.json has mrope_section {section!r}; it must hold three whole numbers whose sum is "
            f"{head_size // 2}, half of a head's {head_size}"
        )
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 < theta <= MOST_THETA:
        raise CheckpointError(f"config.json has rope_theta {theta!r}; it must be above 0 and at most {MOST_THETA:g}")


def check_tokenizer(network: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Refuses a tokenizer that was not made for the network.

    Raises:
        CheckpointError: it lacks a control token of the prompt, has one at another place than config.json says, or has
            more tokens than the network.
    """
    vocabulary = tokenizer.get_vocab()
    # Where its files are missing, transformers makes an empty one.
    for token in CONTROL_TOKENS:
        if token not in vocabulary:
            raise CheckpointError(
                f"the tokenizer of {folder} has no {token}; it needs the tokenizer.json of a Qwen2-VL"
            )
    for name, token in (("vision_start_token_id", "<|vision_start|>"), ("vision_end_token_id", "<|vision_end|>")):
        index = getattr(network, name, None)
        if index is not None and index != vocabulary[token]:
            raise CheckpointError(
                f"the tokenizer of {folder} has {token} at {vocabulary[token]}, and config.json {name} {index}; they "
                "are of two models, so download the whole checkpoint"
            )
    highest, rows = max(vocabulary.values()), network.text_config.vocab_size
    if highest >= rows:
        raise CheckpointError(
            f"the tokenizer of {folder} has tokens up to {highest}, and the network {rows} of them (vocab_size); they "
            "are of two models, so download the whole checkpoint"
        )


def check_weights_fit(network: PreTrainedConfig, headers: Mapping[str, TensorHeader], folder: Path) -> None:
    """Compares what decides the network's size with the weights' headers, before memory is taken for either.

    Raises:
        CheckpointError: another vocabulary, width or number of layers than config.json says.
    """
    text = network.text_config
    expected = (text.vocab_size, text.hidden_size)
    for name, header in headers.items():
        if name.endswith(("embed_tokens.weight", "lm_head.weight")) and header.shape != expected:
            raise CheckpointError(
                f"{folder} has {name} of {list(header.shape)}, and config.json says {list(expected)} (vocab_size, "
                "hidden_size); they are of two models, so download the whole checkpoint"
            )
    layers: dict[str, set[int]] = {"layers": set(), "blocks": set()}
    for match in filter(None, map(_LAYER.search, headers)):
        layers[match[1]].add(int(match[2]))
    for kind, key, count in (
        ("layers", "num_hidden_layers", text.num_hidden_layers),
        ("blocks", "vision_config.depth", network.vision_config.depth),
    ):
        if len(layers[kind]) != count:
            raise CheckpointError(
                f"{folder} has the weights of {len(layers[kind])} {kind}, and config.json says {count} ({key}); they "
                "are of two models, or the download is not whole"
            )
