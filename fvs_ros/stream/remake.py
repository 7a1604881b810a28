"""Features of stored segments, made anew where another model made them: in idle time, newest first, one at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from fvs_ros.episodic.errors import StoreError
from fvs_ros.episodic.segment import SegmentFeatures
from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.memory.snapshot import PatchGrid, StepFeatures
from fvs_ros.stream.pictures import decode_jpeg
from fvs_ros.stream.recorder import Recorder
from fvs_ros.stream.segment_builder import KeysOf, no_keys, rows_and_columns

logger = logging.getLogger(__name__)


class Encoder(Protocol):
    """The worker that encodes, on whose thread the model is called."""

    @property
    def grid(self) -> PatchGrid | None:
        """Patches of the stream's frames; None before the first."""

    def encode(self, picture: np.ndarray, grid: PatchGrid) -> StepFeatures:
        """Features of an RGB picture, uint8 [height, width, 3], as a step of its own."""


class FeatureRemaker:
    """Reads pictures and writes features on the recorder's thread; the ingest thread encodes while no frame waits.

    Args:
        store: of the segments.
        fingerprint: of the model.
        recorder: on whose thread the store is used.
        when_idle: has something done on the ingest thread once no frame waits; False where that has ended.
        grid_of_picture: patches of a picture of that width and height.
        keys_of: see `SegmentBuilder`.
    """

    def __init__(
        self,
        store: EpisodeStore,
        fingerprint: str,
        recorder: Recorder,
        when_idle: Callable[[Callable[[Encoder], None]], bool],
        grid_of_picture: Callable[[int, int], PatchGrid],
        keys_of: KeysOf = no_keys,
    ) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._recorder = recorder
        self._when_idle = when_idle
        self._grid_of_picture = grid_of_picture
        self._keys_of = keys_of
        self._missing: list[int] = []
        self._total = 0

    def start(self) -> None:
        """Begins, if there is anything to make."""
        self._recorder.call(self._begin)

    def _begin(self) -> None:
        try:
            # The last first, as they are popped.
            self._missing = self._store.missing_features(self._fingerprint)[::-1]
            self._total = len(self._missing)
            self._next()
        except StoreError as error:
            self._give_up(error)

    def _next(self) -> None:
        """Has the next picture encoded, if one is left."""
        while self._missing:
            made = self._total - len(self._missing)
            self._recorder.say(remaking=f"features for this model: {made} of {self._total} segments")
            segment = self._missing.pop()
            picture = decode_jpeg(self._store.keyframe(segment) or b"")
            if picture is not None:
                self._when_idle(partial(self._encode, segment, picture))
                return
        self._recorder.say(remaking="")

    def _encode(self, segment: int, picture: np.ndarray, encoder: Encoder) -> None:
        """On the ingest thread."""
        try:
            # At the size of the frames, since another one costs captured graphs.
            grid = encoder.grid or self._grid_of_picture(picture.shape[1], picture.shape[0])
            low = encoder.encode(picture, grid).low[0]
            keys = self._keys_of(low, grid)
        except BaseException as error:
            self._give_up(error)
            if not isinstance(error, Exception):
                raise
            return
        self._recorder.call(lambda: self._put(segment, rows_and_columns(low, grid), keys))

    def _put(self, segment: int, mean: np.ndarray, keys: np.ndarray) -> None:
        try:
            self._store.put_features(segment, SegmentFeatures(self._fingerprint, mean, keys))
            self._next()
        except StoreError as error:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        logger.warning("features are not made anew: %s; the next start tries again", error)
        self._recorder.say(remaking="")
