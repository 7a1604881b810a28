"""Stores a stream as segments, on a thread of its own that the stream never waits for."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from fvs_ros.episodic.errors import Problem, StoreError
from fvs_ros.episodic.store import Resume
from fvs_ros.stream.log import ThrottledLog
from fvs_ros.stream.recording import Episodes, RecordingError, RecordingStatus
from fvs_ros.stream.segment_builder import BuiltSegment, KeysOf, OpenScene, RecordedStep, SegmentBuilder, no_keys

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# Steps that may wait for a busy disk: half a minute at the trained rate. Their images have the camera's own size.
MOST_WAITING_STEPS = 16
MOST_WAITING_BYTES = 2**28
# After a failed write the store reads its list anew, which may take seconds: so not with every segment.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
# Longest wait for a disk that hangs, at the end.
LONGEST_CLOSE_S = 60.0


class Recorder:
    """Takes complete grid steps, cuts them into segments, and appends those to the store.

    The store never stops the stream: a step that finds the queue full, and a segment that cannot be stored, are left
    out, counted, and told in `status`.

    Args:
        episodes: the store, and what its segments are called.
        fingerprint: of the model.
        silence_s: wall-clock seconds without a step after which the open segment ends.
        keys_of: see `SegmentBuilder`.

    Attributes:
        failure: of the last attempt to store something, in words; empty if it succeeded.
    """

    def __init__(
        self,
        episodes: Episodes,
        fingerprint: str,
        silence_s: float,
        keys_of: KeysOf = no_keys,
    ) -> None:
        self._store = episodes.store
        self._silence_s = silence_s
        self._builder = SegmentBuilder(episodes.camera, episodes.map_id, fingerprint, keys_of)
        self._changed = threading.Condition()
        self._waiting: deque[RecordedStep | Callable[[], None]] = deque()
        self._waiting_steps = self._waiting_bytes = 0
        self._busy = False
        self._closed = False
        self._log = ThrottledLog(logger)
        # Why the next segment begins an episode; None where it goes on with the last one.
        self._due_episode = "start" if episodes.resume is Resume.NEVER else None
        self.failure = ""
        self._failures = 0
        self._paused_until = 0.0
        self._status = RecordingStatus()
        self._thread = threading.Thread(target=self._run, name="fvs-record", daemon=True)
        self._tell()

    @property
    def status(self) -> RecordingStatus:
        """What is stored, and what is wrong, as of the last segment."""
        return self._status

    @property
    def episode(self) -> int:
        """The store's number of the episode that steps belong to now; 0 where it has not begun there yet."""
        return 0 if self._due_episode is not None else self._store.current_episode

    @property
    def open_steps(self) -> int:
        """Steps that are in no segment yet. On the recorder's thread alone, like all that follows."""
        return self._builder.open_steps

    def say(self, **changes: str) -> None:
        """Changes sentences of `status`."""
        with self._changed:
            self._status = replace(self._status, **changes)  # type: ignore[arg-type]

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def offer(self, steps: Iterable[RecordedStep]) -> None:
        """Takes steps if there is room; never waits."""
        with self._changed:
            for step in steps:
                size = step.image.nbytes
                if self._waiting_steps >= MOST_WAITING_STEPS or self._waiting_bytes + size > MOST_WAITING_BYTES:
                    self._leave_out(1)
                    continue
                self._waiting.append(step)
                self._waiting_steps += 1
                self._waiting_bytes += size
            self._changed.notify_all()

    def begin_episode(self, reason: str) -> None:
        """Ends the open segment, and with the next step begins an episode."""
        self.call(lambda: self.new_episode(reason))

    def call(self, work: Callable[[], Result]) -> Future[Result]:
        """Does some work on the recorder's thread, in its place after the steps that were offered before.

        Returns:
            Its result; a `RecordingError` where the recorder was closed before.
        """
        future: Future[Result] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

        with self._changed:
            if self._closed:
                future.set_exception(RecordingError("the recorder is closed; activate the node, or make a new engine"))
            else:
                self._waiting.append(run)
                self._changed.notify_all()
        return future

    def wait_idle(self, timeout_s: float) -> bool:
        """Waits until all that was offered is cut, and stored as far as it can be."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting or self._busy), timeout_s)

    def close(self, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Stores what waits and the open segment, and ends the thread.

        Args:
            give_up: ends the wait where it becomes true; asked ten times a second.

        Returns:
            Whether the thread has ended.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        deadline = time.monotonic() + LONGEST_CLOSE_S
        while self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(0.1)
            if give_up() or time.monotonic() > deadline:
                logger.warning("what waits to be stored is not stored yet; the recorder's thread is left behind")
                break
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._next()) is not None:
            try:
                if isinstance(item, RecordedStep):
                    self._take(item)
                else:
                    item()
            except Exception:
                self._log.log(logging.ERROR, "recorder", "a grid step could not be recorded", exc_info=True)
                with self._changed:
                    self._leave_out(1)
            with self._changed:
                self._busy = False
                self._changed.notify_all()
        self.end_segment()

    def _next(self) -> RecordedStep | Callable[[], None] | None:
        """Waits for the next thing to do; None once closed and nothing waits."""
        with self._changed:
            silence_s = min(self._silence_s, threading.TIMEOUT_MAX) if self._builder.open_steps else None
            if not self._changed.wait_for(lambda: self._waiting or self._closed, silence_s):
                self._busy = True
                return self.end_segment
            if not self._waiting:
                return None
            self._busy = True
            item = self._waiting.popleft()
            if isinstance(item, RecordedStep):
                self._waiting_steps -= 1
                self._waiting_bytes -= item.image.nbytes
            return item

    def _take(self, step: RecordedStep) -> None:
        self._keep(self._builder.append(step))

    def open_segments(self) -> list[BuiltSegment]:
        """What is in no segment yet, as the segments that it would be if the stream ended here; it stays open."""
        return copy.deepcopy(self._builder).close()

    @property
    def open_scene(self) -> OpenScene | None:
        """What is in no segment yet, with its pictures; None where nothing is."""
        return self._builder.open_scene

    def end_segment(self) -> None:
        """Ends the open segment and stores it."""
        self._keep(self._builder.close())

    def retry(self) -> None:
        """Forgets that the store failed: the next write is tried at once."""
        self.failure, self._failures, self._paused_until = "", 0, 0.0

    def new_episode(self, reason: str) -> None:
        """Ends the open segment; the next one begins an episode."""
        self.end_segment()
        self._due_episode = reason
        self._attempt(self.settle_episode)
        self._tell()

    def continue_episode(self, number: int) -> None:
        """Ends the open segment; the next ones belong to an earlier episode. A store that cannot be written stays so.

        Raises:
            StoreError: nothing is kept of that episode.
        """
        self.end_segment()
        try:
            self._store.continue_episode(number)
        except StoreError as error:
            if error.problem is not Problem.READ_ONLY:
                raise
        self._due_episode = None
        self._tell()

    def forget(self, since_ns: int | None, until_ns: int | None, episode: int | None) -> int:
        """Removes segments from the store; returns how many.

        Raises:
            StoreError: the store cannot be written.
        """
        try:
            return len(self._store.forget(since_ns, until_ns, episode))
        finally:
            self._tell()

    def settle_episode(self) -> None:
        """Begins the episode that is due, or a store's first one, so that it has a number.

        Raises:
            StoreError: the store cannot be written.
        """
        if self._due_episode is not None or not self._store.current_episode:
            self._store.begin_episode(self._due_episode or "start")
            self._due_episode = None

    def _keep(self, segments: list[BuiltSegment]) -> None:
        for one in segments:
            if not self._attempt(lambda one=one: self._append(one)):  # type: ignore[misc]
                with self._changed:
                    self._leave_out(one.segment.weight)
        if segments:
            self._tell()

    def _append(self, built: BuiltSegment) -> None:
        if self._due_episode is not None:
            self.settle_episode()
        try:
            self._store.append(built.segment, built.keyframe, built.features)
        except StoreError as error:
            if error.problem is not Problem.TOO_LARGE:
                raise
            # Features of many patches take more than any picture; pictures are what lasts, and make them anew.
            self._store.append(built.segment, built.keyframe)
            self._log.log(logging.WARNING, "features", f"a picture is recorded without its features: {error}")

    def _attempt(self, write: Callable[[], object]) -> bool:
        """Whether a write succeeded. After one that failed, none is tried for a while."""
        if time.monotonic() < self._paused_until:
            return False
        try:
            write()
        except StoreError as error:
            self.failure = str(error)
            if error.problem is not Problem.TOO_LARGE:
                pause_s = FIRST_PAUSE_S * 2 ** min(self._failures, 16)
                self._paused_until = time.monotonic() + min(pause_s, LONGEST_PAUSE_S)
                self._failures += 1
            self._log.log(logging.WARNING, error.problem.name, f"not recorded: {error}")
            return False
        self.failure, self._failures = "", 0
        return True

    def _leave_out(self, steps: int) -> None:
        self._status = replace(self._status, unrecorded_steps=self._status.unrecorded_steps + steps)

    def _tell(self) -> None:
        """Brings `status` up to date with the store."""
        try:
            usage = self._store.usage()
            # Features of another model are made anew, which `remaking` tells.
            notices = [one.message for one in self._store.notices() if one.problem is not Problem.ANOTHER_MODEL]
        except StoreError as error:
            self.failure = str(error)
            usage, notices = None, []
        problem = self.failure or "; ".join(notices)
        with self._changed:
            self._status = replace(self._status, problem=problem)
            if usage is not None:
                self._status = replace(
                    self._status,
                    segments=usage.segments,
                    episode_segments=usage.episode_segments if self._due_episode is None else 0,
                    bytes=usage.file_bytes,
                    limit_bytes=usage.limit_bytes,
                    evicted=usage.evicted,
                )
