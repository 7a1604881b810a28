"""Memories read by the model before anybody asks, so that a question pays only for its own tokens."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from fvs_ros.stream.latest_memory import LatestMemory, PublishedMemory
from fvs_ros.stream.log import ThrottledLog
from fvs_ros.stream.model_protocol import StreamModel, StreamPrefilledMemory, StreamPrefixCache
from fvs_ros.stream.types import MemoryStatus, Moment

logger = logging.getLogger(__name__)

# Memories that are read or being read at once, as many as the model has buffers for.
PREFILL_BUFFERS = 2
# While answers are being given, reading rests; but only so long, lest questions without end keep the memory old.
LONGEST_PAUSE_S = 0.5


@dataclass(eq=False)
class ReadyMemory:
    """A memory that the model has read.

    Attributes:
        status: of the memory.
        moments: of its keyframes.
        answers: being given from it now.
    """

    reading: StreamPrefilledMemory
    status: MemoryStatus
    moments: tuple[Moment, ...]
    answers: int = 0


@dataclass(eq=False)
class _Refresh:
    """A memory on its way through the model."""

    memory: PublishedMemory
    reading: StreamPrefilledMemory
    busy_s: float = 0.0


class PrefillScheduler:
    """Reads the newest memory piece by piece, and swaps it in for the one before. Used by one thread.

    Never more than one memory is being read. The one before serves questions until the next is read whole, and as
    long as its last answer takes.

    Args:
        model: reads.
        board: where the newest memory hangs.
        share: part of the time that reading unasked may take; 0 reads only what a question waits for.

    Attributes:
        current: the newest memory that is read whole.
        prefills: memories read.
        last_prefill_s: seconds of the model's time that the last one took.
    """

    def __init__(self, model: StreamModel, board: LatestMemory, share: float) -> None:
        self._model = model
        self._board = board
        self._share = share
        self._reader: StreamPrefixCache | None = None
        self._refresh: _Refresh | None = None
        self._retired: list[ReadyMemory] = []
        self._failed_version = 0
        self._rest_until = 0.0
        self._last_piece = 0.0
        self._log = ThrottledLog(logger)
        self.current: ReadyMemory | None = None
        self.prefills = 0
        self.last_prefill_s = 0.0

    @property
    def on_demand(self) -> bool:
        """Whether memories are read only when a question waits for them."""
        return self._share == 0

    def tidy(self) -> None:
        """Lets go of memories of another episode and of those whose last answer has ended."""
        episode = self._board.status.episode
        if self.current is not None and self.current.status.episode != episode:
            self._retire()
        if self._refresh is not None and self._refresh.memory.status.episode != episode:
            self._abandon()
        for read in [read for read in self._retired if not read.answers]:
            self._retired.remove(read)
            read.reading.close()

    def pause_s(self) -> float | None:
        """Seconds until there is something to read unasked; None if there is nothing until the memory moves on."""
        if self._refresh is not None:
            return 0.0
        newest = self._board.current
        if self.on_demand or newest is None or not self._is_news(newest) or not self._has_buffer():
            return None
        return max(0.0, self._rest_until - time.monotonic())

    def moved_on(self) -> bool:
        """Whether `pause_s` has become zero."""
        return self.pause_s() == 0.0

    def advance(self, wanted: int | None, answering: bool) -> None:
        """Reads a piece, if it is time to.

        Args:
            wanted: the least version that a question waits for, None if none does.
            answering: answers are being given, which go first.

        Raises:
            Exception: whatever the model failed with; that memory is not read again unless a question needs it.
        """
        newest = self._board.current
        if wanted is None:
            resting = answering and time.monotonic() - self._last_piece < LONGEST_PAUSE_S
            if resting or self.pause_s() != 0.0:
                return
        elif self._refresh is not None and self._refresh.memory.status.version < wanted:
            self._abandon()
        if self._refresh is None:
            if newest is None or not self._has_buffer():
                return
            self._begin(newest)
        self._read_piece()

    def close(self) -> None:
        """Frees everything."""
        self._abandon()
        self._retire()
        for read in self._retired:
            read.reading.close()
        self._retired.clear()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _is_news(self, memory: PublishedMemory) -> bool:
        version = memory.status.version
        return version != self._failed_version and (self.current is None or version > self.current.status.version)

    def _has_buffer(self) -> bool:
        return len(self._retired) + (self.current is not None) < PREFILL_BUFFERS

    def _begin(self, memory: PublishedMemory) -> None:
        try:
            if self._reader is None:
                self._reader = self._model.new_prefix_cache()
            self._refresh = _Refresh(memory, self._reader.allocate(memory.snapshot))
        except Exception:
            self._fail(memory)
            raise

    def _read_piece(self) -> None:
        refresh = self._refresh
        assert refresh is not None
        begin = time.monotonic()
        try:
            done = refresh.reading.prefill_chunk()
            moments = refresh.memory.moments() if done else ()
        except Exception:
            self._abandon()
            self._fail(refresh.memory)
            raise
        self._last_piece = time.monotonic()
        refresh.busy_s += self._last_piece - begin
        if not done:
            return
        self._retire()
        self._refresh = None
        self.current = ReadyMemory(refresh.reading, refresh.memory.status, moments)
        self.prefills += 1
        self.last_prefill_s = refresh.busy_s
        if self._share > 0:
            self._rest_until = self._last_piece + refresh.busy_s * (1 / self._share - 1)

    def _fail(self, memory: PublishedMemory) -> None:
        self._failed_version = memory.status.version
        self._log.log(logging.ERROR, "read", "the model failed to read the memory", exc_info=True)

    def _retire(self) -> None:
        if self.current is None:
            return
        if self.current.answers:
            self._retired.append(self.current)
        else:
            self.current.reading.close()
        self.current = None

    def _abandon(self) -> None:
        if self._refresh is not None:
            self._refresh.reading.close()
            self._refresh = None
