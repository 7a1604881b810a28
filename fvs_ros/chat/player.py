"""Plays a recording, or follows a camera, into the engine in the background, and asks questions at their times."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from fvs_ros.sources.bags import SourceError
from fvs_ros.sources.cameras import LiveSource
from fvs_ros.sources.frame import SECOND_NS, Frame
from fvs_ros.sources.playback import Playback, PlaybackItem
from fvs_ros.sources.recordings import FrameSource
from fvs_ros.stream.engine import StreamEngine

logger = logging.getLogger(__name__)

# Clock updates a second between frames; as often as a terminal is redrawn.
_CLOCK_HZ = 10.0
_RATE_WINDOW_S = 2.0
# Longest wait before looking again at whether the player was closed.
_FLUSH_S = 0.5
# Longer than a read from the network can take, READ_TIMEOUT_S.
_JOIN_TIMEOUT_S = 6.0


@dataclass(frozen=True)
class Cue:
    """A question for when the stream's clock reaches `time_s`, seconds after the first frame."""

    time_s: float
    question: str


class Player:
    """Feeds one source to an engine, at the pace of its stamps; a leap of its clock is not waited for.

    A cue is due once all frames up to its time have been submitted, and before any later one is.

    Args:
        source: a recording, or a camera.
        engine: running.
        cues: questions to ask on the way, in any order.
        on_cue: called on the player's thread with each cue that is due.
        rate: recorded seconds per second; a camera has its own.
        patient: wait until each kept frame of a recording is in memory. Then a busy machine drops no frame, and encodes
            each by itself, so that the memory is the same each time, bit for bit.

    Attributes:
        ended: whether the source has ended or failed.
        error: why it failed, empty if it did not.
        start_ns: stamp of the first frame; None before it.
        newest: the newest frame that was submitted; None before the first.
        unasked: cues after the end of the stream; complete once it has ended.
    """

    def __init__(
        self,
        source: FrameSource | LiveSource,
        engine: StreamEngine,
        cues: Sequence[Cue],
        on_cue: Callable[[Cue], None],
        rate: float = 1.0,
        patient: bool = False,
    ) -> None:
        self._source = source
        self._engine = engine
        self._on_cue = on_cue
        self._patient = patient and not isinstance(source, LiveSource)
        self._cues = deque(sorted(cues, key=lambda cue: cue.time_s))
        self._playback = Playback(self._items, self._set_clock, rate=rate, clock_hz=_CLOCK_HZ)
        self._total, self._fired = len(self._cues), 0
        self._arrivals: deque[float] = deque()
        self._now_ns = 0
        # What the stream's clock was ahead by leaps, which are not waited for.
        self._leapt_ns = 0
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="fvs-player", daemon=True)
        self.start_ns: int | None = None
        self.newest: Frame | None = None
        self.ended = False
        self.error = ""
        self.unasked: tuple[Cue, ...] = ()

    @property
    def clock_s(self) -> float:
        """Seconds of stream since its first frame."""
        return 0.0 if self.start_ns is None else max(0.0, (self._now_ns - self.start_ns) / SECOND_NS)

    @property
    def duration_s(self) -> float:
        """Length of the recording in seconds; 0 if unknown."""
        return 0.0 if isinstance(self._source, LiveSource) else self._source.duration_ns / SECOND_NS

    @property
    def cues_left(self) -> bool:
        """Whether cues are left; false once `on_cue` has returned for the last one."""
        return self._fired < self._total

    @property
    def notes(self) -> Sequence[str]:
        """What the source left out so far, one line each."""
        return () if isinstance(self._source, LiveSource) else self._source.notes

    def arrival_fps(self) -> float:
        """Frames that arrived per second over the last seconds."""
        arrivals, now = list(self._arrivals), time.monotonic()
        recent = sum(arrival > now - _RATE_WINDOW_S for arrival in arrivals)
        return recent / _RATE_WINDOW_S

    def start(self) -> None:
        """Starts to play."""
        self._thread.start()

    def close(self) -> None:
        """Stops playing and closes the source."""
        self._stopped = True
        self._playback.stop()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_TIMEOUT_S)
        if not self._thread.is_alive():
            self._source.close()

    def _run(self) -> None:
        try:
            if isinstance(self._source, LiveSource):
                self._follow(self._source)
            else:
                self._playback.run()
        except (SourceError, OSError) as error:
            self.error = str(error)
        except Exception as error:
            # A decoder's own exceptions; the memory is there, and can still be asked about.
            logger.exception("the source failed")
            self.error = f"{self._source.name} failed with {type(error).__name__}: {error}"
        self.unasked = tuple(self._cues)
        self.ended = True

    def _follow(self, source: LiveSource) -> None:
        for frame in source.frames():
            if self._stopped:
                return
            self._begin(frame)
            while self._cues and self._due_ns(self._cues[0]) < frame.stamp_ns:
                self._fire(self._cues.popleft())
            self._submit(frame)

    def _items(self) -> Iterator[PlaybackItem]:
        """Frames and cues in the order of their times; a frame goes before a cue of the same time."""
        frames = self._source.frames()
        first = next(frames, None)
        if first is None:
            return
        self._begin(first)
        yield PlaybackItem(first.stamp_ns, partial(self._submit, first))
        last_ns = first.stamp_ns
        for frame in frames:
            step_ns = frame.stamp_ns - last_ns
            # A clock that falls back has passed what was due until then.
            passed_ns = frame.stamp_ns if step_ns >= 0 else last_ns + 1
            while self._cues and self._due_ns(self._cues[0]) < passed_ns:
                yield self._cue_item(self._cues.popleft(), last_ns)
            if self._leaps(step_ns):
                self._leapt_ns += step_ns
            last_ns = frame.stamp_ns
            yield PlaybackItem(last_ns - self._leapt_ns, partial(self._submit, frame))
        while self._cues and self._due_ns(self._cues[0]) <= self._end_ns(last_ns):
            yield self._cue_item(self._cues.popleft(), last_ns)

    def _leaps(self, step_ns: int) -> bool:
        """Whether the clock was set: no pause is longer than the whole recording."""
        return step_ns < 0 or 0 < self.duration_s < step_ns / SECOND_NS

    def _cue_item(self, cue: Cue, last_ns: int) -> PlaybackItem:
        due_ns = self._due_ns(cue)
        time_ns = last_ns if self._leaps(due_ns - last_ns) else due_ns
        return PlaybackItem(time_ns - self._leapt_ns, partial(self._fire, cue))

    def _end_ns(self, last_ns: int) -> int:
        """Where the recording ends: the last frame is shown for a while."""
        assert self.start_ns is not None
        return max(last_ns, self.start_ns + round(self.duration_s * SECOND_NS))

    def _begin(self, frame: Frame) -> None:
        if self.start_ns is None:
            self._now_ns = frame.stamp_ns
            self.start_ns = frame.stamp_ns

    def _due_ns(self, cue: Cue) -> int:
        assert self.start_ns is not None
        return self.start_ns + round(cue.time_s * SECOND_NS)

    def _fire(self, cue: Cue) -> None:
        self._on_cue(cue)
        self._fired += 1

    def _submit(self, frame: Frame) -> None:
        self._now_ns = frame.stamp_ns
        self.newest = frame
        now = time.monotonic()
        self._arrivals.append(now)
        while self._arrivals and self._arrivals[0] <= now - _RATE_WINDOW_S:
            self._arrivals.popleft()
        kept = self._engine.submit(frame)
        while kept and self._patient and not self._stopped and not self._engine.flush(_FLUSH_S):
            continue

    def _set_clock(self, time_ns: int) -> None:
        self._now_ns = time_ns + self._leapt_ns
