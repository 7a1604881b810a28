"""Networks of each family with few random weights, and checkpoints of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.checkpoint import Checkpoint, ModelConfig, save_checkpoint
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.preprocess import QWEN3_VL_PIXELS, PixelConfig
from fvs_ros.model.tiny import byte_tokenizer


@dataclass(frozen=True)
class SmallShape:
    """Sizes of a network.

    Attributes:
        text, vision: settings other than those below.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    key_heads: int = 2
    blocks: int = 3
    vision_width: int = 64
    tied: bool = False
    text: Mapping[str, Any] = field(default_factory=dict)
    vision: Mapping[str, Any] = field(default_factory=dict)


def qwen2_5_vl_config(shape: SmallShape) -> Qwen2_5_VLConfig:
    """Windows of 8 x 8 patches as in the published models, and attention to the whole step in the middle block."""
    token = byte_tokenizer().convert_tokens_to_ids
    half = shape.width // shape.heads // 2
    rope = {
        "rope_type": "default",
        "rope_theta": 1_000_000.0,
        "mrope_section": [half // 4, half * 3 // 8, half * 3 // 8],
    }
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(byte_tokenizer()),
            "hidden_size": shape.width,
            "intermediate_size": 2 * shape.width,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.key_heads,
            "rope_parameters": rope,
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "initializer_range": 0.2,
            **shape.text,
        },
        vision_config={
            "depth": shape.blocks,
            "hidden_size": shape.vision_width,
            "intermediate_size": 100,
            "num_heads": 4,
            "out_hidden_size": shape.width,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
            "initializer_range": 0.2,
            **shape.vision,
        },
        tie_word_embeddings=shape.tied,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )


def qwen3_vl_config(shape: SmallShape) -> Qwen3VLConfig:
    """DeepStack from the first two blocks, and a table of 6 x 6 positions."""
    token = byte_tokenizer().convert_tokens_to_ids
    rope = {
        "rope_type": "default",
        "rope_theta": 5_000_000.0,
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
    }
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(byte_tokenizer()),
            "hidden_size": shape.width,
            "intermediate_size": 2 * shape.width,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.key_heads,
            "head_dim": 16,
            "rope_parameters": rope,
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "initializer_range": 0.2,
            **shape.text,
        },
        vision_config={
            "depth": shape.blocks,
            "hidden_size": shape.vision_width,
            "intermediate_size": 100,
            "num_heads": 4,
            "out_hidden_size": shape.width,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": 0.2,
            **shape.vision,
        },
        tie_word_embeddings=shape.tied,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )


def qwen2_5_vl(shape: SmallShape | None = None) -> Any:
    """A Qwen2.5-VL in evaluation mode, float32; the same weights each time."""
    return _random(Qwen2_5_VLForConditionalGeneration, qwen2_5_vl_config(shape or SmallShape()))


def qwen3_vl(shape: SmallShape | None = None) -> Any:
    """A Qwen3-VL, likewise."""
    return _random(Qwen3VLForConditionalGeneration, qwen3_vl_config(shape or SmallShape()))


def _random(kind: Any, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = kind(config).eval()
        # All biases and norms begin at 0 and 1, where an error would not show.
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
    return network.requires_grad_(False)


def checkpoint_of(network: Any, memory: FlashMemoryConfig, pixels: PixelConfig | None = None) -> Checkpoint:
    """A checkpoint of a network, with the tokenizer of `tiny`."""
    return Checkpoint(
        config=ModelConfig(network.config, memory),
        network=network,
        tokenizer=byte_tokenizer(),
        pixels=pixels or PixelConfig(),
        end_tokens=(),
    )


def model_of(network: Any, memory: FlashMemoryConfig, pixels: PixelConfig | None = None) -> FlashVStream:
    """That checkpoint as a model."""
    return FlashVStream(checkpoint_of(network, memory, pixels), "small")


def write_qwen3_vl(folder: Path, memory: FlashMemoryConfig, shape: SmallShape | None = None) -> None:
    """Writes a checkpoint of a Qwen3-VL whose frames become 128 x 128 at the most."""
    save_checkpoint(checkpoint_of(qwen3_vl(shape), memory, replace(QWEN3_VL_PIXELS, max_pixels=128**2)), folder)
