import os
from pathlib import Path

import torch

from fvs_ros.training.config import CacheConfig
from fvs_ros.training.data.cache import TensorCache, key_of


def cache(folder: Path, *, disk_gb: float = 1.0, ram_mb: int = 0) -> TensorCache:
    return TensorCache(CacheConfig(str(folder), disk_gb=disk_gb, ram_mb=ram_mb))


def tensors(value: float, kilobytes: int = 1) -> dict[str, torch.Tensor]:
    return {"values": torch.full((kilobytes * 250,), float(value))}


def test_another_process_finds_what_was_kept(tmp_path: Path) -> None:
    cache(tmp_path).put("a", tensors(3))
    found = cache(tmp_path).get("a")
    assert found is not None
    assert torch.equal(found["values"], tensors(3)["values"])
    assert cache(tmp_path).get("b") is None


def test_those_used_longest_ago_make_room(tmp_path: Path) -> None:
    kept = cache(tmp_path, disk_gb=250e3 / 1e9)
    for number, key in enumerate("abc"):
        kept.put(key, tensors(number, 100))
        os.utime(tmp_path / f"{key}.safetensors", ns=(number, number))
        if key == "b":
            assert kept.get("a") is not None
    assert [key for key in "abc" if cache(tmp_path).get(key)] == ["a", "c"]


def test_a_file_that_was_cut_off_counts_as_absent(tmp_path: Path) -> None:
    cache(tmp_path).put("a", tensors(3))
    file = tmp_path / "a.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    assert cache(tmp_path).get("a") is None


def test_memory_is_bounded_too(tmp_path: Path) -> None:
    kept = cache(tmp_path, ram_mb=1)
    for number in range(3):
        kept.put(str(number), tensors(number, 400))
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    assert [number for number in range(3) if kept.get(str(number)) is not None] == [1, 2]


def test_without_a_folder_nothing_is_written() -> None:
    kept = TensorCache(CacheConfig(folder=None, ram_mb=1))
    kept.put("a", tensors(1))
    assert kept.get("a") is not None
    kept = TensorCache(CacheConfig(folder=None, ram_mb=0))
    kept.put("a", tensors(1))
    assert kept.get("a") is None


def test_keys_differ_with_each_part() -> None:
    assert len({key_of("a", "b"), key_of("a", "c"), key_of("b", "a"), key_of(None, "b")}) == 4
