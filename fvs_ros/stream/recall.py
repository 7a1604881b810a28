"""Recall: which stored segments a question about a long stream is about, and a memory that shows them.

The Flash Memory holds a short stream apart, step by step; of a day it knows no more than evenly spaced steps would. A
segment's keys are made once, when it is stored; a question is held against those of all segments of its episode, and
reads the best of them at their own times, beside the newest segments and evenly spaced ones.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fvs_ros.episodic.segment import Segment, SegmentFeatures
from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.memory.recalled import recalled_memory, shown_segments
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.stream.latest_memory import PublishedMemory
from fvs_ros.stream.model_protocol import SegmentRecaller
from fvs_ros.stream.segment_builder import NO_KEYS, BuiltSegment, KeysOf, merge_blocks

logger = logging.getLogger(__name__)


def keys_of(recaller: SegmentRecaller | None) -> KeysOf:
    """What makes the keys of one segment; without a recaller, and where it fails, there are none."""

    def make(low: Tensor, grid: PatchGrid) -> np.ndarray:
        if recaller is None:
            return NO_KEYS
        try:
            return recaller.segment_keys(low[None], grid)[0].numpy()
        except Exception:
            logger.exception("the keys of a segment could not be made: no question will recall it")
            return NO_KEYS

    return make


@dataclass(frozen=True, eq=False)
class _Known:
    """The segments of an episode, in order of time, with what is known of each.

    Attributes:
        ids: of the store, below 0 for those that it does not hold yet.
        segments: of as many.
    """

    ids: Sequence[int]
    segments: Sequence[Segment]


class SegmentRecall:
    """Finds segments for questions and makes memories of them. Used on the ingest thread.

    Args:
        store: of the segments.
        fingerprint: of the model.
        recaller: holds questions against keys.
        recalled: how many segments a question recalls, beside the newest and the evenly spaced.
        held_apart: segments that the Flash Memory holds apart; of no more, nothing is recalled.
    """

    def __init__(
        self, store: EpisodeStore, fingerprint: str, recaller: SegmentRecaller, recalled: int, held_apart: int
    ) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._recaller = recaller
        self._recalled = recalled
        self._held_apart = held_apart
        # Keys [t, d] by the store's id; None where a segment has none.
        self._keys: dict[int, Tensor | None] | None = None

    def memory(
        self, question: str, episode: int, unstored: Sequence[BuiltSegment], newest: PublishedMemory
    ) -> PublishedMemory:
        """A memory of what a question recalls; the newest memory itself where that holds all segments apart.

        Args:
            question: as asked.
            episode: the store's number of the running one.
            unstored: its segments that the store does not hold yet.
            newest: the newest memory, whose window the other has as well.

        Raises:
            StoreError: the store cannot be read.
            Exception: what the model fails with.
        """
        # Those of the store have ids from 1.
        built = {-number: one for number, one in enumerate(unstored, 1)}
        pairs = [(one.id, one.segment) for one in self._store.segments(episode=episode)]
        pairs += [(number, one.segment) for number, one in built.items()]
        if len(pairs) <= self._held_apart:
            return newest
        pairs.sort(key=lambda pair: (pair[1].start_ns, pair[1].end_ns))
        known = _Known(*zip(*pairs, strict=True))
        shown = shown_segments(self._scores(question, known, built, newest), self._recalled).tolist()
        chosen = _Known([known.ids[one] for one in shown], [known.segments[one] for one in shown])
        return self._shown(chosen, built, newest)

    def _scores(
        self, question: str, known: _Known, built: Mapping[int, BuiltSegment], newest: PublishedMemory
    ) -> Tensor:
        """Of all segments [n]; those without keys are never recalled."""
        keys = self._keys_of(known.ids, built)
        found = [place for place, one in enumerate(keys) if one is not None]
        scores = torch.full((len(keys),), -torch.inf)
        if found:
            scores[found] = self._recaller.scores(
                question,
                torch.stack([keys[place] for place in found]),  # type: ignore[misc]
                torch.tensor([known.segments[place].start_ns for place in found]),
                torch.tensor([known.segments[place].end_ns for place in found]),
                newest.status.start_ns,
                newest.status.end_ns,
            )
        return scores

    def _keys_of(self, ids: Sequence[int], built: Mapping[int, BuiltSegment]) -> list[Tensor | None]:
        if self._keys is None:
            self._keys = {one: _keys(keys) for one, keys in self._store.keys(self._fingerprint).items()}
        new = [one for one in ids if one > 0 and one not in self._keys]
        made = self._store.features(self._fingerprint, new) if new else {}
        self._keys |= {one: _keys(made[one].keys) if one in made else None for one in new}
        if len(self._keys) > 2 * len(ids):
            # Evicted and forgotten ones, and those of other episodes.
            kept = set(ids)
            self._keys = {one: keys for one, keys in self._keys.items() if one in kept}
        return [_keys(built[one].features.keys) if one < 0 else self._keys[one] for one in ids]

    def _shown(self, known: _Known, built: Mapping[int, BuiltSegment], newest: PublishedMemory) -> PublishedMemory:
        features = self._store.features(self._fingerprint, [one for one in known.ids if one > 0])
        features |= {number: one.features for number, one in built.items()}
        window, grid, status = newest.snapshot.window, newest.snapshot.grid, newest.status
        means = [_mean(features.get(one), grid) for one in known.ids]
        there = [place for place, mean in enumerate(means) if mean is not None]
        if not there:
            # Of frames of another size, or of another model.
            return newest
        segments = [known.segments[place] for place in there]
        low = torch.stack([means[place] for place in there])  # type: ignore[misc]
        starts, ends = ([getattr(one, name) for one in segments] for name in ("start_ns", "end_ns"))
        # Steps are counted as if they were evenly spaced in time, as they are at a fixed rate.
        length_ns = max(status.end_ns - status.start_ns, 1)
        middles = [(start + end) / 2 - status.start_ns for start, end in zip(starts, ends, strict=True)]
        last = status.steps - 1
        times = [min(max(middle / length_ns, 0.0), 1.0) * last for middle in middles]
        device = window.device
        snapshot = recalled_memory(
            low.to(device, newest.snapshot.csm.dtype),
            window,
            grid,
            steps=status.steps,
            times=torch.tensor(times, device=device),
            start_ns=torch.tensor(starts, device=device),
            end_ns=torch.tensor(ends, device=device),
            window_stamps_ns=newest.snapshot.window_stamps_ns,
        )
        return replace(newest, snapshot=snapshot, origins={}, recalled=tuple(segments))


def _keys(keys: np.ndarray) -> Tensor | None:
    return torch.from_numpy(keys.copy()) if keys.ndim == 2 else None


def _mean(features: SegmentFeatures | None, grid: PatchGrid) -> Tensor | None:
    """Mean features [P / 4, D]; None where there are none of this size."""
    if features is None or features.mean.shape[0] * features.mean.shape[1] != grid.low_patches:
        return None
    return merge_blocks(features.mean)
