"""A logger that a stream of bad frames cannot flood."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable


class ThrottledLog:
    """Passes on one message per key and period, and says how many of the same key it held back before.

    Not thread-safe: one thread, one ThrottledLog.

    Args:
        logger: where the messages go.
        period_s: seconds between two messages of the same key.
        clock: monotonic seconds.
    """

    def __init__(
        self, logger: logging.Logger, period_s: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._period_s = period_s
        self._clock = clock
        self._due: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def log(self, level: int, key: str, message: str, *, exc_info: bool = False) -> None:
        """Logs `message` if the last one of the same key is at least one period old."""
        now = self._clock()
        if now < self._due.get(key, now):
            self._held_back[key] = self._held_back.get(key, 0) + 1
            return
        self._due[key] = now + self._period_s
        held_back = self._held_back.pop(key, 0)
        suffix = f" ({held_back} more like this before)" if held_back else ""
        self._logger.log(level, "%s%s", message, suffix, exc_info=exc_info)
