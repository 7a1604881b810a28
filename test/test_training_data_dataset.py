import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from training_videos import TINY

from fvs_ros.memory.snapshot import StepFeatures
from fvs_ros.model.preprocess import PixelConfig
from fvs_ros.training.config import CacheConfig, ScratchConfig
from fvs_ros.training.data.cache import TensorCache
from fvs_ros.training.data.dataset import EpisodeDataset, EpisodeSampler, store_features
from fvs_ros.training.data.episodes import Conversation, TrainingEpisode, TrainingMoment
from fvs_ros.training.data.frozen_encoder import FrozenEncoder
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.model import EpisodeModel
from fvs_ros.training.scratch import new_checkpoint


class Drawn:
    """Grey frames; counts how often they are asked for."""

    min_pixels = max_pixels = 112 * 112

    def __init__(self, frames: int = 4, lengths: Sequence[int] = (2,) * 6, drawn: bool = True) -> None:
        self.drawn = drawn
        self.asked = 0
        self._frames = frames
        self._lengths = lengths

    def __len__(self) -> int:
        return len(self._lengths)

    def length(self, index: int) -> int:
        return self._lengths[index]

    def episode(self, index: int) -> TrainingEpisode:
        return TrainingEpisode(
            f"drawn {index}", f"drawn {index}", None, (TrainingMoment(None, (Conversation((("q", "a"),)),)),)
        )

    def frames(self, index: int) -> list[np.ndarray]:
        self.asked += 1
        return [np.full((100, 120, 3), 10 * index + 1, np.uint8)] * self._frames


def dataset(
    source: Drawn, folder: Path, tower: str | None = None, pixels: PixelConfig | None = None
) -> tuple[EpisodeDataset, TensorCache]:
    cache = TensorCache(CacheConfig(str(folder), ram_mb=0))
    return EpisodeDataset(source, pixels or PixelConfig(), cache, tower), cache


def test_frames_come_resized_to_the_grid(tmp_path: Path) -> None:
    sample = dataset(Drawn(), tmp_path)[0][3]
    assert (sample.grid.height, sample.grid.width) == (8, 8)
    assert sample.frames is not None
    assert sample.frames.shape == (4, 3, 112, 112)
    assert sample.frames.dtype == torch.uint8
    assert sample.frames.unique().tolist() == [31]
    assert sample.key is None


def test_data_processes_make_the_memories_that_the_model_would_make(tmp_path: Path) -> None:
    checkpoint = new_checkpoint(ScratchConfig(**TINY), seed=0)
    encoder = FrozenEncoder(checkpoint.backbone.tower, checkpoint.pixels, checkpoint.config.memory)
    source = Drawn()
    left, cache = dataset(source, tmp_path / "left", tower="t")
    made = EpisodeDataset(source, PixelConfig(), TensorCache(CacheConfig(str(tmp_path / "made"))), "t", encoder)
    model = EpisodeModel(checkpoint, tower_trained=False, max_tokens=100, cache=cache)
    (expected,) = model.memories(left[2])
    for _ in range(2):
        found = made[2].memories
        assert found is not None
        (memory,) = found
        # Once by each data set; the second time the features are found.
        assert source.asked == 2
        for field in dataclasses.fields(memory):
            one, other = getattr(memory, field.name), getattr(expected, field.name)
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        assert made[2].frames is None
    (taken,) = model.memories(made[2])
    assert torch.equal(taken.csm, expected.csm)


def test_drawn_frames_are_drawn_once_and_read_ones_always(tmp_path: Path) -> None:
    for drawn, asked in ((True, 1), (False, 2)):
        source = Drawn(drawn=drawn)
        episodes, _ = dataset(source, tmp_path / str(drawn))
        first, second = episodes[1].frames, episodes[1].frames
        assert first is not None
        assert second is not None
        assert torch.equal(first, second)
        assert source.asked == asked


def test_features_of_a_frozen_tower_take_the_place_of_frames(tmp_path: Path) -> None:
    source = Drawn()
    episodes, cache = dataset(source, tmp_path, tower="weights")
    sample = episodes[2]
    features = StepFeatures(torch.rand(2, 64, 8), torch.rand(2, 16, 8))
    store_features(cache, sample, features)
    again = episodes[2]
    assert again.frames is None
    assert again.grid == sample.grid
    assert again.features is not None
    assert torch.equal(again.features.high, features.high)
    assert torch.equal(again.features.low, features.low)
    assert source.asked == 1


def test_other_weights_or_pixels_do_not_use_the_same_features(tmp_path: Path) -> None:
    episodes, cache = dataset(Drawn(), tmp_path, tower="weights")
    store_features(cache, episodes[0], StepFeatures(torch.rand(2, 64, 8), torch.rand(2, 16, 8)))
    assert episodes[0].features is not None
    assert episodes[1].features is None
    assert dataset(Drawn(), tmp_path, tower="others")[0][0].features is None
    assert dataset(Drawn(), tmp_path, tower="weights", pixels=PixelConfig(std=(1, 1, 1)))[0][0].features is None


@pytest.mark.parametrize("count", [0, 1, 3])
def test_half_a_step_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(TrainingError, match=f"drawn 0 has {count} frames"):
        dataset(Drawn(frames=count), tmp_path)[0][0]


def sampler(lengths: Sequence[int], batch: int = 2, seed: int = 0, epoch: int = 0) -> list[int]:
    sampler = EpisodeSampler(
        EpisodeDataset(Drawn(lengths=lengths), PixelConfig(), TensorCache(CacheConfig()), None), batch, seed
    )
    sampler.set_epoch(epoch)
    return list(sampler)


def test_every_episode_comes_once_in_an_order_of_the_seed_and_the_epoch() -> None:
    lengths = (1,) * 20
    orders = [sampler(lengths, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3


def test_batches_hold_one_length_but_for_the_rest() -> None:
    lengths = (1, 2, 4) * 7
    order = [lengths[index] for index in sampler(lengths, batch=4)]
    batches = [set(order[start : start + 4]) for start in range(0, 12, 4)]
    assert sorted(order) == sorted(lengths)
    assert batches in [[{a}, {b}, {c}] for a in (1, 2, 4) for b in (1, 2, 4) for c in (1, 2, 4)]
