"""Retrieval keys of segments: how they are made, and all of an episode's side by side."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.stream.model_protocol import SegmentRecaller
from fvs_ros.stream.segment_builder import NO_KEYS, KeysOf

logger = logging.getLogger(__name__)

UNKEYED, OTHER_SIZE, UNKNOWN = -1, -2, -3
"""In place of a row: of a segment with features but without keys, with keys of frames of another size, and of one of
which this model has made nothing yet."""


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


class SegmentKeys:
    """The keys of stored segments, each read once: 4.6 MB for a day of the embedded model.

    Args:
        store: of the segments.
        fingerprint: of the model.
    """

    def __init__(self, store: EpisodeStore, fingerprint: str) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._forget(0)

    def rows(self, ids: np.ndarray, tokens: int) -> np.ndarray:
        """Where the keys of segments lie, for `take`: [n] int64; `UNKEYED` or below where there are none.

        Args:
            ids: [n] int64, of the store.
            tokens: t, of a segment of the wanted size.
        """
        if tokens != self._tokens or len(self._ids) > 2 * len(ids):
            # The rest is evicted, forgotten, or of other episodes.
            self._forget(tokens)
        new = ids[self._look_up(ids) == UNKNOWN]
        if new.size:
            self._add(self._store.keys(self._fingerprint, new.tolist()))
        return self._look_up(ids)

    def take(self, rows: np.ndarray) -> Tensor:
        """Keys [n, t, d] float16 of some rows."""
        if len(rows) == len(self._keys) and (rows[:-1] < rows[1:]).all():
            return self._keys
        return self._keys[torch.from_numpy(rows)]

    def _forget(self, tokens: int) -> None:
        self._tokens = tokens
        # Ascending, and the row of each.
        self._ids, self._rows = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._keys = torch.zeros(0, 0, 0, dtype=torch.float16)

    def _look_up(self, ids: np.ndarray) -> np.ndarray:
        if not self._ids.size:
            return np.full(len(ids), UNKNOWN)
        places = np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)
        return np.where(self._ids[places] == ids, self._rows[places], UNKNOWN)

    def _add(self, found: Mapping[int, np.ndarray]) -> None:
        if not found:
            return
        rows: list[int] = []
        stacked: list[np.ndarray] = []
        for keys in found.values():
            if keys.ndim == 2 and keys.shape[0] == self._tokens:
                rows.append(len(self._keys) + len(stacked))
                stacked.append(keys)
            else:
                rows.append(OTHER_SIZE if keys.ndim == 2 else UNKEYED)
        ids = np.concatenate([self._ids, np.fromiter(found, np.int64, len(found))])
        order = np.argsort(ids)
        self._ids, self._rows = ids[order], np.concatenate([self._rows, np.array(rows, np.int64)])[order]
        if stacked:
            new = torch.from_numpy(np.stack(stacked))
            self._keys = torch.cat([self._keys, new]) if len(self._keys) else new
