"""Episodes as a torch data set, read, drawn and resized in the data processes.

Shapes: T grid steps, H x W pixels of a processed frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.model.preprocess import PixelConfig, frame_grid, resize_frames
from fvs_ros.training.data.cache import TensorCache, key_of
from fvs_ros.training.data.episodes import EpisodeSource, TrainingEpisode
from fvs_ros.training.data.frozen_encoder import FrozenEncoder
from fvs_ros.training.data.memories import memories
from fvs_ros.training.errors import TrainingError


@dataclass(frozen=True)
class Sample:
    """An episode with its frames, or with features or memories already made of them.

    Attributes:
        key: of its features in the cache, None if they are not cached.
        frames: uint8 [2T, 3, H, W], None if there are features.
        features: on the CPU.
        memories: one for each moment, on the CPU, if the data processes make them; then frames and features are None.
    """

    episode: TrainingEpisode
    grid: PatchGrid
    key: str | None
    frames: Tensor | None = None
    features: StepFeatures | None = None
    memories: tuple[MemorySnapshot, ...] | None = None


@dataclass(frozen=True, eq=False)
class EpisodeDataset(Dataset[Sample]):
    """The episodes of a source.

    Attributes:
        source: where they come from.
        pixels: how the checkpoint takes frames.
        cache: of features and drawn frames.
        tower: fingerprint of the frozen vision tower; None caches no features, as they change while it is trained.
        encoder: makes features and memories here, in the data process, instead of leaving that to the model.
    """

    source: EpisodeSource
    pixels: PixelConfig
    cache: TensorCache
    tower: str | None
    encoder: FrozenEncoder | None = None

    def __len__(self) -> int:
        return len(self.source)

    def length(self, index: int) -> int:
        """See `EpisodeSource.length`."""
        return self.source.length(index)

    def __getitem__(self, index: int) -> Sample:
        sample = self._sample(index)
        if self.encoder is None:
            return sample
        features = sample.features
        if features is None:
            assert sample.frames is not None
            features = self.encoder.encode(sample.frames)
            store_features(self.cache, sample, features)
        if not sample.episode.moments:
            return replace(sample, frames=None, features=features)
        snapshots = memories(features, sample.episode, sample.grid, self.encoder.memory)
        return Sample(sample.episode, sample.grid, sample.key, memories=tuple(snapshots))

    def _sample(self, index: int) -> Sample:
        episode = self.source.episode(index)
        bounds = (self.source.min_pixels, self.source.max_pixels)
        key = None if self.tower is None else key_of(self.tower, episode.identity, bounds, asdict(self.pixels))
        stored = None if key is None else self.cache.get(key)
        if stored is not None:
            grid = PatchGrid(*stored["grid"].tolist())
            return Sample(episode, grid, key, features=StepFeatures(stored["high"], stored["low"]))
        frames = self._frames(index, episode)
        height, width = frames[0].shape[:2]
        grid = frame_grid(height, width, *bounds, self.pixels)
        resized = resize_frames(frames, grid, torch.device("cpu")).to(torch.uint8)
        return Sample(episode, grid, key, frames=resized)

    def _frames(self, index: int, episode: TrainingEpisode) -> Sequence[np.ndarray]:
        if not self.source.drawn:
            return self._read(index, episode)
        key = key_of("frames", episode.identity)
        stored = self.cache.get(key)
        if stored is not None:
            return list(stored["frames"].numpy())
        frames = self._read(index, episode)
        # Under a frozen tower the features are kept instead.
        if self.tower is None:
            self.cache.put(key, {"frames": torch.from_numpy(np.stack(frames))})
        return frames

    def _read(self, index: int, episode: TrainingEpisode) -> Sequence[np.ndarray]:
        frames = self.source.frames(index)
        if len(frames) < 2 or len(frames) % 2:
            raise TrainingError(f"{episode.name} has {len(frames)} frames; a grid step is two, so give an even number")
        return frames


def store_features(cache: TensorCache, sample: Sample, features: StepFeatures) -> None:
    """Caches a frozen tower's features of a sample, for `EpisodeDataset` to find."""
    if sample.key is None:
        return
    grid = torch.tensor([sample.grid.height, sample.grid.width, sample.grid.patch])
    high, low = features.high.cpu().contiguous(), features.low.cpu().contiguous()
    cache.put(sample.key, {"grid": grid, "high": high, "low": low})


def collate(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """A batch in the form that the Trainer passes to the model."""
    return {"samples": list(samples)}


class EpisodeSampler(Sampler[int]):
    """A new order every epoch, the same for the same seed; episodes of one length stay together in batches.

    Args:
        dataset: what is ordered.
        batch: episodes of a batch, of all devices together.
        seed: of the order.
    """

    def __init__(self, dataset: EpisodeDataset, batch: int, seed: int) -> None:
        self._lengths = np.array([dataset.length(index) for index in range(len(dataset))])
        self._batch = batch
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch, in a resumed run too."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self._seed, self._epoch])
        whole: list[np.ndarray] = []
        rest: list[np.ndarray] = []
        for length in np.unique(self._lengths):
            indices = random.permutation(np.flatnonzero(self._lengths == length))
            cut = len(indices) // self._batch * self._batch
            whole += np.split(indices[:cut], cut // self._batch) if cut else []
            rest.append(indices[cut:])
        for number in random.permutation(len(whole)):
            yield from whole[number].tolist()
        yield from np.concatenate(rest).tolist()
