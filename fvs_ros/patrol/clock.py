"""Words for times of an episode with a clock: the hour, how long ago it began, and stretches that are asked about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fvs_ros.patrol.truth import EpisodeTruth
from fvs_ros.patrol.vocabulary import NUMBERS, TENS

HOUR_S, DAY_S = 3_600, 86_400
RECENT: tuple[tuple[int, str], ...] = (
    (300, "five minutes"),
    (600, "ten minutes"),
    (1_200, "twenty minutes"),
    (1_800, "half hour"),
    (3_600, "hour"),
    (7_200, "two hours"),
    (10_800, "three hours"),
    (21_600, "six hours"),
    (43_200, "twelve hours"),
)
"""Seconds up to now, and the words after "in the last"."""

_PARTS_OF_DAY = ("at night", "in the morning", "in the afternoon", "in the evening")
_FIVE_MINUTES = (
    "", "five past", "ten past", "a quarter past", "twenty past", "twenty five past",
    "half past", "twenty five to", "twenty to", "a quarter to", "ten to", "five to",
)  # fmt: skip
# A stretch ends this share of its length before what its words leave open; see `TimeRange.margin`.
_MARGIN = 0.05
_SHORTEST_DAY_S = 600


@dataclass(frozen=True)
class TimeRange:
    """A stretch of an episode that words name.

    Attributes:
        words: such as "in the last hour", which go at the end of a question.
        start, end: its first and last frame.
        margin: frames on both sides of its borders of which nobody who has no stopwatch could be sure; none at the
            beginning of the episode and at its newest frame.
    """

    words: str
    start: int
    end: int
    margin: int


def hour_words(hour: int) -> str:
    """An hour of the day from 0 to 24 on a clock of twelve."""
    return NUMBERS[(hour - 1) % 12 + 1]


def clock_words(time_of_day_s: float) -> str:
    """A time of day to five minutes, such as "twenty past four in the afternoon"."""
    fives = int(time_of_day_s) // 300
    hour, past = divmod(fives, 12)
    part = _PARTS_OF_DAY[hour // 6]
    if past == 0:
        return f"{hour_words(hour)} o'clock {part}"
    return f"{_FIVE_MINUTES[past]} {hour_words(hour + (past > 6))} {part}"


def lasted_words(seconds: float) -> str:
    """A length of time: to minutes up to twenty, to ten minutes up to an hour, then to half hours."""
    minutes = seconds / 60
    if minutes < 1:
        return "less than one minute"
    if minutes < len(NUMBERS) - 0.5:
        return f"{NUMBERS[round(minutes)]} minute{'' if round(minutes) == 1 else 's'}"
    if minutes < 55:
        return f"{TENS[round(minutes / 10)]} minutes"
    hours, half = divmod(round(minutes / 30), 2)
    whole = NUMBERS[hours] if hours < len(NUMBERS) else f"{TENS[2]} {NUMBERS[hours - 20]}"
    return f"{whole}{' and a half' if half else ''} hour{'s' if hours + half > 1 else ''}"


def time_ranges(truth: EpisodeTruth) -> list[TimeRange]:
    """The stretches that can be asked about once frame `truth.frame` has been seen."""
    return [*_recent(truth), *_hours(truth), *_days(truth)]


def _range(truth: EpisodeTruth, words: str, start_s: float, end_s: float) -> TimeRange:
    """The frames from second `start_s` of the episode to before `end_s`."""
    rate = truth.episode.config.frame_rate
    start, end = int(start_s * rate), min(int(end_s * rate) - 1, truth.frame)
    return TimeRange(words, start, end, round(_MARGIN * (end - start + 1)))


def _elapsed_s(truth: EpisodeTruth) -> float:
    return (truth.frame + 1) / truth.episode.config.frame_rate


def _recent(truth: EpisodeTruth) -> Iterator[TimeRange]:
    now_s = _elapsed_s(truth)
    for length_s, words in RECENT:
        # Of the whole episode one would ask "so far".
        if length_s <= 0.9 * now_s:
            yield _range(truth, f"in the last {words}", now_s - length_s, now_s)


def _hours(truth: EpisodeTruth) -> Iterator[TimeRange]:
    """Whole hours of the clock; a day long at most, an episode holds each hour just once."""
    begin_s, now_s = truth.episode.time_of_day_s(0), _elapsed_s(truth)
    for hour in range(-int(-begin_s // HOUR_S), int((begin_s + now_s) // HOUR_S)):
        at = hour % 24
        day = "yesterday " if hour // 24 < int((begin_s + now_s - 1) // DAY_S) else ""
        words = f"between {hour_words(at)} and {hour_words(at + 1)} o'clock {_PARTS_OF_DAY[at // 6]}"
        yield _range(truth, day + words, hour * HOUR_S - begin_s, (hour + 1) * HOUR_S - begin_s)


def _days(truth: EpisodeTruth) -> Iterator[TimeRange]:
    """Yesterday and today, in an episode that has both."""
    midnight_s, now_s = DAY_S - truth.episode.time_of_day_s(0), _elapsed_s(truth)
    if min(midnight_s, now_s - midnight_s) >= _SHORTEST_DAY_S:
        yield _range(truth, "yesterday", 0, midnight_s)
        yield _range(truth, "today", midnight_s, now_s)
