"""Loading layer by layer: the same network as quantising a loaded one, in less memory; and what is wrong with files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_networks import SmallShape, checkpoint_of, qwen2_5_vl, qwen3_vl
from wide_networks import wide_config, write_empty_checkpoint

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from fvs_ros.model.quantization import Quantization
from fvs_ros.model.quantized_weights import parts_of, quantize_layers
from fvs_ros.model.tiny import write_tiny_checkpoint

CPU = torch.device("cpu")
MEGABYTE = 2**20


def load(folder: Path, quantization: Quantization, dtype: torch.dtype = torch.float32) -> Checkpoint:
    return load_checkpoint(str(folder), device=CPU, dtype=dtype, quantization=quantization)


def tensors(network: Any) -> dict[str, torch.Tensor]:
    """All plain tensors of a network, with those that are in no file."""
    weights = {**network.state_dict(), **dict(network.named_buffers())}
    return {f"{name}.{part}": value for name, one in weights.items() for part, value in parts_of(one).items()}


@pytest.mark.parametrize("kind", ["qwen2_vl, published", "qwen2_5_vl, tied, in several files", "qwen3_vl"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_loads_what_quantising_a_loaded_network_gives(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    if kind.startswith("qwen2_vl"):
        write_tiny_checkpoint(tmp_path)
    elif kind == "qwen3_vl":
        save_checkpoint(checkpoint_of(qwen3_vl(), FlashMemoryConfig(csm_slots=6, dam_slots=3)), tmp_path)
    else:
        network = qwen2_5_vl(SmallShape(layers=3, tied=True))
        save_checkpoint(checkpoint_of(network, FlashMemoryConfig(csm_slots=6, dam_slots=3)), tmp_path)
        (tmp_path / "model.safetensors").unlink()
        network.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
        for path in (tmp_path / "shards").glob("model*"):
            path.rename(tmp_path / path.name)
        assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    expected, found = load(tmp_path, Quantization.NONE, dtype), load(tmp_path, Quantization.INT8, dtype)
    assert (found.network.dtype, found.network.training) == (dtype, False)
    quantize_layers(expected.backbone, Quantization.INT8)
    wanted, given = tensors(expected.network), tensors(found.network)
    assert wanted.keys() == given.keys()
    assert all(torch.equal(given[name], value) for name, value in wanted.items())
    text = found.backbone.text_config
    assert text.to_dict() == expected.backbone.text_config.to_dict()
    # transformers asks each layer's own, such as for the attention to use.
    assert all(module.config is text for module in found.backbone.layers.modules() if hasattr(module, "config"))


MEASURE = """
import json, sys, torch
from fvs_ros.model.checkpoint import load_checkpoint
from fvs_ros.model.quantization import Quantization
from fvs_ros.model.quantized_weights import weight_bytes
from transformers.utils.logging import disable_progress_bar
disable_progress_bar()
def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
def load(folder, quantization):
    return load_checkpoint(folder, device=torch.device("cpu"), dtype=torch.bfloat16, quantization=quantization)
quantization = Quantization(sys.argv[3])
load(sys.argv[1], quantization)
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS:")
network = load(sys.argv[2], quantization).network
print(json.dumps({"peak": status("VmHWM:") - before, "weights": weight_bytes(network)}))
"""


def measured(warm: Path, folder: Path, quantization: str) -> dict[str, int]:
    """Bytes that loading `folder` takes at most, and those of its weights; `warm` is loaded before."""
    command = [sys.executable, "-c", MEASURE, str(warm), str(folder), quantization]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def test_its_peak_is_the_quantised_size_and_one_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = {
        "hidden_size": 1_024,
        "intermediate_size": 4_096,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
    }
    config, warm, folder = wide_config(text, layers=12), tmp_path / "warm", tmp_path / "model"
    write_empty_checkpoint(warm, wide_config(text, layers=1))
    write_empty_checkpoint(folder, config)
    size = (folder / "model.safetensors").stat().st_size
    plain, int8 = measured(warm, folder, "none"), measured(warm, folder, "int8")
    layer = size // 12
    with capsys.disabled():
        print(
            f"\nweights of {size / MEGABYTE:.0f} MiB, {layer / MEGABYTE:.0f} a layer: loading takes "
            f"{plain['peak'] / MEGABYTE:.0f} MiB, with int8 {int8['peak'] / MEGABYTE:.0f} of which "
            f"{int8['weights'] / MEGABYTE:.0f} stay"
        )
    assert abs(int8["weights"] - size / 2) < 0.02 * size
    # What rows of a weight take while they are quantised, see `AT_ONCE`.
    quantising = 32 * 2**20
    assert int8["peak"] < int8["weights"] + layer + quantising < 0.9 * size
    assert plain["peak"] > 0.95 * size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"lacks 1 weights of layer 1: mlp\.up_proj\.weight"),
        ("unknown", r"has unknown 1 weights of layer 0: self_attn\.q_norm\.weight"),
        ("misshapen", r"mlp.down_proj.weight is \[64, 100\], and config.json says \[64, 128\]"),
        ("outside", "lacks 1 weights, such as .*norm.weight"),
    ],
)
def test_weights_that_do_not_fit_are_named(change: str, message: str, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    if change == "missing":
        del weights["model.layers.1.mlp.up_proj.weight"]
    elif change == "unknown":
        weights["model.layers.0.self_attn.q_norm.weight"] = torch.zeros(16)
    elif change == "misshapen":
        weights["model.layers.1.mlp.down_proj.weight"] = torch.zeros(64, 100)
    else:
        del weights["model.norm.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path, Quantization.INT8)


def test_int4_says_which_weight_its_groups_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_checkpoint(tmp_path)
    monkeypatch.setattr("fvs_ros.model.checkpoint.check_usable", lambda *arguments: None)
    with pytest.raises(CheckpointError, match=r"q_proj.weight has 64 input features, and int4 needs a multiple of 128"):
        load(tmp_path, Quantization.INT4)


def test_a_configuration_that_names_more_layers_than_there_are_is_refused(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    values.update(num_hidden_layers=3, layer_types=["full_attention"] * 3)
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"weights of 2 layers, and config\.json says 3"):
        load(tmp_path, Quantization.INT8)
