"""A tiny checkpoint with random weights: real files, real shapes, and answers that mean nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AddedToken, Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.geometry import LEAST_PIXELS
from fvs_ros.model.checkpoint import Checkpoint, ModelConfig, save_checkpoint
from fvs_ros.model.preprocess import PixelConfig

CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Frames become 112 x 112: 16 tokens a detail slot and 4 a synopsis slot, so that a CPU answers at once.
FRAME_PIXELS = 4 * LEAST_PIXELS


def write_tiny_checkpoint(folder: Path, seed: int = 0, memory: FlashMemoryConfig | None = None) -> None:
    """Writes `tiny_checkpoint` in the published layout."""
    save_checkpoint(tiny_checkpoint(seed, memory), folder)


def tiny_checkpoint(seed: int = 0, memory: FlashMemoryConfig | None = None) -> Checkpoint:
    """A checkpoint of 0.3 M random weights, float32 on the CPU; the same seed gives the same weights."""
    network_config = tiny_network_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Qwen2VLForConditionalGeneration(network_config).eval()
    return Checkpoint(
        config=ModelConfig(network_config, memory or FlashMemoryConfig()),
        network=network,
        tokenizer=byte_tokenizer(),
        pixels=PixelConfig(max_pixels=FRAME_PIXELS),
        end_tokens=(network_config.text_config.eos_token_id,),
    )


def tiny_network_config() -> Qwen2VLConfig:
    """A Qwen2-VL of 0.3 M parameters for the tokens of `byte_tokenizer`."""
    tokenizer = byte_tokenizer()
    token = tokenizer.convert_tokens_to_ids
    return Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [2, 3, 3]},
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            # At transformers' usual 0.02 so small a network's logits are nearly equal and every answer the same.
            "initializer_range": 0.2,
        },
        vision_config={
            "depth": 2,
            "embed_dim": 64,
            "hidden_size": 64,
            "num_heads": 4,
            "mlp_ratio": 2,
            "initializer_range": 0.2,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )


def byte_tokenizer() -> Qwen2Tokenizer:
    """A Qwen2 tokenizer without merges: one token a byte, and the control tokens of Qwen2-VL."""
    vocabulary = {character: index for index, character in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_tokens([AddedToken(token, special=True) for token in CONTROL_TOKENS])
    return tokenizer
