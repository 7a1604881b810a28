"""When a condition counts as true: what its probabilities from look to look amount to."""

from __future__ import annotations

import enum


class Change(enum.IntEnum):
    """What a look found; the values of `msg/WatchEvent.msg`."""

    NOTHING = 0
    BECAME_TRUE = 1
    BECAME_FALSE = 2


class ConditionState:
    """Whether a condition counts as true, from one look at it to the next.

    Between its two thresholds a probability changes nothing, so that one that wavers about a threshold does not
    flicker. What was found true is told once it has been so for as long as asked for; what was found false, at once.

    Args:
        hold_ns: nanoseconds of stamps between the look that finds it true and the one that tells so.
        true_from: the probability from which on it is found true.
        false_below: the one below which it is found false; not above `true_from`.

    Attributes:
        looked_at: whether it was.
        is_true: whether it counts as true.
        since_ns: stamp of the look that first found it to be as it is.
    """

    def __init__(self, hold_ns: int, true_from: float, false_below: float) -> None:
        self._hold_ns = hold_ns
        self._true_from = true_from
        self._false_below = false_below
        self.looked_at = False
        self.is_true = False
        self.since_ns = 0
        # Found true, and not told yet where it must hold.
        self._found_true = False
        self._found_ns = 0

    def look(self, probability: float, stamp_ns: int) -> Change:
        """Takes in what a look gave, and says what has changed by it.

        Args:
            probability: that the condition is true.
            stamp_ns: of the newest frame that was looked at.
        """
        if not self.looked_at:
            self.looked_at, self.since_ns = True, stamp_ns
        found_true = probability >= self._true_from or (self._found_true and probability >= self._false_below)
        if found_true and not self._found_true:
            self._found_ns = stamp_ns
        self._found_true = found_true
        if found_true and not self.is_true and stamp_ns - self._found_ns >= self._hold_ns:
            self.is_true, self.since_ns = True, self._found_ns
            return Change.BECAME_TRUE
        if not found_true and self.is_true:
            self.is_true, self.since_ns = False, stamp_ns
            return Change.BECAME_FALSE
        return Change.NOTHING
