"""The Flash Memory of a stored episode, made again: from the file that was saved of it, and the segments after that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from fvs_ros.episodic.segment import Segment, SegmentFeatures
from fvs_ros.memory.geometry import POOL
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.sources.frame import Area
from fvs_ros.stream.episode_memory import EpisodeMemory
from fvs_ros.stream.origins import StepOrigin
from fvs_ros.stream.pictures import decode_jpeg
from fvs_ros.stream.recording import Episodes
from fvs_ros.stream.saved_memory import SavedMemoryError, read
from fvs_ros.stream.segment_builder import BuiltSegment, merge_blocks

logger = logging.getLogger(__name__)

NewMemory = Callable[[PatchGrid], EpisodeMemory]

SEGMENTS_A_SLOT = 2
"""A long episode's memory is rebuilt from so many segments for each that it holds apart, each at the cost of a grid
step: slots still join scenes, and a day is back in a second or two with the embedded model."""

# Keyframes that are encoded at once, each as a step of its own.
_AT_ONCE = 4


@dataclass(frozen=True)
class Restored:
    """A memory that goes on from an earlier run.

    Attributes:
        memory: with at least one step.
        episode: the store's number.
        made_from: in words.
    """

    memory: EpisodeMemory
    episode: int
    made_from: str


@dataclass(frozen=True)
class _Saved:
    """A saved memory that fits, and where the segments after it begin.

    Attributes:
        last_segment: its segments have higher ids.
        open_steps: that many of their first steps are in the memory.
    """

    memory: EpisodeMemory
    last_segment: int
    open_steps: int


class Restorer:
    """Makes the Flash Memory of a stored episode again. Used by the ingest thread.

    Args:
        episodes: the store, and the map in which poses hold.
        fingerprint: of the model.
        grid_of_picture: patches of a picture of that width and height.
        held_apart: segments that the Flash Memory holds apart; an excerpt is made of no more, they are thinned.
        on_progress: called with how far it is, in words.
    """

    def __init__(
        self,
        episodes: Episodes,
        fingerprint: str,
        grid_of_picture: Callable[[int, int], PatchGrid],
        held_apart: int,
        on_progress: Callable[[str], None],
    ) -> None:
        self._store = episodes.store
        self._map_id = episodes.map_id
        self._fingerprint = fingerprint
        self._grid_of_picture = grid_of_picture
        self._held_apart = held_apart
        self._on_progress = on_progress

    def restore(self, episode: int, new_memory: NewMemory, grid: PatchGrid | None = None) -> Restored | None:
        """The memory of an episode; None where nothing is kept of it.

        Args:
            episode: the store's number.
            new_memory: makes an empty memory for a patch grid.
            grid: patches of a frame; None takes that of the saved memory, or else of the newest picture.

        Raises:
            StoreError: the store cannot be read.
            Exception: what the model fails with.
        """
        saved = self._saved(episode, new_memory, grid)
        after = saved.last_segment if saved else 0
        # In the order in which they were stored, whatever their stamps.
        stored = sorted(self._store.segments(episode=episode), key=lambda one: one.id)
        segments = [(one.id, one.segment) for one in stored if one.id > after]
        if saved is not None:
            memory = saved.memory
            segments = without_steps(segments, saved.open_steps, saved.memory.end_ns)
        elif segments:
            newest = segments[-1][1]
            memory = new_memory(grid or self._grid_of_picture(newest.width, newest.height))
        else:
            return None
        appended = self._append(memory, thinned(segments, SEGMENTS_A_SLOT * self._held_apart))
        if memory.end_ns is None:
            return None
        rebuilt = f"{appended} of {len(segments)} segments"
        return Restored(memory, episode, f"the saved memory and {rebuilt} after it" if saved else rebuilt)

    def excerpt(
        self,
        since_ns: int | None,
        until_ns: int | None,
        near: Area | None,
        unstored: Sequence[BuiltSegment],
        new_memory: NewMemory,
        grid: PatchGrid | None,
    ) -> EpisodeMemory | None:
        """A memory of what was seen in a closed range of stamps, from an area, in all episodes; None where nothing was.

        Of a segment that reaches beyond the range, the steps within count.

        Args:
            since_ns: stamp; None for all before `until_ns`.
            until_ns: stamp; None for all since `since_ns`.
            near: None for what was seen from everywhere.
            unstored: segments that the store does not hold yet.
            new_memory: makes an empty memory for a patch grid.
            grid: patches of a frame; None takes that of the newest picture.

        Raises:
            StoreError: the store cannot be read.
            Exception: what the model fails with.
        """
        # Those of the store have ids from 1.
        built = {-number: one for number, one in enumerate(unstored, 1) if near is None or near.holds(one.segment.pose)}
        known = [(one.id, one.segment) for one in self._store.segments(since_ns, until_ns, area=near)]
        known += [(number, one.segment) for number, one in built.items()]
        cut = [(number, part) for number, one in known if (part := within(one, since_ns, until_ns)) is not None]
        if not cut:
            return None
        cut.sort(key=lambda one: (one[1].start_ns, one[1].end_ns))
        newest = cut[-1][1]
        memory = new_memory(grid or self._grid_of_picture(newest.width, newest.height))
        self._append(memory, thinned(cut, self._held_apart), built)
        return None if memory.end_ns is None else memory

    def _saved(self, episode: int, new_memory: NewMemory, grid: PatchGrid | None) -> _Saved | None:
        """The saved memory, if there is one and it fits; what keeps it from that is logged."""
        path = self._store.saved_memory
        if path is None or not path.exists():
            return None
        try:
            state, of = read(path)
            if of.episode != episode:
                return None
            if of.last_segment > self._store.last_segment:
                raise SavedMemoryError(
                    f"{path} was saved after segment {of.last_segment}, and this store has had "
                    f"{self._store.last_segment}: it is of another one"
                )
            if of.fingerprint != self._fingerprint:
                raise SavedMemoryError(f"{path} is of the model {of.fingerprint}, and this one is {self._fingerprint}")
            if grid is not None and grid != state.grid:
                raise SavedMemoryError(
                    f"{path} is of frames of {state.grid.width} x {state.grid.height} patches, and now come "
                    f"{grid.width} x {grid.height}"
                )
            if of.map_id != self._map_id:
                # Poses of another map are not given as of this one.
                origins = {step: StepOrigin(one.frame_id) for step, one in state.origins.items()}
                state = replace(state, origins=origins)
            memory = new_memory(state.grid)
            memory.load(state)
        except (SavedMemoryError, ValueError) as error:
            logger.warning("the saved memory is not used: %s; the memory is rebuilt from segments", error)
            return None
        return _Saved(memory, of.last_segment, of.open_steps)

    def _append(
        self,
        memory: EpisodeMemory,
        segments: Sequence[tuple[int, Segment]],
        unstored: Mapping[int, BuiltSegment] | None = None,
    ) -> int:
        """Adds segments whose pictures are sound to a memory, and returns how many those are."""
        unstored = unstored or {}
        appended = 0
        for first in range(0, len(segments), _AT_ONCE):
            self._on_progress(f"{first} of {len(segments)} segments")
            pictured = [
                (identifier, segment, picture)
                for identifier, segment in segments[first : first + _AT_ONCE]
                if (picture := decode_jpeg(self._keyframe(identifier, unstored))) is not None
            ]
            if not pictured:
                continue
            features = memory.encode_pictures([picture for _, _, picture in pictured])
            means = self._store.features(self._fingerprint, [identifier for identifier, _, _ in pictured])
            means |= {identifier: one.features for identifier, one in unstored.items()}
            for step, (identifier, segment, _) in enumerate(pictured):
                low = mean_of(means.get(identifier), memory.grid, features.low[step])
                memory.append_segment(features.high[step], low, segment)
            appended += len(pictured)
        return appended

    def _keyframe(self, identifier: int, unstored: Mapping[int, BuiltSegment]) -> bytes:
        return unstored[identifier].keyframe if identifier in unstored else self._store.keyframe(identifier) or b""


def within(segment: Segment, since_ns: int | None, until_ns: int | None) -> Segment | None:
    """The part of a segment in a closed range of stamps, with the share of its weight, at least 1; None for no part.

    A segment shows one scene, so that its keyframe stands for any part of it, at the nearest stamp within.
    """
    start_ns = segment.start_ns if since_ns is None else max(segment.start_ns, since_ns)
    end_ns = segment.end_ns if until_ns is None else min(segment.end_ns, until_ns)
    if start_ns > end_ns:
        return None
    length_ns = segment.end_ns - segment.start_ns
    share = (end_ns - start_ns) / length_ns if length_ns else 1.0
    return replace(
        segment,
        start_ns=start_ns,
        end_ns=end_ns,
        keyframe_ns=min(max(segment.keyframe_ns, start_ns), end_ns),
        weight=max(1, round(share * segment.weight)),
    )


def mean_of(features: SegmentFeatures | None, grid: PatchGrid, own: Tensor) -> Tensor:
    """The mean features [P / 4, D] of a segment; its keyframe's `own` where the model made no others at this size."""
    if features is None or features.mean.shape != (grid.height // POOL, grid.width // POOL, own.shape[-1]):
        return own
    return merge_blocks(features.mean).to(own)


def without_steps(segments: Sequence[tuple[int, Segment]], steps: int, end_ns: int | None) -> list[tuple[int, Segment]]:
    """These segments with their ids, without the first `steps` grid steps of those that begin by `end_ns`.

    Where one of them could not be stored, or was evicted, those that follow keep their steps.
    """
    left = []
    for identifier, segment in segments:
        taken = min(steps, segment.weight) if end_ns is None or segment.start_ns <= end_ns else 0
        steps -= taken
        if taken < segment.weight:
            left.append((identifier, replace(segment, weight=segment.weight - taken)))
    return left


def thinned(segments: Sequence[tuple[int, Segment]], most: int) -> list[tuple[int, Segment]]:
    """At most `most` of these segments with their ids: of as many groups the heaviest each, with the weight of all."""
    if len(segments) <= most:
        return list(segments)
    kept = []
    for group in np.array_split(np.arange(len(segments)), most):
        together = [segments[index][1] for index in group]
        identifier, heaviest = max((segments[index] for index in group), key=lambda one: one[1].weight)
        start_ns = min(segment.start_ns for segment in together)
        end_ns = max(segment.end_ns for segment in together)
        weight = sum(segment.weight for segment in together)
        kept.append((identifier, replace(heaviest, start_ns=start_ns, end_ns=end_ns, weight=weight)))
    return kept
