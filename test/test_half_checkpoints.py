"""Checkpoints of each kind of which something is missing or wrong: refused with what it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_networks import checkpoint_of, qwen2_5_vl, qwen3_vl

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model import quantized_weights
from fvs_ros.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from fvs_ros.model.checkpoint_files import INDEX
from fvs_ros.model.quantization import Quantization

CPU = torch.device("cpu")
LAST = "layers.1.mlp.down_proj.weight"


@pytest.fixture(params=["qwen2_5_vl", "qwen3_vl", "qwen2_5_vl, int8"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small one, its weights in several files."""
    network = qwen3_vl() if request.param == "qwen3_vl" else qwen2_5_vl()
    save_checkpoint(checkpoint_of(network, FlashMemoryConfig(csm_slots=6, dam_slots=3)), tmp_path)
    if "int8" in request.param:
        monkeypatch.setattr(quantized_weights, "FILE_BYTES", 100_000)
        loaded = load_checkpoint(str(tmp_path), device=CPU, dtype=torch.float32, quantization=Quantization.INT8)
        save_checkpoint(loaded, tmp_path)
    else:
        network.save_pretrained(tmp_path, max_shard_size="200KB")
        save_config(tmp_path, **checkpoint_of(network, FlashMemoryConfig(csm_slots=6, dam_slots=3)).config.to_json())
    (tmp_path / "model.safetensors").unlink(missing_ok=True)
    assert len(shards(tmp_path)) > 2
    return tmp_path


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def save_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def lose_shard(folder: Path) -> str:
    lost, *_ = shards(folder)
    count = len(shards(folder))
    lost.unlink()
    return f"has no {lost.name}, one of the {count} files of weights that {INDEX} names; download it again"


def cut_shard(folder: Path) -> str:
    cut = shards(folder)[1]
    size = cut.stat().st_size
    cut.write_bytes(cut.read_bytes()[:-100])
    return rf"{cut.name} is cut: it has {size - 100} bytes, and its header says {size}: download it again"


def lose_weight(folder: Path) -> str:
    """Of int8 its first part."""
    for path in shards(folder):
        weights = load_file(path)
        lost = [name for name in weights if name.endswith((LAST, f"{LAST}.int8"))]
        if lost:
            save_file({name: one for name, one in weights.items() if name not in lost}, path, {"format": "pt"})
            return r"lacks 1 weights.*down_proj\.weight"
    raise AssertionError(LAST)


def lose_index(folder: Path) -> str:
    (folder / INDEX).unlink()
    return rf"has {shards(folder)[0].name} but neither model\.safetensors nor {INDEX}; download the whole checkpoint"


def lose_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").unlink()
    return r"the tokenizer of .* has no <\|im_start\|>; it needs the tokenizer\.json"


def ask_for_more_layers(folder: Path) -> str:
    values = json.loads((folder / "config.json").read_text())
    text = values.get("text_config", values)
    text["num_hidden_layers"] = 3
    text.pop("layer_types", None)
    save_config(folder, **values)
    return r"has the weights of 2 layers, and config\.json says 3 \(num_hidden_layers\)"


def ask_for_another_family(folder: Path) -> str:
    save_config(folder, model_type="qwen9_vl")
    return "has model_type 'qwen9_vl'; supported are flash_vstream_qwen2_vl, qwen2_vl, qwen2_5_vl and qwen3_vl"


@pytest.mark.parametrize(
    "damage",
    [
        lose_shard,
        cut_shard,
        lose_weight,
        lose_index,
        lose_tokenizer,
        ask_for_more_layers,
        ask_for_another_family,
    ],
)
def test_what_is_missing_or_wrong_is_named(folder: Path, damage: Callable[[Path], str]) -> None:
    load_checkpoint(str(folder), device=CPU, dtype=torch.float32)
    words = damage(folder)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(str(folder), device=CPU, dtype=torch.float32)
