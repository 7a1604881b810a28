"""Decides which frames are kept, and queues them: everything that happens before a frame is decoded."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fvs_ros.sources.frame import SECOND_NS, Frame
from fvs_ros.sources.sampling import RatePolicy
from fvs_ros.sources.stamp_guard import StampGuard, Verdict, describe_wrong_stamps
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.log import ThrottledLog
from fvs_ros.stream.types import FrameCounters

logger = logging.getLogger(__name__)

# What frames may hold while they wait, for images so large that `frame_queue` of them would fill the memory.
MOST_WAITING_BYTES = 2**30
# In `FrameCounters.rejected`: frames whose stamps do not fit those around them.
WRONG_STAMP = "wrong_stamp"


@dataclass(frozen=True)
class FrameBatch:
    """Frames to ingest together, oldest first; none where only the episode has changed.

    Attributes:
        episode: the episode that they belong to.
        reason: why it began; empty for the first one.
        request: to be done in place of frames; None for none.
    """

    episode: int
    frames: tuple[Frame, ...]
    reason: str = ""
    request: Callable[[Any], None] | None = None


@dataclass(frozen=True)
class _Request:
    """Something that the taker is asked to do; see `FrameQueue.request`."""

    work: Callable[[Any], None]
    after_frame: int
    give_up: Callable[[str], None]


class FrameQueue:
    """Kept frames on their way to the memory: bounded, and the newest win.

    Any thread may offer frames; one thread takes them, and accounts for each one that it took by `reject` or
    `commit` before it takes more. No method holds the lock for longer than it takes to move a few references.

    Args:
        config: `fps`, `frame_queue` and `late_tolerance_s`.
        changed: the engine's one lock; notified whenever frames, episodes or their fate change.
        on_reset: called with the number of the episode that a reset begins, with the lock held. An episode that begins
            because the clock was set is not announced: the memory before it can be asked until the next is published.
    """

    def __init__(self, config: StreamConfig, changed: threading.Condition, on_reset: Callable[[int], None]) -> None:
        self._capacity = config.frame_queue
        self._guard = StampGuard(round(config.late_tolerance_s * SECOND_NS))
        self._policy = RatePolicy(config.fps)
        self._changed = changed
        self._on_reset = on_reset
        self._log = ThrottledLog(logger)
        self._waiting: deque[Frame] = deque()
        self._in_flight = 0
        # Kept frames are numbered from 1. Those waiting are always the last ones, since drops come off the front.
        self._kept = 0
        self._in_flight_first = 0
        self._episode = 0
        self._reason = ""
        self._requests: list[_Request] = []
        # What the taker is doing now.
        self._request_in_hand: _Request | None = None
        self._idle_requests: deque[Callable[[Any], None]] = deque()
        # Whether a request was the last thing taken: waiting frames come next, so that neither holds up the other.
        self._frames_next = False
        self._paused = False
        self._held = False
        self._closed = False
        self._counters = FrameCounters()

    @property
    def counters(self) -> FrameCounters:
        """A copy of the counters; they add up at any time."""
        with self._changed:
            return replace(
                self._counters,
                waiting=len(self._waiting) + self._in_flight + self._guard.held,
                rejected=dict(self._counters.rejected),
            )

    @property
    def paused(self) -> bool:
        """Whether frames are skipped."""
        return self._paused

    @property
    def closed(self) -> bool:
        """Whether nothing is taken any more but requests."""
        return self._closed

    def pause(self, paused: bool) -> None:
        """While paused, frames are skipped whatever their stamp; those that wait already are still taken."""
        with self._changed:
            self._paused = paused

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Lets frames that are offered inside wait for each other: none is taken before the end of the block."""
        with self._changed:
            self._held = True
        try:
            yield
        finally:
            with self._changed:
                self._held = False
                self._changed.notify_all()

    def offer(self, frame: Frame) -> bool:
        """Decides by its stamp whether `frame` is kept. Once closed, frames are ignored and not counted."""
        with self._changed:
            if self._closed:
                return False
            self._counters.received += 1
            if self._paused:
                self._counters.skipped += 1
                return False
            verdict = self._guard.offer(frame)
            self._account(verdict)
            kept = [one for one in verdict.accepted if self._keep(one)]
            self._changed.notify_all()
            return any(one is frame for one in kept)

    def _account(self, verdict: Verdict) -> None:
        """Counts what was judged, and begins a new episode where the clock was set."""
        self._counters.late += verdict.late
        self._counters.dropped += verdict.dropped
        if verdict.rejected:
            self._count_rejected(WRONG_STAMP, len(verdict.rejected))
            self._counters.wrong_stamp = describe_wrong_stamps(verdict)
            self._log.log(logging.WARNING, WRONG_STAMP, self._counters.wrong_stamp)
        if verdict.moved:
            self._counters.episodes += 1
            self._counters.clock_move = verdict.moved
            logger.warning("%s: a new episode begins with an empty memory", verdict.moved)
            self._begin_episode(str(verdict.moved))

    def _keep(self, frame: Frame) -> bool:
        """Lets an accepted frame wait for the model if it is due."""
        if not self._policy.keep(frame.stamp_ns):
            self._counters.skipped += 1
            return False
        waiting_bytes = frame.held_bytes + sum(one.held_bytes for one in self._waiting)
        while len(self._waiting) == self._capacity or (self._waiting and waiting_bytes > MOST_WAITING_BYTES):
            waiting_bytes -= self._waiting.popleft().held_bytes
            self._counters.dropped += 1
        self._waiting.append(frame)
        self._kept += 1
        return True

    def new_episode(self, after: int | None = None) -> int:
        """Discards the waiting frames and returns the new episode's number.

        Batches that were taken before can no longer be committed.

        Args:
            after: the episode that it is to follow; where that is over already, nothing is done, and the taker still
                has to learn why. None: whichever is running.
        """
        with self._changed:
            if after is not None and after != self._episode:
                return after
            self._counters.discarded += self._guard.restart()
            self._begin_episode("reset")
            self._on_reset(self._episode)
            return self._episode

    def start_over(self, episode: int, reason: str) -> int:
        """Begins an episode with the frames that were taken and those that wait, unless `episode` is over already.

        It is not announced: the memory can be asked until the next is published.

        Returns:
            The number of their episode.
        """
        with self._changed:
            if episode != self._episode:
                return episode
            self._counters.episodes += 1
            self._episode += 1
            self._reason = reason
            return self._episode

    def request(
        self, work: Callable[[Any], None], after_frame: int = 0, give_up: Callable[[str], None] = lambda _: None
    ) -> bool:
        """Has the taker call something with itself between two batches; False once the queue is closed.

        Requests are done in their order. Where frames wait, a batch of them is taken between two requests.

        Args:
            work: is called on the taker's thread.
            after_frame: number of a frame that must be accounted for before.
            give_up: is called with the reason where the taker was given up in the middle of it.
        """
        with self._changed:
            if not self._closed:
                self._requests.append(_Request(work, after_frame, give_up))
                self._changed.notify_all()
            return not self._closed

    def request_when_idle(self, work: Callable[[Any], None]) -> bool:
        """Has the taker call something with itself once no frame waits, or never; False once the queue is closed."""
        with self._changed:
            if not self._closed:
                self._idle_requests.append(work)
                self._changed.notify_all()
            return not self._closed

    def _begin_episode(self, reason: str) -> None:
        self._reason = reason
        self._discard_waiting()
        self._policy.restart()
        self._episode += 1

    def _discard_waiting(self) -> None:
        self._counters.discarded += len(self._waiting)
        self._waiting.clear()
        self._changed.notify_all()

    def take(self, limit: int, episode: int) -> FrameBatch | None:
        """Waits for frames, a request, or an episode other than `episode`; takes the oldest up to `limit` frames.

        Returns:
            None once the queue is closed.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._due_requests() or self._idle_requests or self._has_more_than(episode)
            )
            self._request_in_hand = None
            due = self._due_requests()
            if due and not (self._frames_next and self._has_more_than(episode)):
                # One at a time: what a hung one leaves behind is done by the taker's successor.
                self._frames_next = True
                self._requests.remove(due[0])
                self._request_in_hand = due[0]
                return FrameBatch(self._episode, (), self._reason, due[0].work)
            self._frames_next = False
            if self._closed:
                # A reset just before the end counts.
                return None if self._episode == episode else FrameBatch(self._episode, (), self._reason)
            if not self._has_more_than(episode):
                return FrameBatch(self._episode, (), self._reason, self._idle_requests.popleft())
            self._in_flight_first = self._kept - len(self._waiting) + 1
            self._in_flight = min(limit, len(self._waiting))
            return FrameBatch(
                self._episode, tuple(self._waiting.popleft() for _ in range(self._in_flight)), self._reason
            )

    def _due_requests(self) -> list[_Request]:
        """Those whose frames are accounted for; all once closed, so that none waits for ever."""
        return [one for one in self._requests if self._closed or self._kept - len(self._waiting) >= one.after_frame]

    def _has_more_than(self, episode: int) -> bool:
        """Whether there are frames to take, or another episode."""
        return not self._held and (self._episode != episode or bool(self._waiting))

    def reject(self, reason: str, frames: int = 1) -> None:
        """Accounts for frames of the batch that cannot be ingested."""
        with self._changed:
            self._in_flight -= frames
            self._count_rejected(reason, frames)
            self._changed.notify_all()

    def abandon(self, reason: str, new_episode: bool, why: str) -> None:
        """Accounts for the whole batch of a taker that gave up, and for its request; the next may take.

        Args:
            reason: in `FrameCounters.rejected`.
            why: for whoever waits for the request.
            new_episode: begin one, which is not announced: the memory can be asked until the next is published.
        """
        with self._changed:
            if self._in_flight:
                self._count_rejected(reason, self._in_flight)
                self._in_flight = 0
            if new_episode and not self._closed:
                self._begin_episode("the model failed while it wrote the memory")
            request, self._request_in_hand = self._request_in_hand, None
            self._changed.notify_all()
        if request is not None:
            request.give_up(why)

    def _count_rejected(self, reason: str, frames: int) -> None:
        self._counters.rejected[reason] = self._counters.rejected.get(reason, 0) + frames

    def commit(self, episode: int, frames: int, publish: Callable[[], None]) -> bool:
        """Accounts for frames of the batch that were ingested, and calls `publish`, in one step.

        If the batch's episode is over, or the queue closed, the frames are discarded and nothing is published.
        """
        with self._changed:
            self._in_flight -= frames
            current = episode == self._episode and not self._closed
            if current:
                self._counters.ingested += frames
                publish()
            else:
                self._counters.discarded += frames
            self._changed.notify_all()
            return current

    def mark(self) -> int:
        """The number of the newest kept frame, for `accounted`."""
        with self._changed:
            return self._kept

    def accounted(self, mark: int) -> bool:
        """Whether each kept frame up to `mark` is in memory, or never will be."""
        with self._changed:
            in_flight = self._in_flight > 0 and self._in_flight_first <= mark
            return not in_flight and self._kept - len(self._waiting) >= mark

    def wait_accounted(self, mark: int, timeout_s: float) -> bool:
        """Waits until `accounted(mark)`; False if that took longer than `timeout_s`, or the queue was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.accounted(mark), timeout_s)
            return not self._closed and self.accounted(mark)

    def close(self) -> None:
        """Discards the waiting frames and ends `take`."""
        with self._changed:
            self._closed = True
            self._counters.discarded += self._guard.restart()
            self._discard_waiting()
