"""Means with bootstrap confidence intervals.

Questions about one video are not independent, so whole videos are drawn, not questions: with Video-MME's three
questions a video or OVO-Bench's probes, drawing questions would give intervals that are too narrow.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SEED = 20240607
RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean and its confidence interval.

    Attributes:
        value: the mean, in the unit of the values.
        low, high: 95 % percentile bootstrap; None where fewer than two videos leave nothing to draw from.
        count: values averaged.
    """

    value: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Stratum:
    """Values that are averaged together, each with the video that it belongs to."""

    values: Sequence[float]
    videos: Sequence[Hashable]


def estimate(strata: Sequence[Stratum], weights: Sequence[float] | None = None, seed: int = SEED) -> Estimate | None:
    """The weighted mean of the strata's means; one stratum gives the plain mean.

    Args:
        strata: drawn from separately, so that a macro average keeps its tasks.
        weights: one a stratum; equal ones if None.
        seed: of the resampling.

    Returns:
        None if there is no value at all, or a stratum has none.

    Raises:
        ValueError: if values and videos, or strata and weights, do not match in number.
    """
    if not strata or any(len(stratum.values) == 0 for stratum in strata):
        return None
    shares = np.full(len(strata), 1 / len(strata)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(shares) != len(strata):
        raise ValueError(f"{len(shares)} weights for {len(strata)} strata")
    generator = np.random.default_rng(seed)
    value, drawn, resampled = 0.0, np.zeros(RESAMPLES), False
    for stratum, share in zip(strata, shares, strict=True):
        sums, counts = _by_video(stratum)
        value += share * sums.sum() / counts.sum()
        times = _first_draws(len(sums), seed) if len(strata) == 1 else _draws(len(sums), generator)
        drawn += share * (times @ sums) / (times @ counts)
        resampled |= len(sums) > 1
    count = sum(len(stratum.values) for stratum in strata)
    if not resampled:
        return Estimate(float(value), None, None, count)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(value), float(low), float(high), count)


def _draws(videos: int, generator: np.random.Generator) -> np.ndarray:
    """How often each video is drawn, [resamples, videos]."""
    return generator.multinomial(videos, np.full(videos, 1 / videos), size=RESAMPLES)


@lru_cache(maxsize=4)
def _first_draws(videos: int, seed: int) -> np.ndarray:
    """Those of a seed; a report asks for the same ones for each of its measures, and thousands take a while to make."""
    return _draws(videos, np.random.default_rng(seed))


def _by_video(stratum: Stratum) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each video, both [videos]."""
    if len(stratum.values) != len(stratum.videos):
        raise ValueError(f"{len(stratum.values)} values for {len(stratum.videos)} videos")
    number = {video: index for index, video in enumerate(dict.fromkeys(stratum.videos))}
    member = np.array([number[video] for video in stratum.videos])
    sums = np.bincount(member, weights=np.asarray(stratum.values, dtype=np.float64), minlength=len(number))
    return sums, np.bincount(member, minlength=len(number)).astype(np.float64)
