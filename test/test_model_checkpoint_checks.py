"""Checkpoints of other kinds: quantised, with a sliding window, of another vocabulary or size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fvs_ros.model import checkpoint
from fvs_ros.model.checkpoint import ModelConfig, load_checkpoint
from fvs_ros.model.checkpoint_errors import CheckpointError
from fvs_ros.model.tiny import write_tiny_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_checkpoint(tmp_path)
    return tmp_path


def config_of(folder: Path, **changes: Any) -> dict[str, Any]:
    """`config.json` with values replaced; `vision_config__depth` is that of the nested object."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        part, _, nested = key.partition("__")
        if nested:
            config[part][nested] = value
        else:
            config[part] = value
    return config


def refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What loading says, without its having read a weight."""
    monkeypatch.setattr(checkpoint, "load_network", None)
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(str(folder), device=torch.device("cpu"), dtype=torch.float32)
    return str(raised.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 64.0}, "hidden_size.*64.0"),
        ({"hidden_size": "64"}, "hidden_size.*'64'"),
        ({"vocab_size": None}, "vocab_size"),
        ({"vision_config": "x"}, "vision_config 'x'; it must be an object"),
        ({"vision_config": [1]}, r"vision_config \[1\]; it must be an object"),
        ({"text_config": "x"}, "text_config"),
        ({"vision_config__flash_memory_config": "x"}, "flash_memory_config 'x'; it must be an object"),
        ({"vision_config__flash_memory_config": {"flash_memory_spatial_length": 60.0}}, "spatial_length is 60.0"),
        (
            {"hidden_size": 3584, "vision_config__flash_memory_config": {"flash_memory_clock_code": 0.1}},
            "width is 3584",
        ),
        ({"vision_config__depth": 2.0}, "depth.*2.0"),
        ({"rope_scaling": "mrope"}, "rope_parameters"),
        ({"rope_scaling": {"type": "mrope"}}, "mrope_section None"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 4]}}, r"\[2, 3, 4\].*sum is 8"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [2.0, 3.0, 3.0]}}, "whole numbers"),
        ({"rope_theta": "x"}, "rope_theta 'x'"),
        ({"num_attention_heads": 0}, "hidden_size 64 and 0 heads"),
        ({"num_attention_heads": 5}, "hidden_size 64 and 5 heads"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"vision_config__patch_size": 16}, "patch_size 16; it must be 14"),
        ({"vision_config__hidden_size": 32}, r"vision_config.hidden_size 32; it must be 64"),
        ({"vision_config__spatial_merge_size": 1}, "spatial_merge_size 1; it must be 2"),
        ({"dtype": "floatx"}, "floatx"),
        ({"model_type": ["qwen2_vl"]}, "model_type"),
        ({"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 0}, "sliding window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding window"),
        ({"quantization_config": {"quant_method": "awq", "bits": 3}}, "quantised by awq, .* has bits 3"),
        ({"quantization_config": {"quant_method": "hqq", "bits": 4}}, "quantised by hqq with 4 bits"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "quantised by compressed-tensors"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "by bitsandbytes, .*Qwen/"),
        ({"quantization_config": "fp8"}, "quantised by fp8"),
        ({"vision_config__quantization_config": {"quant_method": "fp8"}}, "quantised by fp8"),
    ],
    ids=str,
)
def test_a_config_that_cannot_be_used_is_a_checkpoint_error(folder: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as raised:
        ModelConfig.from_json(config_of(folder, **changes))
    assert "\n" not in str(raised.value)


def test_the_published_window_that_is_not_used_is_no_sliding_window(folder: Path) -> None:
    """Qwen2-VL-7B-Instruct has these values."""
    values = config_of(folder, use_sliding_window=False, sliding_window=32768, max_window_layers=28)
    del values["layer_types"]
    assert ModelConfig.from_json(values).network.text_config.layer_types == ["full_attention"] * 2


@pytest.mark.parametrize(
    ("file", "key", "value", "words"),
    [
        ("preprocessor_config.json", "min_pixels", 3136.0, "min_pixels of the preprocessor config is 3136.0"),
        ("preprocessor_config.json", "image_mean", ["a", "b", "c"], "preprocessor_config.json cannot be used"),
        ("preprocessor_config.json", "image_std", "abc", "preprocessor_config.json cannot be used"),
        ("preprocessor_config.json", "image_std", [None, 1, 1], "preprocessor_config.json cannot be used"),
        ("generation_config.json", "eos_token_id", "x", "eos_token_id 'x'"),
        ("generation_config.json", "eos_token_id", [258, 1.0], "eos_token_id 1.0"),
    ],
)
def test_a_wrong_type_in_another_file_names_the_file(
    folder: Path, file: str, key: str, value: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(values | {key: value}))
    message = refused(folder, monkeypatch)
    assert file in message
    assert words in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": 300}, ".weight of [264, 64], and config.json says [300, 64]"),
        ({"vocab_size": 200}, "tokens up to 263, and the network 200 of them (vocab_size)"),
        ({"vision_start_token_id": 151652}, "<|vision_start|> at 259, and config.json vision_start_token_id 151652"),
        ({"num_hidden_layers": 3, "layer_types": None}, "the weights of 2 layers, and config.json says 3"),
        ({"num_hidden_layers": 1_000_000_000, "layer_types": None}, "num_hidden_layers 1000000000; at most 1000"),
        ({"vision_config__depth": 1}, "the weights of 2 blocks, and config.json says 1"),
    ],
    ids=str,
)
def test_files_of_two_models_are_told_with_both_numbers(
    folder: Path, changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "config.json").write_text(json.dumps(config_of(folder, **changes)))
    assert words in refused(folder, monkeypatch)


def test_the_tokenizer_of_a_text_model_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("<|vision_start|>", "<|other|>"))
    assert "has no <|vision_start|>; it needs the tokenizer.json of a Qwen2-VL" in refused(folder, monkeypatch)


@pytest.mark.parametrize("content", ["", "{", "{}", "version https://git-lfs.github.com/spec/v1\n", "[1]"])
def test_a_damaged_tokenizer_is_named(folder: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tokenizer.json").write_text(content)
    message = refused(folder, monkeypatch)
    assert "tokenizer" in message
    assert str(folder) in message
