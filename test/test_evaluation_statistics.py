"""Means and their bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest

from fvs_ros.evaluation.statistics import Estimate, Stratum, estimate


def whole(found: Estimate | None) -> tuple[float, float, float]:
    """Value and bounds of a mean that has bounds."""
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    return found.value, found.low, found.high


def test_the_mean_and_an_interval_around_it() -> None:
    values = [1.0] * 30 + [0.0] * 70
    result = estimate([Stratum(values, range(100))])
    value, low, high = whole(result)
    assert value == pytest.approx(0.3)
    assert result is not None
    assert result.count == 100
    # The normal approximation: 0.3 +- 1.96 * sqrt(0.3 * 0.7 / 100).
    assert low == pytest.approx(0.21, abs=0.02)
    assert high == pytest.approx(0.39, abs=0.02)


def test_the_interval_repeats_and_depends_on_the_seed() -> None:
    stratum = Stratum([0.0, 1.0, 1.0, 0.0, 1.0], range(5))
    assert estimate([stratum], seed=1) == estimate([stratum], seed=1)
    many = Stratum(list(np.linspace(0, 1, 50)), range(50))
    assert estimate([many], seed=1) != estimate([many], seed=2)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        values = (generator.random(80) < 0.6).astype(float)
        _, low, high = whole(estimate([Stratum(list(values), range(80))], seed=trial))
        covered += low <= 0.6 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_questions_about_one_video_are_drawn_together() -> None:
    values = [1.0] * 50 + [0.0] * 50
    value, low, high = whole(estimate([Stratum(values, range(100))]))
    clustered, clustered_low, clustered_high = whole(estimate([Stratum(values, [i // 10 for i in range(100)])]))
    assert clustered == value
    assert clustered_high - clustered_low > 2 * (high - low)


def test_a_mean_of_means() -> None:
    strata = [Stratum([1.0, 1.0, 0.0, 0.0], "abcd"), Stratum([1.0], "a")]
    plain = estimate(strata)
    assert plain is not None
    assert plain.value == pytest.approx(0.75)
    assert plain.count == 5
    assert whole(estimate(strata, [0.2, 0.8]))[0] == pytest.approx(0.9)


def test_one_video_gives_no_interval() -> None:
    assert estimate([Stratum([1.0, 0.0], ["a", "a"])]) == Estimate(0.5, None, None, count=2)


def test_nothing_to_average() -> None:
    assert estimate([]) is None
    assert estimate([Stratum([], [])]) is None
    assert estimate([Stratum([1.0], ["a"]), Stratum([], [])]) is None


def test_numbers_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="2 values for 1 videos"):
        estimate([Stratum([1.0, 0.0], ["a"])])
    with pytest.raises(ValueError, match="2 weights for 1 strata"):
        estimate([Stratum([1.0], ["a"])], [0.5, 0.5])
