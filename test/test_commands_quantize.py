"""`fvs quantize`: what it writes loads at once, and is the same as quantising while loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_networks import SmallShape, checkpoint_of, qwen2_5_vl
from test_model_layerwise import CPU, load, tensors

from fvs_ros.cli import main
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model import checkpoint_files, layerwise, quantized_weights
from fvs_ros.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from fvs_ros.model.quantization import Quantization
from fvs_ros.model.tiny import write_tiny_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = qwen2_5_vl(SmallShape(layers=3, tied=True))
    save_checkpoint(checkpoint_of(network, FlashMemoryConfig(csm_slots=6, dam_slots=3)), tmp_path / "full")
    return tmp_path / "full"


def quantised(folder: Path) -> Path:
    out = folder.with_name("int8")
    assert main(["quantize", str(folder), str(out), "--dtype", "float32", "--device", "cpu"]) == 0
    return out


@pytest.mark.parametrize("asked", [Quantization.NONE, Quantization.INT8])
@pytest.mark.parametrize("file_bytes", [10**9, 100_000])
def test_it_loads_what_loading_quantised_gives(
    folder: Path, asked: Quantization, file_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized_weights, "FILE_BYTES", file_bytes)
    out, expected = quantised(folder), load(folder, Quantization.INT8)
    assert (len(list(out.glob("*.safetensors"))) > 2) == (file_bytes < 10**9)
    # Nothing is quantised again.
    monkeypatch.setattr(layerwise, "quantize", None)
    found = load(out, asked)
    assert found.config == expected.config
    assert found.config.quantization is Quantization.INT8
    wanted, given = tensors(expected.network), tensors(found.network)
    assert wanted.keys() == given.keys()
    assert all(torch.equal(given[name], value) for name, value in wanted.items())


def test_it_writes_safetensors_and_json_alone(folder: Path) -> None:
    out = quantised(folder)
    assert {path.suffix for path in out.iterdir()} <= {".safetensors", ".json", ".jinja"}
    settings = json.loads((out / "config.json").read_text())["quantization_config"]
    assert settings == {"quant_method": "fvs_ros", "weights": "int8"}
    weights = load_file(out / "model.safetensors")
    assert {weight.dtype for name, weight in weights.items() if name.endswith(".int8")} == {torch.int8}
    # The head is the embeddings.
    assert not any("lm_head" in name for name in weights)
    assert not out.with_name("int8.partial").exists()


def test_a_folder_that_is_taken_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_checkpoint(tmp_path / "full")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("kept")
    assert main(["quantize", str(tmp_path / "full"), str(tmp_path / "out")]) == 1
    assert "out is there already; name a new folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_another_quantization_than_the_files_have_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = quantised(folder)
    monkeypatch.setattr("fvs_ros.model.checkpoint.check_usable", lambda *arguments: None)
    with pytest.raises(CheckpointError, match="holds int8 weights, and quantization is int4; set it to none, or"):
        load(out, Quantization.INT4)


def test_parts_of_another_shape_or_type_are_named(folder: Path) -> None:
    out = quantised(folder)
    weights = load_file(out / "model.safetensors")
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    for part, wrong in (("int8", weights[f"{name}.int8"][:-1]), ("scale", weights[f"{name}.scale"].int())):
        changed = {**weights, f"{name}.{part}": wrong.contiguous()}
        save_file(changed, out / "model.safetensors", {"format": "pt"})
        with pytest.raises(CheckpointError, match=r"up_proj.*quantise the checkpoint again \(fvs quantize\)"):
            load(out, Quantization.NONE)


def test_an_unknown_quantization_in_a_checkpoint_is_named(folder: Path) -> None:
    out = quantised(folder)
    values = json.loads((out / "config.json").read_text())
    values["quantization_config"]["weights"] = "int2"
    (out / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="quantised as 'int2', which this version does not know"):
        load_checkpoint(str(out), device=CPU, dtype=torch.float32)


def test_quantised_weights_need_their_configuration(folder: Path) -> None:
    out = quantised(folder)
    values = json.loads((out / "config.json").read_text())
    del values["quantization_config"]
    (out / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=checkpoint_files.FULL_PRECISION_HINT.split(",")[0]):
        load_checkpoint(str(out), device=CPU, dtype=torch.float32)
