"""Models from the hub: the cache first, one error where the hub is no help, and downloads that say how far they are."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from fake_hub import NAME, NOWHERE, cached, serving_hub, silent_hub, use_hub
from huggingface_hub import constants

from fvs_ros.model import hub
from fvs_ros.model.checkpoint import load_checkpoint
from fvs_ros.model.checkpoint_errors import CheckpointError, HubError
from fvs_ros.model.checkpoint_files import checkpoint_folder
from fvs_ros.model.tiny import write_tiny_checkpoint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What the hub has."""
    folder = tmp_path / "model"
    write_tiny_checkpoint(folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "hub"


def ignore(line: str) -> None:
    pass


def test_a_model_that_is_whole_in_the_cache_is_loaded_without_asking(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(monkeypatch, cache, NOWHERE)
    snapshot = cached(cache)
    shutil.copytree(model, snapshot, dirs_exist_ok=True)
    monkeypatch.setattr(hub.subprocess, "Popen", None)
    lines: list[str] = []
    loaded = load_checkpoint(NAME, device=torch.device("cpu"), dtype=torch.float32, on_progress=lines.append)
    assert loaded.config.network.text_config.hidden_size == 64
    assert lines == ["reading the weights"]


@pytest.mark.parametrize(
    ("lacking", "named"),
    [
        ("*", "lacks config.json, tokenizer.json, the weights"),
        ("model.safetensors", "lacks model.safetensors"),
        ("tokenizer.json", "lacks tokenizer.json"),
    ],
)
def test_without_a_network_one_error_names_what_is_missing(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, lacking: str, named: str
) -> None:
    use_hub(monkeypatch, cache, NOWHERE)
    snapshot = cached(cache)
    shutil.copytree(model, snapshot, dirs_exist_ok=True)
    for path in snapshot.glob(lacking):
        path.unlink()
    with pytest.raises(HubError) as raised:
        checkpoint_folder(NAME, ignore)
    assert NAME in str(raised.value)
    assert named in str(raised.value)
    assert NOWHERE in str(raised.value)


def test_a_shard_that_is_missing_from_the_cache_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, cache, NOWHERE)
    snapshot = cached(cache)
    shards = [f"model-0000{number}-of-00005.safetensors" for number in range(1, 6)]
    for file in ("config.json", "tokenizer.json", shards[0]):
        (snapshot / file).write_text("{}")
    named = ", ".join(f'"{number}": "{shard}"' for number, shard in enumerate(shards))
    (snapshot / "model.safetensors.index.json").write_text(f'{{"weight_map": {{{named}}}}}')
    with pytest.raises(HubError, match=f"lacks {shards[1]}, {shards[2]}, {shards[3]} and 1 more"):
        checkpoint_folder(NAME, ignore)


@pytest.mark.parametrize("feed", [b"", b" "])
def test_a_hub_that_says_nothing_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch, feed: bytes) -> None:
    monkeypatch.setattr(hub, "ANSWER_S", 1.5)
    with silent_hub(feed) as address:
        use_hub(monkeypatch, cache, address)
        with pytest.raises(HubError, match=f"{address} does not answer for 2 s"):
            checkpoint_folder(NAME, ignore)


def test_the_whole_wait_for_a_hub_is_below_ten_seconds() -> None:
    assert hub.ANSWER_S + hub.CLEAN_UP_S < 10


def test_offline_by_choice_nobody_is_asked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, cache, NOWHERE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.subprocess, "Popen", None)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE") as raised:
        checkpoint_folder(NAME, ignore)
    assert not isinstance(raised.value, HubError)


def test_what_is_missing_is_downloaded_and_said(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    (model / "original").mkdir()
    (model / "original" / "model.safetensors").write_bytes(b"not wanted")
    # The download holds until how far it is has been said once.
    said = threading.Event()
    lines: list[str] = []

    def on_progress(line: str) -> None:
        lines.append(line)
        if line.startswith("downloading"):
            said.set()

    with serving_hub(model, on_get=lambda file: None if file != "model.safetensors" else _wait(said)) as address:
        use_hub(monkeypatch, cache, address)
        folder = checkpoint_folder(NAME, on_progress)
    assert lines[0] == f"asking {address} for {NAME}"
    size = sum(path.stat().st_size for path in model.glob("*") if path.suffix in (".json", ".safetensors"))
    assert lines[1].endswith(f" of {size / 1e9:.2f} GB")
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert not list(folder.rglob("*.bin"))
    assert not (folder / "original").exists()
    # From now on the hub is not needed.
    use_hub(monkeypatch, cache, NOWHERE)
    assert checkpoint_folder(NAME, ignore) == folder


def test_only_what_is_missing_is_downloaded(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    with serving_hub(model, on_get=sent.append) as address:
        use_hub(monkeypatch, cache, address)
        folder = checkpoint_folder(NAME, ignore)
        (folder / "model.safetensors").resolve().unlink()
        (folder / "model.safetensors").unlink()
        sent.clear()
        checkpoint_folder(NAME, ignore)
    assert sent == ["model.safetensors"]


def test_a_download_that_stalls_is_given_up_and_leaves_no_partial_file(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "STALL_S", 1.0)
    ended = threading.Event()
    with serving_hub(model, on_get=lambda file: None if file != "model.safetensors" else _wait(ended)) as address:
        use_hub(monkeypatch, cache, address)
        with pytest.raises(HubError, match=r"stopped at 0\.00 of 0\.00 GB for 1 s"):
            checkpoint_folder(NAME, ignore)
        ended.set()
    assert not list(cache.rglob("*.incomplete"))


def test_a_model_that_the_hub_does_not_know_is_not_worth_another_try(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_hub(model) as address:
        use_hub(monkeypatch, cache, address)
        with pytest.raises(CheckpointError, match="knows no model someone/else") as raised:
            checkpoint_folder("someone/else", ignore)
    assert not isinstance(raised.value, HubError)


def test_a_model_of_pickles_is_not_downloaded(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    sent: list[str] = []
    with serving_hub(model, on_get=sent.append) as address:
        use_hub(monkeypatch, cache, address)
        with pytest.raises(CheckpointError, match=r"as pickles \(pytorch_model\.bin\), which are never read"):
            checkpoint_folder(NAME, ignore)
    assert sent == []


def test_a_disk_that_is_too_small_is_told_before(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 0))
    with serving_hub(model, on_get=lambda file: time.sleep(0.5)) as address:
        use_hub(monkeypatch, cache, address)
        with pytest.raises(CheckpointError, match=r"0\.0 GB free; make room"):
            checkpoint_folder(NAME, ignore)


def _wait(event: threading.Event) -> None:
    assert event.wait(30)
