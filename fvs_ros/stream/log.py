"""What the log holds back: the hundredth bad frame of a stream, and what people asked."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Sequence


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


# Characters in a row that tell of a question.
_QUOTE = 12
_SHORTEST = 4


def quotes(text: str, questions: Iterable[str]) -> bool:
    """Whether a text holds a piece of a question, as it is or as Python escapes it."""
    for question in questions:
        for form in {question, repr(question)[1:-1], ascii(question)[1:-1]}:
            length = min(len(form), _QUOTE)
            if length < _SHORTEST:
                continue
            pieces = {form[start : start + length] for start in range(len(form) - length + 1)}
            if any(text[start : start + length] in pieces for start in range(len(text) - length + 1)):
                return True
    return False


def traceback_without(error: BaseException, questions: Sequence[str]) -> str:
    """The traceback of an error, for the log, without the lines that quote a question."""
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    left_out = "(a line that quotes the question is left out; the log level debug shows it)"
    return "\n".join(left_out if quotes(line, questions) else line for line in lines)
