"""Prefills the newest memory before a question comes, so that the question pays only for its own tokens."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from fvs_ros.stream.device_memory import free_device_memory, is_out_of_memory
from fvs_ros.stream.evidence import NOTHING_SHOWN, ShownMoments, shown_moments
from fvs_ros.stream.latest_memory import LatestMemory, PublishedMemory
from fvs_ros.stream.log import ThrottledLog
from fvs_ros.stream.model_protocol import StreamModel, StreamPrefilledMemory, StreamPrefixCache
from fvs_ros.stream.types import MemoryStatus
from fvs_ros.stream.watchdog import ModelCalls

logger = logging.getLogger(__name__)

# Memories in the model at once, complete or not: it has this many buffers.
PREFILL_BUFFERS = 2
# Prefill pauses while answers are decoded, but no longer than this: questions without end must not keep the memory old.
LONGEST_PAUSE_S = 0.5


@dataclass(eq=False)
class ReadyMemory:
    """A memory whose prefill is complete.

    Attributes:
        prefilled: the memory in the model.
        status: of the memory.
        shown: the moments that it shows.
        answers: being decoded from it now.
        recalled: segments in it that a question recalled.
    """

    prefilled: StreamPrefilledMemory
    status: MemoryStatus
    shown: ShownMoments
    answers: int = 0
    recalled: int = 0


@dataclass(eq=False)
class _Prefill:
    """A prefill in progress, and the model time that it has taken."""

    memory: PublishedMemory
    prefilled: StreamPrefilledMemory
    busy_s: float = 0.0


class PrefillScheduler:
    """Prefills the newest memory chunk by chunk, then swaps it in. Used by one thread.

    At most one prefill is in progress. The memory before it serves questions until then, and is kept until the last
    answer decoded from it ends.

    Args:
        model: prefills.
        latest: the newest memory.
        share: share of the time for prefilling before a question comes; 0 prefills only what a question waits for.
        calls: the calls of the model by the worker that uses this.

    Attributes:
        out_of_memory: the last time that the device's memory did not suffice; empty before that.
        current: the newest memory whose prefill is complete.
        prefills: completed prefills.
        last_prefill_s: seconds of model time that the last one took.
    """

    def __init__(self, model: StreamModel, latest: LatestMemory, share: float, calls: ModelCalls) -> None:
        self._model = model
        self._latest = latest
        self._share = share
        self._calls = calls
        self._cache: StreamPrefixCache | None = None
        self._prefill: _Prefill | None = None
        self._retired: list[ReadyMemory] = []
        self._failed_version = 0
        # Of the memory that everything else was freed for.
        self._freed_version = 0
        self._pause_until = 0.0
        self._last_chunk = 0.0
        self._log = ThrottledLog(logger)
        self.current: ReadyMemory | None = None
        self.out_of_memory = ""
        self.prefills = 0
        self.last_prefill_s = 0.0

    @property
    def on_demand(self) -> bool:
        """Whether a memory is prefilled only when a question waits for it."""
        return self._share == 0

    def release_unused(self) -> None:
        """Frees memories of a past episode and those whose last answer has ended."""
        episode = self._latest.status.episode
        if self.current is not None and self.current.status.episode != episode:
            self._retire()
        if self._prefill is not None and self._prefill.memory.status.episode != episode:
            self._abandon()
        for ready in [ready for ready in self._retired if not ready.answers]:
            self._retired.remove(ready)
            ready.prefilled.close()

    def pause_s(self, answering: bool = False) -> float | None:
        """Seconds until the next chunk is due; None if none is due before the memory changes.

        Args:
            answering: whether questions are waiting for something else or being answered, which have priority.
        """
        now = time.monotonic()
        due = now
        if self._prefill is None:
            newest = self._latest.current
            if self.on_demand or newest is None or not self._is_newer(newest) or not self._has_buffer():
                return None
            due = self._pause_until
        if answering:
            due = max(due, self._last_chunk + LONGEST_PAUSE_S)
        return max(0.0, due - now)

    def is_due(self, answering: bool = False) -> bool:
        """Whether the next chunk is due now; see `pause_s`."""
        return self.pause_s(answering) == 0.0

    def advance(self, needed_version: int | None, answering: bool) -> None:
        """Prefills the next chunk, if it is due or needed.

        Args:
            needed_version: lowest version that a question waits for, None if no question waits.
            answering: see `pause_s`.

        Raises:
            Exception: what the model failed with; that memory is not tried again unless a question needs it.
        """
        newest = self._latest.current
        if needed_version is None:
            if not self.is_due(answering):
                return
        elif self._prefill is not None and self._prefill.memory.status.version < needed_version:
            self._abandon()
        if self._prefill is None:
            if newest is None or not self._has_buffer():
                return
            self._prefill = self._begin(newest)
        if self._prefill is not None:
            self._prefill_chunk(self._prefill)

    def close(self) -> None:
        """Frees everything."""
        self._abandon()
        self._retire()
        for ready in self._retired:
            ready.prefilled.close()
        self._retired.clear()
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    def _is_newer(self, memory: PublishedMemory) -> bool:
        version = memory.status.version
        return version != self._failed_version and (self.current is None or version > self.current.status.version)

    def _has_buffer(self) -> bool:
        return len(self._retired) + (self.current is not None) < PREFILL_BUFFERS

    def _begin(self, memory: PublishedMemory) -> _Prefill | None:
        try:
            with self._calls.call("allocation of a prefix"):
                if self._cache is None:
                    self._cache = self._model.new_prefix_cache()
                return _Prefill(memory, self._cache.allocate(memory.snapshot))
        except Exception as error:
            if not self._make_room(memory, error):
                self._fail(memory)
                raise
        return None

    def _prefill_chunk(self, prefill: _Prefill) -> None:
        begin = time.monotonic()
        try:
            with self._calls.call("prefill_chunk"):
                done = prefill.prefilled.prefill_chunk()
                shown = shown_moments(prefill.memory) if done else NOTHING_SHOWN
        except Exception as error:
            self._abandon()
            if self._make_room(prefill.memory, error):
                return
            self._fail(prefill.memory)
            raise
        self._last_chunk = time.monotonic()
        prefill.busy_s += self._last_chunk - begin
        if not done:
            return
        self._retire()
        self._prefill = None
        self.current = ReadyMemory(prefill.prefilled, prefill.memory.status, shown)
        self.prefills += 1
        self.last_prefill_s = prefill.busy_s
        if self._share > 0:
            self._pause_until = self._last_chunk + prefill.busy_s * (1 / self._share - 1)

    def _make_room(self, memory: PublishedMemory, error: Exception) -> bool:
        """Frees all other memories for one that found too little room; False if that was done before, or cannot be."""
        if not is_out_of_memory(error):
            return False
        self.out_of_memory = (
            f"the device's memory did not suffice to prefill a memory ({error}); lower max_pixels or parallel_questions"
        )
        busy = self._retired or (self.current is not None and self.current.answers)
        if busy or memory.status.version == self._freed_version:
            return False
        self._freed_version = memory.status.version
        logger.warning("%s; trying again without the memory before it", self.out_of_memory)
        self.close()
        free_device_memory()
        return True

    def _fail(self, memory: PublishedMemory) -> None:
        self._failed_version = memory.status.version
        self._log.log(logging.ERROR, "prefill", "the model failed to prefill the memory", exc_info=True)

    def _retire(self) -> None:
        if self.current is None:
            return
        if self.current.answers:
            self._retired.append(self.current)
        else:
            self.current.prefilled.close()
        self.current = None

    def _abandon(self) -> None:
        if self._prefill is not None:
            self._prefill.prefilled.close()
            self._prefill = None
