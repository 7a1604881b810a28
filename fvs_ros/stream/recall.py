"""Recall: which stored segments a question about a long stream is about, and a memory that shows them.

The Flash Memory holds a short stream apart, step by step; of a day it knows no more than evenly spaced steps would. A
segment's keys are made once, when it is stored; a question is held against those of all segments of its episode, and
reads the best of them at their own times, beside the newest segments and evenly spaced ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fvs_ros.episodic.segment import Segment, SegmentFeatures
from fvs_ros.episodic.store import EpisodeStore
from fvs_ros.memory.recalled import NEWEST, SPACED, recalled_memory, shown_segments
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid
from fvs_ros.stream.latest_memory import LatestMemory, PublishedMemory
from fvs_ros.stream.log import traceback_without
from fvs_ros.stream.model_protocol import SegmentRecaller
from fvs_ros.stream.recall_keys import UNKEYED, SegmentKeys
from fvs_ros.stream.recorder import Recorder
from fvs_ros.stream.recording import RecordingError
from fvs_ros.stream.segment_builder import BuiltSegment, merge_blocks, rows_and_columns_of

logger = logging.getLogger(__name__)


def most_recalled(wanted: int, slots: int) -> int:
    """Segments that a question recalls: as many as are wanted and fit a memory of so many CSM slots; 0 for none."""
    return max(0, min(wanted, slots - NEWEST - SPACED))


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Segments that can be shown, in order of time.

    Attributes:
        ids: [n] int64, of the store; -1, -2, ... for those that it does not hold yet.
        start_ns, end_ns: [n] int64.
        scores: [n], how much each matters to the question; minus infinity without keys.
    """

    ids: np.ndarray
    start_ns: np.ndarray
    end_ns: np.ndarray
    scores: Tensor


class SegmentRecall:
    """Finds segments for questions and makes memories of them. Used by one thread at a time.

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
        self.held_apart = held_apart
        self._keys = SegmentKeys(store, fingerprint)

    def memory(
        self, wordings: Sequence[str], episode: int, unstored: Sequence[BuiltSegment], newest: PublishedMemory
    ) -> PublishedMemory | None:
        """A memory of what a question recalls; None where nothing is recalled.

        So it is where the Flash Memory holds all segments apart, and where less than half of them have features of this
        model and of this size, which are being made anew: what is shown would be a part of the stream.

        Args:
            wordings: of the question, the first as asked; see `history.wordings`.
            episode: the store's number of the running one.
            unstored: its segments that the store does not hold yet.
            newest: the newest memory, whose window the other has as well.

        Raises:
            StoreError: the store cannot be read.
            Exception: what the model fails with.
        """
        candidates = self._candidates(wordings, episode, unstored, newest)
        if candidates is None:
            return None
        shown = shown_segments(candidates.scores, self._recalled).numpy()
        return self._shown(candidates.ids[shown].tolist(), unstored, newest)

    def _candidates(
        self, wordings: Sequence[str], episode: int, unstored: Sequence[BuiltSegment], newest: PublishedMemory
    ) -> _Candidates | None:
        timeline, status = self._store.timeline(episode), newest.status
        if len(timeline.ids) + len(unstored) <= self.held_apart:
            return None
        tokens = newest.snapshot.grid.csm_tokens
        rows = self._keys.rows(timeline.ids, tokens)
        usable = rows >= UNKEYED
        if usable.sum() + len(unstored) <= max(self.held_apart, len(rows) // 2):
            return None
        opened = [one.features.keys for one in unstored]
        with_keys = [keys.ndim == 2 and keys.shape[0] == tokens for keys in opened]
        keyed = np.concatenate([rows[usable] > UNKEYED, np.array(with_keys, bool)])
        if not keyed.any():
            return None
        starts, ends = (
            np.concatenate([column[usable], np.array([getattr(one.segment, name) for one in unstored], np.int64)])
            for name, column in (("start_ns", timeline.start_ns), ("end_ns", timeline.end_ns))
        )
        parts = [self._keys.take(rows[rows > UNKEYED])] if (rows > UNKEYED).any() else []
        parts += [torch.from_numpy(keys.copy())[None] for keys, has in zip(opened, with_keys, strict=True) if has]
        scores = torch.full((len(keyed),), -torch.inf)
        keys = torch.cat(parts) if len(parts) > 1 else parts[0]
        spans = torch.from_numpy(starts[keyed]), torch.from_numpy(ends[keyed])
        scores[torch.from_numpy(keyed)] = _mixed(
            [self._recaller.scores(one, keys, *spans, status.start_ns, status.end_ns) for one in wordings]
        )
        ids = np.concatenate([timeline.ids[usable], -np.arange(1, len(unstored) + 1)])
        order = np.lexsort((ends, starts))
        return _Candidates(ids[order], starts[order], ends[order], scores[torch.from_numpy(order)])

    def _shown(
        self, ids: Sequence[int], unstored: Sequence[BuiltSegment], newest: PublishedMemory
    ) -> PublishedMemory | None:
        """The memory that shows segments; those that are gone, damaged or of another size are left out."""
        stored = [one for one in ids if one > 0]
        segments = {one.id: one.segment for one in self._store.segments_by_id(stored)}
        features = self._store.features(self._fingerprint, stored)
        segments |= {-number: one.segment for number, one in enumerate(unstored, 1)}
        features |= {-number: one.features for number, one in enumerate(unstored, 1)}
        grid = newest.snapshot.grid
        shown = [
            (segments[one], mean)
            for one in ids
            if one in segments and (mean := _mean(features.get(one), grid)) is not None
        ]
        if not shown:
            return None
        recalled = tuple(segment for segment, _ in shown)
        snapshot = _snapshot(recalled, torch.stack([mean for _, mean in shown]), newest)
        return replace(newest, snapshot=snapshot, origins={}, recalled=recalled)


def _mixed(scores: Sequence[Tensor]) -> Tensor:
    """Scores [n] of a question from those of its wordings: each is as likely as another to say what it is about."""
    if len(scores) == 1:
        return scores[0]
    return torch.stack([one.log_softmax(0) for one in scores]).logsumexp(0)


def _snapshot(segments: Sequence[Segment], means: Tensor, newest: PublishedMemory) -> MemorySnapshot:
    """A memory of segments, with mean features [n, P / 4, D], and of the newest memory's window."""
    status, window = newest.status, newest.snapshot.window
    device = window.device
    starts, ends = [one.start_ns for one in segments], [one.end_ns for one in segments]
    # Steps are counted as if they were evenly spaced in time, as they are at a fixed rate.
    length_ns = max(status.end_ns - status.start_ns, 1)
    middles = [(start + end) / 2 - status.start_ns for start, end in zip(starts, ends, strict=True)]
    times = [min(max(middle / length_ns, 0.0), 1.0) * (status.steps - 1) for middle in middles]
    newest.snapshot.wait_ready()
    made = recalled_memory(
        means.to(device, newest.snapshot.csm.dtype),
        window,
        newest.snapshot.grid,
        steps=status.steps,
        times=torch.tensor(times, device=device),
        start_ns=torch.tensor(starts, device=device),
        end_ns=torch.tensor(ends, device=device),
        stamps_ns=torch.tensor([one.keyframe_ns for one in segments], device=device),
        window_stamps_ns=newest.snapshot.window_stamps_ns,
    )
    if device.type != "cuda":
        return made
    return replace(made, ready=torch.cuda.current_stream(device).record_event())


def _mean(features: SegmentFeatures | None, grid: PatchGrid) -> Tensor | None:
    """Mean features [P / 4, D]; None where there are none of this size."""
    if features is None or features.mean.shape[:2] != rows_and_columns_of(grid):
        return None
    return merge_blocks(features.mean)


class QuestionRecall:
    """Recalls for questions, from any thread. The work is done on the recorder's, so that no frame waits for it.

    Args:
        segments: finds them.
        recorder: has what is in no segment yet.
        latest: counts what was forgotten.
    """

    def __init__(self, segments: SegmentRecall, recorder: Recorder, latest: LatestMemory) -> None:
        self._segments = segments
        self._recorder = recorder
        self._latest = latest

    @property
    def due(self) -> bool:
        """Whether the running episode has more segments than the Flash Memory holds apart."""
        return self._recorder.status.episode_segments >= self._segments.held_apart

    def begin(
        self, wordings: Sequence[str], newest: PublishedMemory, given_up: Callable[[], bool]
    ) -> Future[PublishedMemory | None]:
        """A memory of what a question recalls; None where nothing is recalled, or finding it fails.

        Args:
            wordings: of the question, the first as asked.
            newest: the newest memory.
            given_up: whether nobody waits for it any more.
        """
        found: Future[PublishedMemory | None] = Future()

        def recall() -> PublishedMemory | None:
            if given_up():
                return None
            # Before the store is read. What is forgotten is so on this thread, too.
            forgettings = self._latest.forgettings
            made = self._segments.memory(wordings, self._recorder.episode, self._recorder.open_segments(), newest)
            return made and replace(made, forgettings=forgettings)

        def finish(made: Future[PublishedMemory | None]) -> None:
            error = made.exception()
            if isinstance(error, Exception) and not isinstance(error, RecordingError):
                # Without the question: it is nobody's but the asker's.
                said = traceback_without(error, wordings)
                logger.error("a question recalls nothing, and is answered from the Flash Memory\n%s", said)
            found.set_result(None if error is not None else made.result())

        self._recorder.call(recall).add_done_callback(finish)
        return found
