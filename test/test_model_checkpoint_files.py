"""Folders that are no checkpoints, and files that are not what their names say: told before a weight is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fvs_ros.model import checkpoint
from fvs_ros.model.checkpoint import load_checkpoint
from fvs_ros.model.checkpoint_errors import CheckpointError
from fvs_ros.model.checkpoint_files import checkpoint_folder, missing_files, read_json, read_weight_headers
from fvs_ros.model.tiny import write_tiny_checkpoint

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4901\n"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_checkpoint(tmp_path)
    return tmp_path


@pytest.fixture
def sharded(folder: Path) -> Path:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {SHARDS[0]: names[:30], SHARDS[1]: names[30:]}
    for shard, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / shard, metadata={"format": "pt"})
    index = {name: shard for shard, part in parts.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What loading says, without its having read a weight."""
    monkeypatch.setattr(checkpoint, "load_network", None)
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(str(folder), device=torch.device("cpu"), dtype=torch.float32)
    return str(raised.value)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: b"", "is empty"),
        (lambda content: POINTER, "is a pointer of git-LFS"),
        (lambda content: b"<!DOCTYPE html><html></html>", "is a page of HTML"),
        (lambda content: b"PK\x03\x04" + content, "is a pickle of PyTorch"),
        (lambda content: b"\x80\x02\x8a\x0a" + content, "is a pickle"),
        (lambda content: b"GGUF" + content, "is a GGUF file"),
        (lambda content: content[:5], "damaged, 5 bytes long"),
        (lambda content: content[:100], "damaged, 100 bytes long"),
        (lambda content: bytes(len(content)), "damaged"),
    ],
)
@pytest.mark.parametrize("shard", SHARDS)
def test_a_shard_that_is_something_else_is_named(
    sharded: Path, shard: str, damage: Callable[[bytes], bytes], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sharded / shard).write_bytes(damage((sharded / shard).read_bytes()))
    message = refused(sharded, monkeypatch)
    assert shard in message
    assert words in message


def test_a_cut_shard_tells_both_lengths(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (sharded / SHARDS[1]).read_bytes()
    (sharded / SHARDS[1]).write_bytes(content[:-1000])
    expected = f"{SHARDS[1]} is cut: it has {len(content) - 1000} bytes, and its header says {len(content)}"
    assert expected in refused(sharded, monkeypatch)
    (sharded / SHARDS[1]).write_bytes(content + b"more")
    expected = f"{SHARDS[1]} is too long: it has {len(content) + 4} bytes, and its header says {len(content)}"
    assert expected in refused(sharded, monkeypatch)


def test_a_missing_shard_is_named(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sharded / SHARDS[0]).unlink()
    assert missing_files(sharded) == [SHARDS[0]]
    assert f"has no {SHARDS[0]}, one of the 2 files of weights" in refused(sharded, monkeypatch)


def test_shards_without_their_index_say_so(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sharded / "model.safetensors.index.json").unlink()
    assert missing_files(sharded) == ["model.safetensors or model.safetensors.index.json"]
    assert f"{SHARDS[0]} but neither model.safetensors nor" in refused(sharded, monkeypatch)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("{}", "has no weight_map"),
        ('{"weight_map": "x"}', "has no weight_map"),
        ('{"weight_map": {"a": "../elsewhere.safetensors"}}', "'../elsewhere.safetensors', which is no file beside it"),
        ('{"weight_map": {"a": 1}}', "names 1"),
        ("", "is empty"),
        (POINTER.decode(), "pointer of git-LFS"),
    ],
)
def test_a_bad_index_is_named(sharded: Path, index: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (sharded / "model.safetensors.index.json").write_text(index)
    message = refused(sharded, monkeypatch)
    assert "model.safetensors.index.json" in message
    assert words in message


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("pytorch_model.bin", "as pickles (pytorch_model.bin) and none as safetensors. Pickles are never read"),
        ("pytorch_model-00001-of-00002.bin", "Pickles are never read"),
        ("consolidated.00.pth", "Pickles are never read"),
        ("model.gguf", "as model.gguf; only safetensors are read"),
        ("notes.txt", "has no weights (model.safetensors)"),
    ],
)
def test_a_folder_without_safetensors_says_what_it_has(
    folder: Path, file: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "model.safetensors").rename(folder / file)
    assert words in refused(folder, monkeypatch)


@pytest.mark.parametrize("peft", [True, False])
def test_an_adapter_beside_the_weights_is_refused_with_and_without_peft(
    folder: Path, peft: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not peft:
        monkeypatch.setitem(__import__("sys").modules, "peft", None)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "elsewhere"}')
    message = refused(folder, monkeypatch)
    assert "adapter_config.json" in message
    assert "merge_and_unload" in message


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("model.layers.0.self_attn.q_proj.qweight", torch.int32),
        ("model.layers.0.self_attn.q_proj.weight.absmax", torch.float32),
        ("model.layers.0.self_attn.q_proj.weight", torch.uint8),
        ("model.layers.0.self_attn.q_proj.weight", torch.float8_e4m3fn),
    ],
)
def test_quantised_weights_are_recognised_without_their_config(
    folder: Path, name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {name: torch.zeros(4, 4).to(dtype)}, folder / "model.safetensors", metadata={"format": "pt"})
    message = refused(folder, monkeypatch)
    assert f"quantised weights, such as {name}" in message
    assert "full-precision" in message


def test_the_headers_tell_type_and_shape(folder: Path) -> None:
    header = read_weight_headers(folder)["visual.blocks.0.attn.qkv.weight"]
    assert (header.dtype, header.shape) == ("F32", (192, 64))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (POINTER, "pointer of git-LFS"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "valid JSON"),
    ],
)
def test_a_json_file_that_is_something_else_is_named(folder: Path, content: bytes, words: str) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as raised:
        read_json(folder, "config.json")
    assert str(folder / "config.json") in str(raised.value)


def test_a_link_that_leads_nowhere_is_no_file_left_out(folder: Path) -> None:
    """As where the hub's cache was cleaned: its snapshots are links."""
    (folder / "preprocessor_config.json").unlink()
    (folder / "preprocessor_config.json").symlink_to(folder / "gone")
    with pytest.raises(CheckpointError, match=r"no preprocessor_config\.json"):
        read_json(folder, "preprocessor_config.json", default={})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/nowhere/model", "is no folder here"),
        ("./model", "is no folder here"),
        ("~nobody/model", "is no folder here"),
        ("a/b/c", "is no folder here"),
        ("embeded", "'embeded' is no folder here and no name on the hub"),
        ("with blank/model", "no name on the hub"),
        ("owner/", "no name on the hub"),
        ("", "is no folder here"),
        ("x" * 5000, "no name on the hub"),
        ("with\0null", "no name on the hub"),
        (__file__, "is a file"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused_without_asking_the_hub(name: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        checkpoint_folder(name, lambda line: pytest.fail(f"asked: {line}"))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "merges.txt"])
def test_a_file_that_is_too_large_or_none_is_refused(folder: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / file
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, 2**40)
    assert f"{path} is {2**40} bytes long; at most {2**27} make sense" in refused(folder, monkeypatch)
    path.unlink()
    os.mkfifo(path)
    assert f"{path} is a pipe or a device; a file is needed" in refused(folder, monkeypatch)
