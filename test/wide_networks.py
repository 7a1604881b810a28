"""Networks of real width and few layers, with random weights, for what quantisation does to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from fvs_ros.model.tiny import byte_tokenizer

QWEN2_VL_2B = {
    "hidden_size": 1_536,
    "intermediate_size": 8_960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
}


def wide_config(text: dict[str, Any], layers: int) -> Qwen2VLConfig:
    """A language model of real width on the smallest vision tower, with the tokens of `tiny`."""
    token = byte_tokenizer().convert_tokens_to_ids
    ends = {"bos_token_id": token("<|endoftext|>"), "eos_token_id": token("<|im_end|>")}
    return Qwen2VLConfig(
        text_config={"vocab_size": len(byte_tokenizer()), "num_hidden_layers": layers, **ends, **text},
        vision_config={"depth": 1, "embed_dim": 64, "hidden_size": text["hidden_size"], "num_heads": 4, "mlp_ratio": 1},
        tie_word_embeddings=False,
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )


def wide_network(text: dict[str, Any], layers: int) -> Any:
    """That network, float32 on the CPU; the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen2VLForConditionalGeneration(wide_config(text, layers)).eval().requires_grad_(False)


def write_empty_checkpoint(folder: Path, config: Qwen2VLConfig) -> None:
    """A checkpoint in bfloat16 whose weights are all 0: for what loading takes, whatever they are."""
    with torch.device("meta"):
        network = Qwen2VLForConditionalGeneration(config)
    weights = {name: torch.zeros(weight.shape, dtype=torch.bfloat16) for name, weight in network.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    config.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
