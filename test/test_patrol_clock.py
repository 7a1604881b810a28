from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fvs_ros.patrol.clock import clock_words, lasted_words, time_ranges
from fvs_ros.patrol.config import day_config
from fvs_ros.patrol.episode import Episode, simulate
from fvs_ros.patrol.truth import EpisodeRecord


@pytest.mark.parametrize(
    ("time", "words"),
    [
        ((0, 0), "twelve o'clock at night"),
        ((0, 4), "twelve o'clock at night"),
        ((3, 15), "a quarter past three at night"),
        ((9, 30), "half past nine in the morning"),
        ((11, 35), "twenty five to twelve in the morning"),
        ((12, 5), "five past twelve in the afternoon"),
        ((12, 59), "five to one in the afternoon"),
        ((18, 20), "twenty past six in the evening"),
        ((23, 45), "a quarter to twelve in the evening"),
    ],
)
def test_times_of_day_are_said_to_five_minutes(time: tuple[int, int], words: str) -> None:
    assert clock_words(time[0] * 3600 + time[1] * 60 + 1) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (59, "less than one minute"),
        (60, "one minute"),
        (20 * 60, "twenty minutes"),
        (26 * 60, "thirty minutes"),
        (54 * 60, "fifty minutes"),
        (56 * 60, "one hour"),
        (85 * 60, "one and a half hours"),
        (2 * 3600, "two hours"),
        (23.4 * 3600, "twenty three and a half hours"),
        (24 * 3600, "twenty four hours"),
    ],
)
def test_lengths_of_time_are_said_as_coarsely_as_they_are_long(seconds: float, words: str) -> None:
    assert lasted_words(seconds) == words


@pytest.fixture(scope="module")
def episode() -> Episode:
    """Three hours from half past ten in the evening on."""
    made = simulate(0, day_config(5400))
    start = int(made.stamps_ns[0]) // 86_400_000_000_000 * 86_400_000_000_000 + 81_000 * 10**9
    return dataclasses.replace(made, stamps_ns=start + np.arange(len(made)) * 10**9)


def test_stretches_are_those_that_words_name(episode: Episode) -> None:
    found = {one.words: one for one in time_ranges(EpisodeRecord(episode).until(10_799))}
    assert set(found) == {
        "in the last five minutes",
        "in the last ten minutes",
        "in the last twenty minutes",
        "in the last half hour",
        "in the last hour",
        "in the last two hours",
        "yesterday between eleven and twelve o'clock in the evening",
        "between twelve and one o'clock at night",
        "yesterday",
        "today",
    }
    hour = found["yesterday between eleven and twelve o'clock in the evening"]
    assert (hour.start, hour.end, hour.margin) == (1800, 5399, 180)
    assert (found["yesterday"].start, found["yesterday"].end) == (0, 5399)
    assert (found["today"].start, found["today"].end) == (5400, 10_799)
    assert (found["in the last hour"].start, found["in the last hour"].end) == (7200, 10_799)


def test_before_midnight_nothing_was_yesterday(episode: Episode) -> None:
    words = [one.words for one in time_ranges(EpisodeRecord(episode).until(5399))]
    assert "between eleven and twelve o'clock in the evening" in words
    assert not [text for text in words if "yesterday" in text or text == "today"]
