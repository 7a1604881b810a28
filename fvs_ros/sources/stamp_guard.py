"""Which stamps to believe: a single wrong one is left out, a clock that was set anew is told from it.

A stamp is judged by its neighbours and by when its frame was received. The stamps of a stream follow each other as
their frames arrive; one that leaps ahead of its arrival, or falls behind the stamps before it, is held back until the
next frames show whether the stream goes on where it was (then the stamp was wrong) or where the leap led (then the
clock was set). Real drivers send both: luxonis/depthai-ros#53, ros-drivers/usb_cam#278.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from fvs_ros.sources.frame import SECOND_NS, Frame

# A clock was set once so many frames in a row, over as long, agree with each other and not with those before. Runs of
# wrong stamps are shorter: five in a row were reported, at one a second.
SET_FRAMES = 8
SET_NS = 2 * SECOND_NS
# As many frames are no slip of a single stamp; they are believed if the stream ends, or leaps again, after them.
RUN_FRAMES = 3
# A stamp may be so far ahead of the last one, and of its arrival, whatever the frame rate.
SLACK_NS = SECOND_NS
# Share of a silence by which the stamps after it may be ahead: how well the pace of a short stream is known.
PACE_SLACK = 0.1
# Frames that the pace and the delay of a stream are judged by.
WINDOW = 64
# Suspicious frames that are kept until they are judged; 16 of 1080p take 100 MB.
HELD_FRAMES = 16


@dataclass(frozen=True)
class ClockMove:
    """A clock that was set while the stream ran: the last stamp before it, and the first after it, nanoseconds."""

    before_ns: int
    after_ns: int

    def __str__(self) -> str:
        seconds = (self.after_ns - self.before_ns) / SECOND_NS
        return (
            f"the stream's clock moved by {seconds:+.3f} s, from stamp {self.before_ns / SECOND_NS:.3f} s to "
            f"{self.after_ns / SECOND_NS:.3f} s"
        )


@dataclass(frozen=True)
class Verdict:
    """What becomes of an offered frame and of those that were held back before it.

    Attributes:
        accepted: to be used now, in this order.
        rejected: left out, since their stamps are wrong.
        late: whether the offered frame is dropped because a newer one was accepted before it.
        dropped: held frames that made room for newer ones.
        moved: set if the accepted frames follow a clock that was set; they begin a new episode.
    """

    accepted: tuple[Frame, ...] = ()
    rejected: tuple[Frame, ...] = ()
    late: bool = False
    dropped: int = 0
    moved: ClockMove | None = None


def describe_wrong_stamps(verdict: Verdict) -> str:
    """What was left out, for a log or a report; the verdict has rejected frames."""
    first, last = (frame.stamp_ns / SECOND_NS for frame in (verdict.rejected[0], verdict.rejected[-1]))
    if len(verdict.rejected) == 1:
        text = f"a frame was left out: its stamp {first:.3f} s is wrong"
    else:
        text = f"{len(verdict.rejected)} frames were left out: their stamps {first:.3f} s to {last:.3f} s are wrong"
    if verdict.accepted:
        text += f", since the stream went on at {verdict.accepted[-1].stamp_ns / SECOND_NS:.3f} s"
    return text


class _Timeline:
    """Stamps that follow each other as their frames were received."""

    def __init__(self, stamp_ns: int, received_ns: int) -> None:
        self.first_ns = self.newest_ns = stamp_ns
        self.frames = 1
        self._recent = deque([(stamp_ns, received_ns)], maxlen=WINDOW)

    def advance(self, stamp_ns: int, received_ns: int) -> None:
        self.newest_ns = stamp_ns
        self.frames += 1
        self._recent.append((stamp_ns, received_ns))

    def continues(self, stamp_ns: int, received_ns: int) -> bool:
        """Whether a frame goes on where this timeline is."""
        step_ns = stamp_ns - self.newest_ns
        if step_ns <= 0:
            return False
        (oldest_ns, oldest_received_ns), (_, newest_received_ns) = self._recent[0], self._recent[-1]
        period_ns = (self.newest_ns - oldest_ns) / max(1, len(self._recent) - 1)
        if step_ns <= max(SLACK_NS, 2 * period_ns):
            return True
        # A recording may play faster or slower than it was made.
        elapsed_ns = newest_received_ns - oldest_received_ns
        pace = (self.newest_ns - oldest_ns) / elapsed_ns if len(self._recent) >= SET_FRAMES and elapsed_ns > 0 else 1.0
        # The frame that came with the least delay tells what the stamp of one that comes now can be at most.
        ahead_ns = max(stamp - pace * received for stamp, received in self._recent)
        silence_ns = max(0, received_ns - newest_received_ns)
        return stamp_ns <= ahead_ns + pace * received_ns + SLACK_NS + PACE_SLACK * pace * silence_ns


@dataclass
class _Rival:
    """A timeline that may replace the present one, and its frames that are held back."""

    timeline: _Timeline
    held: deque[Frame] = field(default_factory=deque)

    def hold(self, frame: Frame) -> int:
        """Keeps a frame until it is judged; returns how many make room for it."""
        if any(one.stamp_ns == frame.stamp_ns for one in self.held):
            return 1
        self.held.append(frame)
        if len(self.held) <= HELD_FRAMES:
            return 0
        self.held.popleft()
        return 1

    @property
    def confirmed(self) -> bool:
        span_ns = self.timeline.newest_ns - self.timeline.first_ns
        return self.timeline.frames >= SET_FRAMES and span_ns >= SET_NS


class StampGuard:
    """Judges the stamps of one stream, frame by frame. Not thread-safe.

    Frames without a receive time are believed: their stamps come from a file's own clock, which cannot slip. One that
    falls back by more than the tolerance begins a new episode at once, as a recording that is looped does.

    Args:
        late_tolerance_ns: a frame at most this far behind the newest was reordered on its way, and is late.
    """

    def __init__(self, late_tolerance_ns: int) -> None:
        self._late_tolerance_ns = late_tolerance_ns
        self._timeline: _Timeline | None = None
        self._rival: _Rival | None = None

    @property
    def held(self) -> int:
        """Frames that are held back."""
        return len(self._rival.held) if self._rival else 0

    def restart(self) -> int:
        """Believes the next frame, whatever its stamp; returns how many held frames are let go."""
        held = self.held
        self._timeline = self._rival = None
        return held

    def offer(self, frame: Frame) -> Verdict:
        """Judges a frame by its neighbours."""
        stamp_ns, received_ns = frame.stamp_ns, frame.received_ns
        if received_ns is None:
            return self._believe(frame)
        if self._timeline is None:
            self._timeline = _Timeline(stamp_ns, received_ns)
            return Verdict((frame,))
        if self._timeline.continues(stamp_ns, received_ns):
            self._timeline.advance(stamp_ns, received_ns)
            return Verdict((frame,), self._dismiss())
        late = self._is_late(self._timeline, stamp_ns)
        if self._rival is None:
            return self._begin_rival(frame, received_ns, late)
        if self._rival.timeline.continues(stamp_ns, received_ns):
            self._rival.timeline.advance(stamp_ns, received_ns)
            dropped = 0 if late else self._rival.hold(frame)
            believed = self._promote() if self._rival.confirmed else Verdict()
            return replace(believed, late=late, dropped=dropped)
        if not late and self._is_late(self._rival.timeline, stamp_ns):
            return Verdict(dropped=self._rival.hold(frame))
        if not late and len(self._rival.held) >= RUN_FRAMES:
            # The stream leaps again, and has not come back: what lies between was no slip.
            believed = self._promote()
            self._begin_rival(frame, received_ns, late=False)
            return believed
        rejected = self._dismiss()
        return replace(self._begin_rival(frame, received_ns, late), rejected=rejected)

    def _is_late(self, timeline: _Timeline, stamp_ns: int) -> bool:
        return 0 <= timeline.newest_ns - stamp_ns <= self._late_tolerance_ns

    def _begin_rival(self, frame: Frame, received_ns: int, late: bool) -> Verdict:
        self._rival = _Rival(_Timeline(frame.stamp_ns, received_ns))
        if not late:
            self._rival.hold(frame)
        return Verdict(late=late)

    def finish(self) -> Verdict:
        """Judges what is held back at the end of the stream."""
        if self._rival is not None and len(self._rival.held) >= RUN_FRAMES:
            return self._promote()
        return Verdict(rejected=self._dismiss())

    def _believe(self, frame: Frame) -> Verdict:
        timeline, rejected = self._timeline, self._dismiss()
        if timeline is None or self._falls_back(timeline, frame.stamp_ns):
            self._timeline = _Timeline(frame.stamp_ns, frame.stamp_ns)
            moved = ClockMove(timeline.newest_ns, frame.stamp_ns) if timeline else None
            return Verdict((frame,), rejected, moved=moved)
        if self._is_late(timeline, frame.stamp_ns):
            return Verdict(rejected=rejected, late=True)
        timeline.advance(frame.stamp_ns, frame.stamp_ns)
        return Verdict((frame,), rejected)

    def _falls_back(self, timeline: _Timeline, stamp_ns: int) -> bool:
        return timeline.newest_ns - stamp_ns > self._late_tolerance_ns

    def _dismiss(self) -> tuple[Frame, ...]:
        held = tuple(self._rival.held) if self._rival else ()
        self._rival = None
        return held

    def _promote(self) -> Verdict:
        """Lets the rival be the stream's timeline."""
        assert self._timeline is not None
        assert self._rival is not None
        moved = ClockMove(self._timeline.newest_ns, self._rival.timeline.first_ns)
        # Unless late, a frame may still have been swapped with its neighbour.
        accepted = tuple(sorted(self._rival.held, key=lambda frame: frame.stamp_ns))
        self._timeline, self._rival = self._rival.timeline, None
        return Verdict(accepted, moved=moved)
