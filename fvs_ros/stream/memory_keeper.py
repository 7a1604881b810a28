"""Ties the Flash Memory to the episode store: restores it, saves it now and then, loads another, forgets a part."""

from __future__ import annotations

import datetime
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from fvs_ros.episodic.errors import Problem, StoreError
from fvs_ros.episodic.segment import Segment
from fvs_ros.episodic.store import Resume
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.sources.frame import SECOND_NS, Area
from fvs_ros.stream.episode_memory import EpisodeMemory, MemoryState
from fvs_ros.stream.latest_memory import PublishedMemory
from fvs_ros.stream.recorder import Recorder
from fvs_ros.stream.recording import Episodes, RecordingError
from fvs_ros.stream.restore import Restored, Restorer
from fvs_ros.stream.saved_memory import MOST_BYTES, Description, write
from fvs_ros.stream.types import AskError, ErrorCode

logger = logging.getLogger(__name__)

SAVE_EVERY_S = 60.0
"""Least time between two savings of the Flash Memory. What came in between is rebuilt from segments."""
# Of a core, for copying and writing the memory: where that takes long, it is saved less often.
SAVING_SHARE = 0.02


class MemoryHolder(Protocol):
    """The worker that holds the memory, on whose thread a `MemoryKeeper` is called."""

    @property
    def memory(self) -> EpisodeMemory | None:
        """The memory of the running episode; None before its first frame."""

    def new_memory(self, grid: PatchGrid) -> EpisodeMemory:
        """An empty memory."""

    def adopt(self, memory: EpisodeMemory) -> None:
        """Goes on with a memory and publishes it."""

    def drop_memory(self) -> None:
        """Goes on without a memory, in a new episode of the engine; waiting frames are discarded."""

    def outdate_excerpts(self) -> None:
        """Lets no answer begin from an excerpt or a recalled memory that was made before. On the recorder's thread."""


class MemoryKeeper:
    """Restores, saves, loads and forgets. Every method is called on the ingest thread, between batches.

    Args:
        episodes: the store, and what to go on with.
        recorder: stores its segments.
        fingerprint: of the model.
        grid_of_picture: patches of a picture of that width and height.
        held_apart: segments that the Flash Memory holds apart.
        closing: whether the engine is being closed: then no memory is made to its end.
    """

    def __init__(
        self,
        episodes: Episodes,
        recorder: Recorder,
        fingerprint: str,
        grid_of_picture: Callable[[int, int], PatchGrid],
        held_apart: int,
        closing: Callable[[], bool],
    ) -> None:
        self._store = episodes.store
        self._map_id = episodes.map_id
        self._resume = episodes.resume
        self._fingerprint = fingerprint
        self._recorder = recorder
        self._closing = closing
        self._restorer = Restorer(episodes, fingerprint, grid_of_picture, held_apart, self._on_progress)
        # A memory of an earlier run, until the first frame tells whether the stream goes on in it.
        self._restored: Restored | None = None
        self._saving: Future[None] | None = None
        self._save_at_s = time.monotonic() + SAVE_EVERY_S
        # Of the store's last episode, with which the stream may go on; 0 for none.
        self._last_episode = 0 if self._resume is Resume.NEVER else self._store.current_episode
        if self._last_episode:
            recorder.say(restoring=f"episode {self._last_episode}")

    def _on_progress(self, progress: str) -> None:
        if self._closing():
            raise RecordingError("the engine is closed, and the memory is not made to its end")
        self._recorder.say(restoring=progress)

    def begin(self, holder: MemoryHolder) -> None:
        """Restores what the store's last episode left. Whatever goes wrong is told, and the memory stays empty."""
        episode = self._last_episode
        if not episode:
            return
        try:
            restored = self._restore(holder, episode, None)
            if restored is not None:
                said = f"episode {episode} is back from {restored.made_from}; no frame has come since"
                self._recorder.say(resumed=said)
        except RecordingError:
            # Closed meanwhile: the next one restores it.
            return
        except Exception as error:
            logger.exception("episode %d could not be restored", episode)
            self._recorder.say(resumed=f"episode {episode} could not be restored: {type(error).__name__}: {error}")

    @property
    def undecided(self) -> bool:
        """Whether a memory was restored, and no frame has told yet whether the stream goes on in it."""
        return self._restored is not None

    def goes_on(self, stamp_ns: int) -> str:
        """Whether a frame goes on in a restored memory: empty if so, else why a new episode has begun with it."""
        restored, self._restored = self._restored, None
        if restored is None or restored.memory.end_ns is None:
            return ""
        end_ns = restored.memory.end_ns
        if stamp_ns < end_ns and self._resume is not Resume.ALWAYS:
            reason = (
                f"the first frame's stamp {_seconds(stamp_ns)} lies before {_seconds(end_ns)}, where episode "
                f"{restored.episode} ended"
            )
            logger.warning("%s: a new episode begins with an empty memory", reason)
            self._recorder.say(resumed=f"a new episode: {reason}")
            self.new_episode(reason)
            return reason
        gap = datetime.timedelta(seconds=round(abs(stamp_ns - end_ns) / SECOND_NS))
        said = f"a gap of {gap}" if stamp_ns >= end_ns else f"stamps that went back by {gap}"
        self._recorder.say(resumed=f"episode {restored.episode} goes on after {said}; from {restored.made_from}")
        return ""

    def new_episode(self, reason: str) -> None:
        """Begins an episode of the store: what was restored is over, too."""
        if self._restored is not None:
            self._restored = None
            self._recorder.say(resumed="")
        self._recorder.begin_episode(reason)

    def resize(self, holder: MemoryHolder, grid: PatchGrid) -> None:
        """Makes a restored memory again, for frames of another size."""
        logger.warning("frames have another size than those of the restored memory, which is made from segments again")
        try:
            self._restore(holder, self._store.current_episode, grid)
        except RecordingError:
            # Closed meanwhile: these frames are discarded.
            return
        self._restored = None
        resumed = self._recorder.status.resumed
        self._recorder.say(resumed=f"{resumed}; made anew for frames of {grid.width} x {grid.height} patches")

    def after_batch(self, memory: EpisodeMemory) -> None:
        """Saves the memory if that is due."""
        if time.monotonic() < self._save_at_s or (self._saving is not None and not self._saving.done()):
            return
        self._save_at_s = time.monotonic() + SAVE_EVERY_S
        begin_s = time.thread_time()
        state = self._state(memory)
        copied_s = time.thread_time() - begin_s
        if state is not None:
            self._saving = self._recorder.call(lambda: self._save_now_and_then(state, copied_s))

    def finish(self, memory: EpisodeMemory | None) -> None:
        """Saves the memory of a stream that ends, with the open segment."""
        self._save_on_recorder(memory).add_done_callback(_log_failure)

    def save(self, holder: MemoryHolder) -> Future[str]:
        """Ends the open segment and saves the memory; the future says in words what is kept now."""
        return self._save_on_recorder(holder.memory)

    def load(self, holder: MemoryHolder, episode: int | None) -> str:
        """The memory becomes that of a stored episode, in which the stream goes on if its stamps do.

        Args:
            holder: gets the memory.
            episode: the store's number; None takes the last of which anything is kept.

        Raises:
            StoreError: nothing is kept of it, or the store cannot be read.
        """
        self._recorder.call(self._recorder.end_segment).result()
        kept = [one.number for one in self._store.info().episodes if one.segments]
        number = kept[-1] if episode is None and kept else episode
        if number is None or number not in kept:
            raise StoreError(
                Problem.MISSING,
                f"nothing is kept of {'any episode' if number is None else f'episode {number}'}; "
                f"kept are {', '.join(map(str, kept)) or 'none'}",
            )
        self._recorder.call(lambda: self._recorder.continue_episode(number)).result()
        holder.drop_memory()
        restored = self._restore(holder, number, None)
        if restored is None:
            raise StoreError(Problem.DAMAGED, f"no picture of episode {number} can be read; choose another")
        self._recorder.say(resumed=f"episode {number} was loaded from {restored.made_from}; no frame has come since")
        return f"The Flash Memory is that of episode {number}, from {restored.made_from}."

    def excerpt(
        self, holder: MemoryHolder, since_ns: int | None, until_ns: int | None, near: Area | None = None
    ) -> PublishedMemory:
        """A memory of what was seen in a closed range of stamps and from an area, beside the holder's own.

        Args:
            holder: makes it.
            since_ns: stamp; None for all before `until_ns`.
            until_ns: stamp; None for all since `since_ns`.
            near: None for what was seen from everywhere.

        Raises:
            AskError: nothing was seen then and there.
            StoreError: the store cannot be read.
            Exception: what the model fails with.
        """
        unstored = self._recorder.call(self._recorder.open_segments).result()
        grid = holder.memory.grid if holder.memory is not None else None
        try:
            memory = self._restorer.excerpt(since_ns, until_ns, near, unstored, holder.new_memory, grid)
        finally:
            self._recorder.say(restoring="")
        published = memory.publication() if memory is not None else None
        if published is None:
            known = [one.segment for one in self._store.segments()] + [one.segment for one in unstored]
            seen = _nothing_seen(since_ns, until_ns, near)
            raise AskError(ErrorCode.NO_FRAMES, f"{seen}; {_what_is_stored(known, near)}")
        return published

    def forget(self, holder: MemoryHolder, since_ns: int | None, until_ns: int | None, episode: int | None) -> int:
        """Removes what was seen from the store and the memory, and returns how many segments that were.

        Args:
            holder: gets a memory of what remains.
            since_ns: stamp; None for all before `until_ns`.
            until_ns: stamp; None for all since `since_ns`.
            episode: of one episode only, by the store's number; None for all.

        Raises:
            StoreError: the store cannot be written. Where it has removed nothing, the memory stays as well.
        """
        self._recorder.call(self._recorder.end_segment).result()
        current = self._recorder.episode
        memory = holder.memory
        affected = memory is not None and episode in (None, current) and memory.overlaps(since_ns, until_ns)
        grid = memory.grid if memory is not None else None
        del memory
        joined = self._restored is None
        segments = self._store.usage().segments

        def forget() -> int:
            # On the thread on which questions recall: each of them before it or after it.
            holder.outdate_excerpts()
            return self._recorder.forget(since_ns, until_ns, episode)

        try:
            return self._recorder.call(forget).result()
        except StoreError:
            affected &= self._store.usage().segments < segments
            raise
        finally:
            if affected:
                holder.drop_memory()
            if affected and current:
                self._restore(holder, current, grid)
                if joined:
                    self._restored = None

    def _restore(self, holder: MemoryHolder, episode: int, grid: PatchGrid | None) -> Restored | None:
        try:
            self._restored = restored = self._restorer.restore(episode, holder.new_memory, grid)
            if restored is not None:
                holder.adopt(restored.memory)
            return restored
        finally:
            self._recorder.say(restoring="")

    def _state(self, memory: EpisodeMemory | None) -> MemoryState | None:
        """A copy of the memory, if it can be saved."""
        if memory is None or self._store.saved_memory is None or memory.bytes > MOST_BYTES:
            return None
        try:
            return memory.state()
        except Exception:
            # For want of the device's memory; the segments are kept all the same.
            logger.exception("the Flash Memory could not be copied to be saved")
            return None

    def _save_on_recorder(self, memory: EpisodeMemory | None) -> Future[str]:
        state = self._state(memory)

        def save() -> str:
            self._recorder.retry()
            self._recorder.end_segment()
            if self._recorder.failure:
                raise RecordingError(self._recorder.failure)
            self._recorder.settle_episode()
            size = 0 if state is None else self._write(state)
            usage = self._store.usage()
            beside = f" and {size / 1e6:.1f} MB of Flash Memory" if size else ""
            place = "in RAM, gone with the process" if self._store.saved_memory is None else "on the disk"
            return f"{usage.segments} segments in {usage.file_bytes / 1e6:.1f} MB{beside} are kept {place}."

        return self._recorder.call(save)

    def _save_now_and_then(self, state: MemoryState, copied_s: float) -> None:
        begin_s = time.thread_time()
        try:
            self._recorder.settle_episode()
            self._write(state)
        except (StoreError, RecordingError) as error:
            if isinstance(error, StoreError) and error.problem is Problem.READ_ONLY:
                self._save_at_s = math.inf
                return
            logger.warning("not saved: %s", error)
        spent_s = copied_s + time.thread_time() - begin_s
        self._save_at_s = time.monotonic() + max(SAVE_EVERY_S, spent_s / SAVING_SHARE)

    def _write(self, state: MemoryState) -> int:
        path = self._store.saved_memory
        assert path is not None
        self._store.require_in_place()
        recorder, store = self._recorder, self._store
        description = Description(
            self._fingerprint, store.current_episode, self._map_id, store.last_segment, recorder.open_steps
        )
        try:
            return write(path, state, description)
        except OSError as error:
            raise RecordingError(f"the Flash Memory was not saved: {error}") from error


def _log_failure(saved: Future[str]) -> None:
    error = saved.exception()
    if error is not None and not (isinstance(error, StoreError) and error.problem is Problem.READ_ONLY):
        logger.warning("the Flash Memory could not be saved at the end: %s", error)


def _nothing_seen(since_ns: int | None, until_ns: int | None, near: Area | None) -> str:
    since = "the beginning" if since_ns is None else _seconds(since_ns)
    until = "now" if until_ns is None else _seconds(until_ns)
    place = "" if near is None else f" within {near.radius_m:g} m of ({near.x:g}, {near.y:g}) in {near.frame_id}"
    return f"nothing was seen{place} between {since} and {until}"


def _what_is_stored(known: Sequence[Segment], near: Area | None) -> str:
    """When, and for an area where, something was seen, for who asked about something else."""
    if not known:
        return "nothing is stored"
    first_ns, last_ns = min(one.start_ns for one in known), max(one.end_ns for one in known)
    stored = f"what is stored lies between {_seconds(first_ns)} and {_seconds(last_ns)}, with gaps"
    if near is None:
        return stored
    frames = sorted({one.pose.frame_id for one in known if one.pose is not None})
    if not frames:
        return f"{stored}, and nothing of it has a pose; set pose_source, or leave near out"
    if near.frame_id not in frames:
        return f"{stored}, and its poses are in {', '.join(frames)}"
    nearest_m = min(near.distance_m(one.pose) for one in known)
    return f"{stored}, and the nearest of it was seen from {nearest_m:.2f} m away"


def _seconds(stamp_ns: int) -> str:
    return f"{stamp_ns / SECOND_NS:.3f} s"
