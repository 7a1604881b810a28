from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.model.checkpoint_errors import CheckpointError
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.names import TINY
from fvs_ros.model.tiny import write_tiny_checkpoint
from fvs_ros.stream.evidence import shown_moments
from fvs_ros.stream.latest_memory import PublishedMemory
from fvs_ros.stream.types import MemoryStatus


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(made, memory=FlashMemoryConfig(csm_slots=6, dam_slots=3))
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> FlashVStream:
    return FlashVStream.load(str(folder), device="cpu")


@pytest.fixture
def snapshot(model: FlashVStream) -> MemorySnapshot:
    frames = list(np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3), dtype=np.uint8))
    grid = model.frame_grid(112, 112, 112 * 112, 112 * 112)
    memory = model.new_memory(grid)
    features = model.encode_steps(frames, grid)
    memory.append(features.high, features.low, [0, 2], [1, 3])
    return memory.snapshot()


def test_an_answer_goes_on_from_its_prefix_which_is_no_part_of_it(
    model: FlashVStream, snapshot: MemorySnapshot
) -> None:
    def answer(answer_prefix: str = "") -> str:
        return model.answer(snapshot, "Which?", max_new_tokens=6, answer_prefix=answer_prefix)

    plain, prefixed = answer(), answer(answer_prefix="Best option: (")
    assert prefixed != plain
    assert not prefixed.startswith("Best option")
    assert answer(answer_prefix="") == plain


def test_tiny_needs_no_file_and_is_the_same_each_time_unless_a_folder_has_that_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = FlashVStream.load(TINY, device="cpu")
    assert made.memory_config == FlashMemoryConfig()
    assert made.fingerprint() == FlashVStream.load(TINY, device="cpu").fingerprint()
    assert FlashVStream.load(TINY, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    shutil.copytree(folder, tmp_path / TINY)
    assert FlashVStream.load(TINY, device="cpu").memory_config.csm_slots == 6


def test_the_methods_are_the_checkpoints_unless_others_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny_checkpoint(tmp_path, memory=FlashMemoryConfig(csm_slots=6, dam_slots=3, spatial_method="nearest"))
    assert FlashVStream.load(str(tmp_path), device="cpu").memory_config.spatial_method == "nearest"
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"nearest"', '"nearest_step"'))
    assert FlashVStream.load(str(tmp_path), device="cpu").memory_config.spatial_method == "nearest"
    assert "flash_memory_spatial_method is 'nearest_step', which is not supported" in caplog.text
    sampled = FlashVStream.load(str(tmp_path), device="cpu", temporal_method="sample", spatial_method="sample")
    assert (sampled.memory_config.temporal_method, sampled.memory_config.spatial_method) == ("sample", "sample")
    with pytest.raises(CheckpointError, match="temporal_method is 'dbscan'; set it to one of kmeans_ordered, sample"):
        FlashVStream.load(str(tmp_path), device="cpu", temporal_method="dbscan")


@pytest.mark.parametrize(("csm", "dam"), [(0, 3), (4, 0), (2, 3)])
def test_a_model_answers_from_a_memory_of_other_sizes(csm: int, dam: int, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path, memory=FlashMemoryConfig(csm_slots=csm, dam_slots=dam, spatial_method="sample"))
    model = FlashVStream.load(str(tmp_path), device="cpu")
    frames = list(np.random.default_rng(0).integers(0, 256, (12, 112, 112, 3), dtype=np.uint8))
    grid = model.frame_grid(112, 112, 112 * 112, 112 * 112)
    features = model.encode_steps(frames, grid)
    memory = model.new_memory(grid)
    memory.append(features.high, features.low, list(range(0, 12, 2)), list(range(1, 12, 2)))
    snapshot = memory.snapshot()
    expected = model.answer(snapshot, "Which?", max_new_tokens=6)
    cache = model.new_prefix_cache()
    prefilled = cache.allocate(snapshot)
    while not prefilled.prefill_chunk():
        pass
    generation = prefilled.start("Which?", 6)
    while not generation.done:
        prefilled.decode_step()
    assert generation.text == expected
    assert generation.relevance is not None
    moments = shown_moments(PublishedMemory(snapshot, {}, MemoryStatus())).weighed(generation.relevance)
    alone = [moment.stamp_ns for moment in moments if moment.start_ns == moment.end_ns]
    assert set(alone) == {2 * step for step in snapshot.dam_steps.tolist()}
    assert sum(moment.relevance or 0 for moment in moments) == pytest.approx(1)
    cache.close()


def test_a_fingerprint_follows_the_weights_and_not_their_place(
    model: FlashVStream, folder: Path, tmp_path: Path
) -> None:
    write_tiny_checkpoint(tmp_path / "same", memory=FlashMemoryConfig(csm_slots=6, dam_slots=3))
    assert FlashVStream.load(str(tmp_path / "same"), device="cpu").fingerprint() == model.fingerprint()
    weights = load_file(tmp_path / "same" / "model.safetensors")
    name = next(name for name, weight in weights.items() if weight.dtype == torch.float32 and weight.dim() == 1)
    weights[name] = weights[name] + 1e-3
    save_file(weights, tmp_path / "same" / "model.safetensors", metadata={"format": "pt"})
    assert FlashVStream.load(str(tmp_path / "same"), device="cpu").fingerprint() != model.fingerprint()
