from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLForConditionalGeneration

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.tiny import byte_tokenizer, tiny_checkpoint, tiny_network_config, write_tiny_checkpoint

TOKENIZER = byte_tokenizer()


def load(folder: Path) -> Checkpoint:
    return load_checkpoint(str(folder), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_checkpoint(tmp_path, memory=FlashMemoryConfig(csm_slots=8, dam_slots=4))
    return tmp_path


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_files_are_in_the_published_layout(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "flash_vstream_qwen2_vl"
    assert config["vision_config"]["flash_memory_config"]["flash_memory_temporal_length"] == 16
    assert config["rope_scaling"] == {"type": "mrope", "mrope_section": [2, 3, 3]}
    assert config["hidden_size"] == 64  # the language model's settings are at the top, as in transformers 4
    names = load_file(folder / "model.safetensors").keys()
    assert {name.split(".")[0] for name in names} == {"lm_head", "model", "visual"}
    assert "visual.blocks.0.attn.qkv.weight" in names
    assert "model.layers.0.self_attn.q_proj.weight" in names


def test_a_round_trip_keeps_every_weight_and_setting(folder: Path, tmp_path: Path) -> None:
    first = load(folder)
    save_checkpoint(first, tmp_path / "again")
    second = load(tmp_path / "again")
    assert first.config.memory == second.config.memory == FlashMemoryConfig(csm_slots=8, dam_slots=4)
    assert first.pixels == second.pixels
    assert first.end_tokens == second.end_tokens
    weights = second.network.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in first.network.state_dict().items())
    text = "Grüße, <|im_end|>"
    assert first.tokenizer.encode(text) == second.tokenizer.encode(text)


def test_a_tiny_answer_ends_where_its_turn_does() -> None:
    assert tiny_checkpoint().end_tokens == (TOKENIZER.convert_tokens_to_ids("<|im_end|>"),)


@pytest.mark.parametrize("listed", ["<|endoftext|>", ["<|endoftext|>"], []])
def test_the_end_of_a_turn_ends_an_answer_whatever_the_files_say(folder: Path, listed: str | list[str]) -> None:
    """Qwen2-VL's base checkpoints name the end of the text alone."""
    token = TOKENIZER.convert_tokens_to_ids
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": token(listed)}))
    expected = {token("<|im_end|>"), *([token("<|endoftext|>")] if listed else [])}
    assert set(load(folder).end_tokens) == expected


def test_the_same_seed_writes_the_same_weights(folder: Path, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "other", seed=1)
    first, other = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "other"))
    write_tiny_checkpoint(tmp_path / "again", seed=0)
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert torch.equal(first["lm_head.weight"], again["lm_head.weight"])
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_a_plain_qwen2_vl_checkpoint_gets_the_published_memory_and_a_window(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["vision_config"]["flash_memory_config"]
    edit_config(folder, model_type="qwen2_vl", vision_config=config["vision_config"])
    assert load(folder).config.memory == FlashMemoryConfig(window_slots=2)
    edit_config(folder, model_type="flash_vstream_qwen2_vl")
    assert load(folder).config.memory == FlashMemoryConfig()


def test_a_checkpoint_of_transformers_5_loads(folder: Path, tmp_path: Path) -> None:
    """`text_config` apart, as transformers 5 saves it."""
    network = Qwen2VLForConditionalGeneration(tiny_network_config())
    network.save_pretrained(tmp_path / "five")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "five" / name).write_bytes((folder / name).read_bytes())
    loaded = load(tmp_path / "five")
    assert torch.equal(loaded.network.lm_head.weight, network.lm_head.weight)


def test_sharded_weights_load(folder: Path) -> None:
    loaded = load(folder)
    weight = loaded.network.lm_head.weight.clone()
    (folder / "model.safetensors").unlink()
    loaded.network.save_pretrained(folder / "shards", max_shard_size="300KB")
    for path in (folder / "shards").glob("*.safetensors*"):
        path.rename(folder / path.name)
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    assert torch.equal(load(folder).network.lm_head.weight, weight)


def test_tied_word_embeddings_are_shared(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit_config(folder, tie_word_embeddings=True)
    network = load(folder).network
    assert network.lm_head.weight.data_ptr() == network.get_input_embeddings().weight.data_ptr()


def test_weights_that_do_not_fit_are_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    removed = weights.pop("visual.merger.ln_q.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 weights.*visual\.merger\.ln_q\.weight"):
        load(folder)
    weights["visual.merger.ln_q.weight"] = torch.cat([removed, removed])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"misshapen.*ln_q"):
        load(folder)


def test_no_weight_stays_mapped_to_a_file_that_may_be_cut(folder: Path) -> None:
    network = load(folder).network
    first = network.lm_head.weight.clone()
    assert str(folder) not in Path("/proc/self/maps").read_text()
    os.truncate(folder / "model.safetensors", 0)
    assert torch.equal(network.lm_head.weight, first)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="safetensors"):
        load(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "not valid JSON"),
        ("config.json", "[]", "holds a list"),
        (
            "config.json",
            '{"model_type": "llama"}',
            "'llama'; supported are flash_vstream_qwen2_vl, qwen2_vl, qwen2_5_vl and qwen3_vl",
        ),
        ("tokenizer.json", None, "tokenizer"),
        ("preprocessor_config.json", '{"image_std": 3}', "image_std"),
    ],
)
def test_broken_files_are_named(folder: Path, file: str, content: str | None, message: str) -> None:
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"device": "tpu9"}, "'tpu9'"), ({"device": "cuda:99"}, "CUDA"), ({"dtype": "int4"}, "'int4'")],
)
def test_devices_and_dtypes_that_do_not_exist_are_refused(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        FlashVStream.load(str(folder), **settings)
