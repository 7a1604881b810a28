"""Checkpoints that AWQ and GPTQ have packed: loaded as GPTQModel computes them, or refused with what to do."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_networks import SmallShape, checkpoint_of, qwen2_5_vl, qwen3_vl
from stand_in_gptqmodel import AWQ_ORDER, pack_columns, use_gptqmodel
from test_model_quantized_weights import logits
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model import checkpoint, memory_plan
from fvs_ros.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from fvs_ros.model.decoder import Decoder
from fvs_ros.model.families import backbone_of
from fvs_ros.model.packed_weights import PackedWeights
from fvs_ros.model.quantization import Quantization
from fvs_ros.model.quantized_weights import linear_layers
from fvs_ros.model.tiny import tiny_checkpoint

CPU = torch.device("cpu")
GROUP = 32
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}
KINDS: dict[str, Callable[[], Any]] = {
    "qwen2_vl": lambda: tiny_checkpoint().network,
    "qwen2_5_vl": lambda: qwen2_5_vl(SmallShape(layers=2)),
    "qwen3_vl": qwen3_vl,
}
UP, FIRST = "model.layers.1.mlp.up_proj", "0.self_attn.q_proj.weight"


@pytest.fixture
def gptqmodel(monkeypatch: pytest.MonkeyPatch) -> None:
    use_gptqmodel(monkeypatch)


def pack(values: Tensor, zeros: Tensor, scales: Tensor, groups: Tensor, settings: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a layer whose weights [k, n] are (values - zeros[groups]) * scales[groups]."""
    rows = tuple(range(32 // settings["bits"]))
    if settings["quant_method"] == "awq":
        return {
            "qweight": pack_columns(values, AWQ_ORDER),
            "qzeros": pack_columns(zeros, AWQ_ORDER),
            "scales": scales.half(),
        }
    return {
        "qweight": pack_columns(values.T, rows).T.contiguous(),
        # Of the first layout of GPTQ: one less.
        "qzeros": pack_columns(zeros - 1, rows),
        "scales": scales.half(),
        "g_idx": groups.to(torch.int32),
    }


def write(folder: Path, settings: dict[str, Any], kind: str = "qwen2_5_vl") -> Any:
    """Writes a packed checkpoint; returns the network of full precision that computes the same."""
    network: Any = KINDS[kind]().to(torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    packed: dict[str, Tensor] = {}
    method, top = settings["quant_method"], 2 ** settings["bits"]
    for name, linear in linear_layers(backbone_of(network).layers):
        outputs, inputs = linear.weight.shape
        groups = torch.arange(inputs) // GROUP
        if settings.get("desc_act"):
            groups = groups[torch.randperm(inputs, generator=generator)]
        values = torch.randint(0, top, (inputs, outputs), generator=generator)
        zeros = torch.randint(1, top, (inputs // GROUP, outputs), generator=generator)
        # Powers of two, so that weights are exact in bfloat16.
        scales = 2.0 ** torch.randint(-8, -5, zeros.shape, generator=generator) * 16 / top
        linear.weight.data = ((values - zeros[groups]) * scales[groups]).T.to(torch.bfloat16)
        packed |= {f"{name}.{part}": one for part, one in pack(values, zeros, scales, groups, settings).items()}
        if method == "gptq" and name.rpartition(".")[2] not in ("q_proj", "k_proj", "v_proj"):
            # As AutoGPTQ writes them.
            packed[f"{name}.bias"] = torch.zeros(outputs, dtype=torch.float16)
    save_checkpoint(checkpoint_of(network, FlashMemoryConfig(csm_slots=6, dam_slots=3)), folder)
    weights = load_file(folder / "model.safetensors")
    (prefix,) = (name.removesuffix(FIRST) for name in weights if name.endswith(FIRST))
    for name, one in packed.items():
        weights.pop(f"{prefix}{name.rpartition('.')[0]}.weight", None)
        weights[f"{prefix}{name}"] = one
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    change_config(folder, quantization_config=settings)
    return network


def change_config(folder: Path, **changes: object) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))


def load(
    folder: Path, dtype: torch.dtype = torch.bfloat16, quantization: Quantization = Quantization.NONE
) -> checkpoint.Checkpoint:
    return load_checkpoint(str(folder), device=CPU, dtype=dtype, quantization=quantization)


@pytest.mark.usefixtures("gptqmodel")
@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (GPTQ, "qwen2_5_vl"),
        ({**GPTQ, "desc_act": True}, "qwen2_5_vl"),
        (AWQ, "qwen2_5_vl"),
        (AWQ, "qwen3_vl"),
        (GPTQ, "qwen2_vl"),
        (AWQ, "qwen2_vl"),
        ({**GPTQ, "bits": 8}, "qwen2_5_vl"),
    ],
    ids=["gptq", "gptq, reordered", "awq", "awq, qwen3_vl", "gptq, qwen2_vl", "awq, qwen2_vl", "gptq, 8 bits"],
)
def test_logits_are_those_of_the_unpacked_weights(tmp_path: Path, settings: dict[str, Any], kind: str) -> None:
    network = write(tmp_path, settings, kind)
    found = load(tmp_path)
    assert found.config.packed is not None
    assert found.config.packed.method == settings["quant_method"]
    assert found.config.quantization is Quantization.NONE
    with torch.no_grad():
        expected = logits(network)
        torch.testing.assert_close(logits(found.network), expected, rtol=0, atol=0.05 * float(expected.std()))
    assert Decoder(found.backbone).chunk == Decoder(backbone_of(network)).chunk


@pytest.mark.usefixtures("gptqmodel")
def test_layers_that_were_left_in_full_precision_are_loaded_so(tmp_path: Path) -> None:
    network = write(tmp_path, AWQ)
    weights = load_file(tmp_path / "model.safetensors")
    for part in ("qweight", "qzeros", "scales"):
        del weights[f"{UP}.{part}"]
    weights[f"{UP}.weight"] = network.model.language_model.layers[1].mlp.up_proj.weight.data.contiguous()
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with torch.no_grad():
        expected = logits(network)
        found = logits(load(tmp_path).network)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05 * float(expected.std()))


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda weights: weights.__delitem__(f"{UP}.{name}")


def shorter(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda weights: weights.update({f"{UP}.{name}": weights[f"{UP}.{name}"][:-1].contiguous()})


@pytest.mark.usefixtures("gptqmodel")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without("g_idx"), r"lacks mlp\.up_proj\.g_idx, but has mlp\.up_proj\.bias"),
        (shorter("qweight"), r"up_proj\.qweight is torch\.int32 \[7, \d+\], and config\.json says torch\.int32 \[8,"),
        (lambda weights: weights[f"{UP}.g_idx"].fill_(2), r"names groups from 2 to 2, and there are 2"),
        (lambda weights: weights.update({f"{UP}.extra": torch.zeros(1)}), r"has unknown 1 weights of layer 1: mlp\.up"),
    ],
    ids=["missing", "misshapen", "groups", "unknown"],
)
def test_half_a_packed_checkpoint_is_refused(
    tmp_path: Path, damage: Callable[[dict[str, Tensor]], None], words: str
) -> None:
    write(tmp_path, GPTQ)
    weights = load_file(tmp_path / "model.safetensors")
    damage(weights)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path)


@pytest.mark.usefixtures("gptqmodel")
def test_it_is_not_quantised_again_and_not_computed_in_float32(tmp_path: Path) -> None:
    write(tmp_path, AWQ)
    with pytest.raises(CheckpointError, match="holds awq with 4 bits weights, and quantization is int8; set"):
        load(tmp_path, quantization=Quantization.INT8)
    with pytest.raises(CheckpointError, match=r"dtype is torch\.float32; set dtype to bfloat16"):
        load(tmp_path, torch.float32)


@pytest.mark.usefixtures("gptqmodel")
def test_its_files_decide_whether_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, AWQ)
    size = (tmp_path / "model.safetensors").stat().st_size
    monkeypatch.setattr(checkpoint, "LARGE", 0)
    monkeypatch.setattr(memory_plan, "free_bytes", lambda device: size - 1)
    with pytest.raises(CheckpointError, match="choose a smaller model"):
        load(tmp_path)
    monkeypatch.setattr(memory_plan, "free_bytes", lambda device: size)
    load(tmp_path)


@pytest.mark.parametrize("settings", [GPTQ, AWQ], ids=["gptq", "awq"])
def test_without_gptqmodel_it_says_what_to_install(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, settings)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    method = settings["quant_method"]
    words = f"by {method} with 4 bits, which needs GPTQModel, and that is not installed: pip install gptqmodel"
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bits": 3}, "has bits 3; supported are 4, 8"),
        ({"quant_method": "awq", "bits": 8, "version": "gemm"}, "has bits 8; supported are 4"),
        ({"bits": None}, "has bits None"),
        ({"group_size": 7}, "has group_size 7"),
        ({"checkpoint_format": "marlin"}, "has the layout 'marlin'; supported are gptq, gptq_v2"),
        ({"quant_method": "awq", "version": "gemv"}, "has the layout 'gemv'; supported are gemm"),
        ({"desc_act": "yes"}, "has desc_act 'yes'"),
        ({"bits": [4]}, r"has bits \[4\]"),
    ],
    ids=str,
)
def test_other_settings_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        PackedWeights.from_json({**GPTQ, **changes})


def test_the_settings_of_published_checkpoints_are_read() -> None:
    """As those of Qwen2-VL-7B-Instruct-GPTQ-Int8 and -AWQ on the hub."""
    gptq = {
        "quant_method": "gptq",
        "bits": 8,
        "group_size": 128,
        "desc_act": False,
        "sym": True,
        "damp_percent": 0.01,
    }
    assert PackedWeights.from_json(gptq) == PackedWeights("gptq", "gptq", 8, 128, symmetric=True, reordered=False)
    awq = {**AWQ, "group_size": 128, "modules_to_not_convert": ["visual"]}
    assert PackedWeights.from_json(awq) == PackedWeights("awq", "gemm", 4, 128, symmetric=False, reordered=False)
    for other in (None, "fp8", {"quant_method": "bitsandbytes"}, {"quant_method": ["gptq"]}):
        assert PackedWeights.from_json(other) is None
