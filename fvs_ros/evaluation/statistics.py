"""Means with bootstrap confidence intervals.

Questions about one video are not independent, so whole videos are drawn, not questions: with Video-MME's three
questions a video or OVO-Bench's probes, drawing questions would give intervals that are too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)

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

    def text(self, factor: float = 1.0, digits: int = 2, bound_digits: int = 1) -> str:
        """`0.71 [0.6, 0.8]`, each figure times `factor`; without bounds where there are none."""
        value = f"{factor * self.value:.{digits}f}"
        if self.low is None or self.high is None:
            return value
        low, high = (f"{factor * bound:.{bound_digits}f}" for bound in (self.low, self.high))
        return f"{value} [{low}, {high}]"


@dataclass(frozen=True)
class Stratum:
    """Values that are averaged together, each with the video that it belongs to."""

    values: Sequence[float]
    videos: Sequence[Hashable]


def stratum(items: Iterable[Item], value: Callable[[Item], float | None], video: Callable[[Item], Hashable]) -> Stratum:
    """The values of those items that have one, each with its video."""
    pairs = [(value(item), video(item)) for item in items]
    known = [(number, drawn_with) for number, drawn_with in pairs if number is not None]
    return Stratum([float(number) for number, _ in known], [drawn_with for _, drawn_with in known])


def grouped(items: Iterable[Item], keys: Callable[[Item], Iterable[Key]]) -> dict[Key, list[Item]]:
    """Items by key, keys in the order in which each first occurs; an item counts for each of its keys."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        for key in keys(item):
            groups.setdefault(key, []).append(item)
    return groups


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
