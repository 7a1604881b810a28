"""Checkpoints of other families in the layout of the hub, and what is wrong with some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import SmallShape, qwen2_5_vl, qwen3_vl

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.checkpoint import Checkpoint, CheckpointError, ModelConfig, load_checkpoint, save_checkpoint
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.preprocess import QWEN3_VL_PIXELS
from fvs_ros.model.qwen2_5_vl import Qwen25VLBackbone
from fvs_ros.model.qwen3_vl import Qwen3VLBackbone
from fvs_ros.model.tiny import byte_tokenizer

# Qwen2.5-VL-7B-Instruct on the hub, but for what says where it comes from.
HUB_CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 128000,
    "max_window_layers": 28,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 152064,
}
PREPROCESSOR = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
}


# Qwen3-VL-2B-Instruct, likewise.
HUB_CONFIG_3: dict[str, Any] = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "image_token_id": 151655,
    "model_type": "qwen3_vl",
    "text_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "dtype": "bfloat16",
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 6144,
        "max_position_embeddings": 262144,
        "model_type": "qwen3_vl_text",
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
        "rope_theta": 5000000,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": 151936,
    },
    "tie_word_embeddings": True,
    "transformers_version": "4.57.0.dev0",
    "video_token_id": 151656,
    "vision_config": {
        "deepstack_visual_indexes": [5, 11, 17],
        "depth": 24,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1024,
        "in_channels": 3,
        "initializer_range": 0.02,
        "intermediate_size": 4096,
        "model_type": "qwen3_vl",
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 2048,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "vision_end_token_id": 151653,
    "vision_start_token_id": 151652,
}
PREPROCESSOR_3 = {
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
    "image_processor_type": "Qwen2VLImageProcessorFast",
}


def small_config_3() -> dict[str, Any]:
    """`HUB_CONFIG_3` with the sizes and the tokens of a small network."""
    config = qwen3_vl().config
    parts = {}
    for part in ("text_config", "vision_config"):
        small = getattr(config, part).to_dict()
        kept = ("model_type", "rope_scaling", "rope_theta")
        parts[part] = {
            key: value if key in kept else small.get(key, value) for key, value in HUB_CONFIG_3[part].items()
        }
    parts["text_config"]["rope_scaling"] = {**parts["text_config"]["rope_scaling"], "mrope_section": [4, 2, 2]}
    tokens = {key: getattr(config, key) for key in HUB_CONFIG_3 if key.endswith("_token_id")}
    return {**HUB_CONFIG_3, **parts, **tokens, "tie_word_embeddings": False}


@pytest.fixture
def folder_3(tmp_path: Path) -> Path:
    """A small Qwen3-VL, likewise."""
    qwen3_vl().save_pretrained(tmp_path, max_shard_size="200KB")
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(small_config_3()))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR_3))
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    return tmp_path


def small_config() -> dict[str, Any]:
    """`HUB_CONFIG` with the sizes and the tokens of a small network."""
    config = qwen2_5_vl().config
    text, vision = config.text_config.to_dict(), config.vision_config.to_dict()
    values = {key: text.get(key, value) for key, value in HUB_CONFIG.items() if key != "vision_config"}
    tokens = {key: getattr(config, key) for key in HUB_CONFIG if key.endswith("_token_id") and key in vars(config)}
    return {
        **values,
        **tokens,
        "sliding_window": 32768,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "model_type": "qwen2_5_vl",
        "vision_config": {key: vision.get(key, value) for key, value in HUB_CONFIG["vision_config"].items()},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small Qwen2.5-VL in the layout of the hub, its weights in several files."""
    qwen2_5_vl().save_pretrained(tmp_path, max_shard_size="200KB")
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(small_config()))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    return tmp_path


def load(folder: Path) -> Checkpoint:
    return load_checkpoint(str(folder), device=torch.device("cpu"), dtype=torch.float32)


def test_the_published_config_is_read() -> None:
    config = ModelConfig.from_json(HUB_CONFIG)
    text, vision = config.network.text_config, config.network.vision_config
    assert (text.hidden_size, text.num_key_value_heads, text.layer_types) == (3584, 4, ["full_attention"] * 28)
    assert text.rope_parameters["mrope_section"] == [16, 24, 24]
    assert (vision.hidden_size, vision.window_size, vision.tokens_per_second) == (1280, 112, 2)
    assert list(vision.fullatt_block_indexes) == [7, 15, 23, 31]


def test_a_checkpoint_as_on_the_hub_loads_and_answers(folder: Path) -> None:
    checkpoint, expected = load(folder), qwen2_5_vl().state_dict()
    assert isinstance(checkpoint.backbone, Qwen25VLBackbone)
    assert checkpoint.pixels.max_pixels == 12845056
    assert checkpoint.config.memory == FlashMemoryConfig(window_slots=2)
    assert all(torch.equal(weight, expected[name]) for name, weight in checkpoint.network.state_dict().items())
    model = FlashVStream.load(str(folder), device="cpu", dtype="float32", csm_slots=8, dam_slots=0, window_slots=1)
    assert model.memory_config == FlashMemoryConfig(csm_slots=8, dam_slots=0, window_slots=1)
    frames = np.random.default_rng(0).integers(0, 256, (4, 120, 160, 3), dtype=np.uint8)
    grid = model.frame_grid(120, 160, 12_544, 25_088)
    memory, features = model.new_memory(grid), model.encode_steps(list(frames), grid)
    memory.append(features.high, features.low, [0, 2_000_000_000], [1_000_000_000, 3_000_000_000])
    assert model.answer(memory.snapshot(), "What is here?", max_new_tokens=4)


def test_a_round_trip_keeps_weights_and_memory(folder: Path, tmp_path: Path) -> None:
    first = load(folder)
    sizes = FlashMemoryConfig(csm_slots=8, dam_slots=4, window_slots=1)
    config = ModelConfig(first.config.network, sizes)
    save_checkpoint(
        Checkpoint(config, first.network, first.tokenizer, first.pixels, first.end_tokens), tmp_path / "again"
    )
    second = load(tmp_path / "again")
    assert second.config.memory == sizes
    assert isinstance(second.backbone, Qwen25VLBackbone)
    weights = second.network.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in first.network.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen2_5_omni"}, "'qwen2_5_omni'; supported are flash_vstream_qwen2_vl, .* and qwen3_vl"),
        ({"vision_config__window_size": 100}, "window_size 100; it must be a positive multiple of 28"),
        ({"vision_config__window_size": 0}, "window_size 0; it must be a positive multiple of 28"),
        ({"vision_config__tokens_per_second": 0}, "tokens_per_second 0; it must be 1 or more"),
        ({"vision_config__out_hidden_size": 32}, "out_hidden_size 32; it must be 64"),
        ({"vision_config__hidden_size": 66}, "hidden_size 66 and 4 heads"),
        ({"vision_config__patch_size": 16}, "patch_size 16; it must be 14"),
        ({"vision_config__fullatt_block_indexes": "all"}, "fullatt_block_indexes.*'all'"),
        ({"vision_config__rope_parameters": {"rope_type": "axial", "rope_theta": 5.0}}, "rope_theta of 5.0.*10000"),
        ({"use_sliding_window": True, "max_window_layers": 0}, "sliding window"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "quantised by awq with 4 bits"),
        ({"num_hidden_layers": 3}, "the weights of 2 layers, and config.json says 3"),
        ({"vision_config__depth": 4}, "the weights of 3 blocks, and config.json says 4"),
    ],
    ids=str,
)
def test_a_wrong_config_is_told_by_what_is_wrong(folder: Path, changes: dict[str, Any], message: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        part, _, nested = key.partition("__")
        (config[part] if nested else config)[nested or part] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_half_a_download_is_told_by_the_file_that_is_missing(folder: Path) -> None:
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=shard.name):
        load(folder)


def test_the_weights_of_another_family_are_told(folder: Path) -> None:
    """A Qwen2.5-VL whose config says Qwen2-VL: two norms, and a gated MLP that it does not know."""
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= {"embed_dim": 64, "hidden_size": 64, "mlp_ratio": 2}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen2_vl"}))
    with pytest.raises(CheckpointError, match=r"lacks .* weights, such as model\.visual"):
        load(folder)


def test_a_shape_of_its_own_is_kept(tmp_path: Path) -> None:
    """Windows of another size change every feature, and no weight tells of them."""
    network = qwen2_5_vl(SmallShape(vision={"window_size": 56, "tokens_per_second": 4}))
    config = ModelConfig(network.config, FlashMemoryConfig())
    again = ModelConfig.from_json(json.loads(json.dumps(config.to_json()))).network.vision_config
    assert (again.window_size, again.tokens_per_second, list(again.fullatt_block_indexes)) == (56, 4, [1])


def test_the_published_config_of_qwen3_vl_is_read() -> None:
    config = ModelConfig.from_json(HUB_CONFIG_3)
    text, vision = config.network.text_config, config.network.vision_config
    assert (text.hidden_size, text.num_key_value_heads, text.head_dim) == (2048, 8, 128)
    assert text.rope_parameters["mrope_section"] == [24, 20, 20]
    assert text.rope_parameters["rope_theta"] == 5_000_000
    assert (vision.model_type, vision.patch_size, vision.num_position_embeddings) == ("qwen3_vl_vision", 16, 2304)
    assert list(vision.deepstack_visual_indexes) == [5, 11, 17]
    assert config.memory == FlashMemoryConfig(window_slots=2)


@pytest.mark.parametrize("deepstack", [True, False])
def test_a_qwen3_vl_as_on_the_hub_loads_and_answers(folder_3: Path, deepstack: bool) -> None:
    checkpoint, expected = load(folder_3), qwen3_vl().state_dict()
    assert isinstance(checkpoint.backbone, Qwen3VLBackbone)
    assert (checkpoint.pixels.min_pixels, checkpoint.pixels.max_pixels) == (65536, 16777216)
    assert (checkpoint.pixels.patch, checkpoint.pixels.mean) == (16, (0.5, 0.5, 0.5))
    assert all(torch.equal(weight, expected[name]) for name, weight in checkpoint.network.state_dict().items())
    model = FlashVStream.load(str(folder_3), device="cpu", dtype="float32", csm_slots=8, deepstack=deepstack)
    frames = np.random.default_rng(0).integers(0, 256, (4, 240, 320, 3), dtype=np.uint8)
    grid = model.frame_grid(240, 320, 65_536, 131_072)
    assert (grid.height, grid.width, grid.patch, grid.frame_size) == (16, 20, 16, (256, 320))
    memory, features = model.new_memory(grid), model.encode_steps(list(frames), grid)
    assert features.low.shape == (2, 80, 192 if deepstack else 64)
    memory.append(features.high, features.low, [0, 2_000_000_000], [1_000_000_000, 3_000_000_000])
    assert model.answer(memory.snapshot(), "What is here?", max_new_tokens=4)


def test_what_has_no_deepstack_cannot_drop_it(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="deepstack is false, and qwen2_5_vl has no DeepStack"):
        FlashVStream.load(str(folder), device="cpu", deepstack=False)


def test_without_a_preprocessor_config_frames_are_those_of_the_family(folder_3: Path) -> None:
    (folder_3 / "preprocessor_config.json").unlink()
    assert load(folder_3).pixels == QWEN3_VL_PIXELS


def test_a_round_trip_keeps_a_qwen3_vl_without_deepstack(folder_3: Path, tmp_path: Path) -> None:
    first = load(folder_3)
    first.backbone.drop_deepstack()
    sizes = FlashMemoryConfig(csm_slots=8, dam_slots=4, window_slots=1)
    config = ModelConfig(first.network.config, sizes)
    save_checkpoint(
        Checkpoint(config, first.network, first.tokenizer, first.pixels, first.end_tokens), tmp_path / "again"
    )
    second = load(tmp_path / "again")
    assert (second.config.memory, second.pixels) == (sizes, first.pixels)
    assert second.backbone.tower.width == 64
    weights = second.network.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in first.network.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen3_vl_moe"}, "'qwen3_vl_moe'; supported are flash_vstream_qwen2_vl, .* and qwen3_vl"),
        ({"vision_config__patch_size": 14}, "patch_size 14; it must be 16"),
        ({"vision_config__out_hidden_size": 32}, "out_hidden_size 32; it must be 64"),
        ({"vision_config__num_position_embeddings": 35}, "num_position_embeddings 35; it must be a square"),
        ({"vision_config__deepstack_visual_indexes": [0, 3]}, "indexes .0, 3.; they must be different blocks of the 3"),
        ({"vision_config__deepstack_visual_indexes": [1, 1]}, "indexes .1, 1.; they must be different blocks"),
        ({"vision_config__deepstack_visual_indexes": [0, 1, 2]}, "no more than the 2 layers"),
        ({"vision_config__deepstack_visual_indexes": [0]}, "has unknown .* weights, such as .*deepstack_merger_list.1"),
        ({"vision_config__rope_parameters": {"rope_type": "axial", "rope_theta": 5.0}}, "rope_theta of 5.0.*10000"),
        ({"text_config__head_dim": 32}, "mrope_section .4, 2, 2.; .* sum is 16, half of a head's 32"),
        ({"text_config__num_hidden_layers": 3}, "the weights of 2 layers, and config.json says 3"),
        ({"text_config__quantization_config": {"quant_method": "fp8"}}, "quantised by fp8"),
    ],
    ids=str,
)
def test_a_wrong_config_of_qwen3_vl_is_told_by_what_is_wrong(
    folder_3: Path, changes: dict[str, Any], message: str
) -> None:
    config = json.loads((folder_3 / "config.json").read_text())
    for key, value in changes.items():
        part, _, nested = key.partition("__")
        (config[part] if nested else config)[nested or part] = value
    (folder_3 / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load(folder_3)
