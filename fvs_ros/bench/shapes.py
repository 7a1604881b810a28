"""Model shapes to benchmark, with random weights: speed does not depend on their values."""

from __future__ import annotations

import string
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import PreTrainedConfig

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.model.checkpoint import Checkpoint, ModelConfig
from fvs_ros.model.families import QWEN2_5_VL, QWEN2_VL, QWEN3_VL, Family, backbone_of
from fvs_ros.model.flash_vstream import pick_attention
from fvs_ros.model.quantization import Quantization
from fvs_ros.model.quantized_weights import check_usable, quantize_layers
from fvs_ros.model.tiny import byte_tokenizer


@dataclass(frozen=True)
class MemoryShape:
    """Sizes of a model's Flash Memory.

    Attributes:
        grid: patches of a frame.
        feature_dim: D, width of a patch feature.
        config: slots.
    """

    grid: PatchGrid
    feature_dim: int
    config: FlashMemoryConfig = field(default_factory=FlashMemoryConfig)


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a whole model.

    Attributes:
        text, vision: values that differ from the defaults of the family's configuration.
        frame: height and width of a processed frame, in pixels.
        memory: sizes of its Flash Memory.
        tied: whether the head of the language model is its embedding.
        family: of the model.
    """

    text: dict[str, Any]
    vision: dict[str, Any]
    frame: int
    memory: MemoryShape
    tied: bool = False
    family: Family = QWEN2_VL

    def network_config(self) -> PreTrainedConfig:
        """The configuration for transformers."""
        text = {**self.text, "tie_word_embeddings": self.tied}
        kind: Any = self.family.config
        config: PreTrainedConfig = kind(text_config=text, vision_config=self.vision, tie_word_embeddings=self.tied)
        return config


def _rope(theta: float, section: tuple[int, int, int]) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta, "mrope_section": list(section)}


def _qwen3_vl(
    width: int, layers: int, heads: int, mlp: int, *, large_tower: bool = False, tied: bool = True
) -> ModelShape:
    """Of a dense Qwen3-VL, as published; a tower block and each of three that DeepStack takes make a patch's features.

    20 x 36 patches of 16 pixels are the 16:9 camera of the published protocol, 320 x 576 pixels.
    """
    depth, tower_width, tower_mlp, taken = (
        (27, 1_152, 4_304, [8, 16, 24]) if large_tower else (24, 1_024, 4_096, [5, 11, 17])
    )
    return ModelShape(
        text={
            "vocab_size": 151_936,
            "hidden_size": width,
            "intermediate_size": mlp,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": {**_rope(5_000_000.0, (24, 20, 20)), "mrope_interleaved": True},
        },
        vision={
            "depth": depth,
            "hidden_size": tower_width,
            "intermediate_size": tower_mlp,
            "num_heads": 16,
            "out_hidden_size": width,
            "deepstack_visual_indexes": taken,
        },
        frame=448,
        memory=MemoryShape(PatchGrid(20, 36, 16), 4 * tower_width, FlashMemoryConfig.untrained()),
        tied=tied,
        family=QWEN3_VL,
    )


def _qwen2_5_vl(
    width: int, layers: int, heads: tuple[int, int], mlp: int, vocabulary: int, *, tied: bool
) -> ModelShape:
    """Of a Qwen2.5-VL, as published; `heads` of queries, and of keys and values."""
    return ModelShape(
        text={
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": mlp,
            "num_hidden_layers": layers,
            "num_attention_heads": heads[0],
            "num_key_value_heads": heads[1],
            "rope_parameters": _rope(1_000_000.0, (16, 24, 24)),
        },
        vision={
            "depth": 32,
            "hidden_size": 1_280,
            "intermediate_size": 3_420,
            "num_heads": 16,
            "out_hidden_size": width,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2,
        },
        frame=448,
        memory=MemoryShape(PatchGrid(24, 40), 1_280, FlashMemoryConfig.untrained()),
        tied=tied,
        family=QWEN2_5_VL,
    )


# Qwen2-VL has the same vision tower at all sizes; 24 x 40 patches are a 16:9 camera in the published protocol.
_TOWER = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4}
_PUBLISHED_MEMORY = MemoryShape(PatchGrid(24, 40), 1280)

# `embedded` is the model that ships: 7.2 M parameters. The others are as published.
SHAPES = {
    "embedded": ModelShape(
        text={
            "vocab_size": 1_024,
            "bos_token_id": None,
            "eos_token_id": None,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 8,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": _rope(10_000.0, (12, 10, 10)),
        },
        vision={"depth": 4, "embed_dim": 192, "hidden_size": 256, "num_heads": 6, "mlp_ratio": 2},
        frame=112,
        memory=MemoryShape(
            PatchGrid(8, 8),
            192,
            FlashMemoryConfig(
                csm_slots=120, dam_slots=8, window_slots=1, time_code=0.1, clock_code=0.1, time_weight=250.0
            ),
        ),
        tied=True,
    ),
    "qwen2-vl-2b": ModelShape(
        text={
            "vocab_size": 151_936,
            "hidden_size": 1_536,
            "intermediate_size": 8_960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "rope_parameters": _rope(1_000_000.0, (16, 24, 24)),
        },
        vision={**_TOWER, "hidden_size": 1_536},
        frame=448,
        memory=_PUBLISHED_MEMORY,
        tied=True,
    ),
    "qwen2-vl-7b": ModelShape(
        text={
            "vocab_size": 152_064,
            "hidden_size": 3_584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "rope_parameters": _rope(1_000_000.0, (16, 24, 24)),
        },
        vision={**_TOWER, "hidden_size": 3_584},
        frame=448,
        memory=_PUBLISHED_MEMORY,
    ),
    "qwen2.5-vl-3b": _qwen2_5_vl(2_048, 36, (16, 2), 11_008, 151_936, tied=True),
    "qwen2.5-vl-7b": _qwen2_5_vl(3_584, 28, (28, 4), 18_944, 152_064, tied=False),
    "qwen3-vl-2b": _qwen3_vl(2_048, 28, 16, 6_144),
    "qwen3-vl-4b": _qwen3_vl(2_560, 36, 32, 9_728),
    "qwen3-vl-8b": _qwen3_vl(4_096, 36, 32, 12_288, large_tower=True, tied=False),
}


def random_checkpoint(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    quantization: Quantization = Quantization.NONE,
) -> Checkpoint:
    """A checkpoint of the shape `name` with random weights, made on its device, and quantised there once it is whole.

    Its answers are letters and end only at their length limit.

    Raises:
        CheckpointError: the quantization cannot be used on this device, or in this dtype.
    """
    check_usable(quantization, device, dtype)
    shape = SHAPES[name]
    config: Any = shape.network_config()
    kind: Any = shape.family.network
    tokenizer = byte_tokenizer()
    config.vision_start_token_id, config.vision_end_token_id = tokenizer.convert_tokens_to_ids(
        ["<|vision_start|>", "<|vision_end|>"]
    )
    attention = pick_attention(device, dtype)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(seed)
        network = kind._from_config(config, dtype=dtype, attn_implementation=attention)
    with torch.no_grad():
        # Other tokens could yield their text later or never.
        letters = tokenizer.convert_tokens_to_ids(list(string.ascii_letters))
        speaks = torch.zeros(network.get_output_embeddings().weight.shape[0], 1, device=device, dtype=dtype)
        speaks[letters] = 1
        network.get_output_embeddings().weight.mul_(speaks)
        quantize_layers(backbone_of(network), quantization)
    return Checkpoint(
        config=ModelConfig(config, shape.memory.config, quantization=quantization),
        network=network.to(device).eval(),
        tokenizer=tokenizer,
        pixels=replace(shape.family.pixels, max_pixels=shape.frame**2),
        end_tokens=(),
    )
