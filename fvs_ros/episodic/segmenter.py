"""Cuts a stream of grid steps into segments that each show one scene, while the stream runs.

Shapes: P patches of a low-resolution step (or its rows and columns, H x W), D width of a patch feature. A *distance* is
squared and summed over all features of a step.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fvs_ros.sources.frame import SECOND_NS

# Steps over which the stream's contrast and its quiet noise are taken: ten minutes and four, at 1 frame per second.
_CONTRAST_STEPS = 300
_NOISE_STEPS = 128
# Of a patrol's neighbours 57 percent show the same view, and 18 where stays take 2 to 6 s: so the tenth that is most
# alike tells noise, and no change of the scene.
_QUIET_SHARE = 0.1
# Steps as which the stream's quiet noise counts beside the segment's own.
_PRIOR_STEPS = 4
# Share of the distance that would end the segment, up to which a step is near its mean.
_NEAR = 0.25


@dataclass(frozen=True)
class SegmenterConfig:
    """When a segment ends.

    Changes are shares of the stream's *contrast*: the distance of a step's patches from their own mean, on average over
    steps. So they do not depend on the scale of a model's features. On patrols, neighbours differ by 0.01 within a stay
    (median; 99 percent by less than 0.1) and by 0.6 and more elsewhere (three of four).

    Attributes:
        noise_factor: a step shows another scene when its distance from the segment's mean is above this many times the
            segment's noise, within the bounds that follow.
        least_change: no smaller change is another scene, however still the segment was.
        most_change: any larger change is another scene, however noisy the segment was.
        longest_s: longest segment in seconds, from its first frame to its last.
        keyframe_candidates: steps of a segment that are kept to choose its keyframe from.

    Raises:
        ValueError: for a value outside its range.
    """

    noise_factor: float = 6.0
    least_change: float = 0.1
    most_change: float = 0.3
    longest_s: float = 120.0
    keyframe_candidates: int = 4

    def __post_init__(self) -> None:
        _check("noise_factor", self.noise_factor, 1.0, 100.0)
        _check("least_change", self.least_change, 0.001, 2.0)
        _check("most_change", self.most_change, self.least_change, 2.0)
        _check("longest_s", self.longest_s, 1.0, 86_400.0)
        _check("keyframe_candidates", self.keyframe_candidates, 1, 16)


def _check(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {value}; it must be from {lowest} to {highest}")


@dataclass(frozen=True, eq=False)
class Cut:
    """A segment that has ended.

    Attributes:
        start_ns, end_ns: stamps of its first and its last frame.
        steps: grid steps in it, its weight.
        mean: [P, D] float32 on the features' device, or of whichever shape the steps had; without glitches.
        keyframe: the step that shows it best, counted in steps that the segmenter took, from 0.
        keyframe_ns: stamp of the last frame of that step.
    """

    start_ns: int
    end_ns: int
    steps: int
    mean: Tensor
    keyframe: int
    keyframe_ns: int


@dataclass(frozen=True, eq=False)
class _Step:
    """A grid step. Its features are float32, in storage of their own."""

    index: int
    start_ns: int
    end_ns: int
    sharpness: float
    features: Tensor


@dataclass(frozen=True)
class _Distances:
    """Of a step's patches from their mean, and of the step from the open segment and from the step that waits."""

    contrast: float
    mean: float = 0.0
    newest: float = 0.0
    waiting: float = 0.0


class Segmenter:
    """Cuts a stream of any length in constant memory; equal streams give equal cuts.

    A step that is not like the mean of the open segment waits for the next one. If that one is, the step was a
    *glitch*, such as somebody passing by: it counts among the segment's steps, but not for its mean. If not, the
    segment ended before it. So a visit of two steps is a segment, and a cut comes one step late. Steps that are all
    unlike their neighbours, as on the way from room to room, are a segment each.

    The mean follows a slow change at half its pace, so that a pan leaves it behind in the end. Noise is half the
    distance between neighbours, in which a slow change hardly shows.

    A step costs a few passes over its features and one wait for the device. Up to `keyframe_candidates` + 3 steps'
    features are kept.

    Args:
        config: when a segment ends.
    """

    def __init__(self, config: SegmenterConfig | None = None) -> None:
        self._config = config or SegmenterConfig()
        self._steps = 0
        self._contrast = 0.0
        self._noises: deque[float] = deque(maxlen=_NOISE_STEPS)
        self._quiet_noise = 0.0
        self._segment: _Segment | None = None
        self._waiting: _Step | None = None

    @property
    def candidates(self) -> tuple[int, ...]:
        """Steps that may still become a keyframe, ascending. The pictures of all others can be dropped."""
        steps = [*(self._segment.candidates if self._segment else ()), *self._waiting_steps()]
        return tuple(step.index for step in steps)

    @torch.no_grad()
    def append(self, features: Tensor, start_ns: int, end_ns: int, sharpness: float) -> Cut | None:
        """Takes the next grid step.

        Args:
            features: [P, D], low resolution, any floating type and device; the same shape for all steps.
            start_ns: stamp of the step's first frame.
            end_ns: stamp of its last frame.
            sharpness: of its last frame; the larger, the better a keyframe it makes.

        Returns:
            The segment that has turned out to be over, if one has.

        Raises:
            ValueError: features of another shape or not finite, or stamps that run backwards. The segmenter is
                unchanged.
        """
        self._check_step(features, start_ns, end_ns, sharpness)
        step = _Step(self._steps, start_ns, end_ns, sharpness, features.to(torch.float32, copy=True))
        distances = self._measure(step)
        self._steps += 1
        self._contrast += (distances.contrast - self._contrast) / min(self._steps, _CONTRAST_STEPS)
        segment, waiting = self._segment, self._waiting
        if segment is None:
            self._open(step)
            return None
        self._learn_noise((distances.waiting if waiting else distances.newest) / 2)
        alike = self._alike(segment, distances.mean)
        if self._too_long(segment, step) or (waiting and not alike):
            cut = segment.cut(_NEAR * self._limit(segment))
            opened = self._open(waiting or step)
            if waiting:
                self._continue(opened, step, distances.waiting, self._alike(opened, distances.waiting))
            return cut
        self._continue(segment, step, distances.newest, alike)
        return None

    def close(self) -> tuple[Cut, ...]:
        """Ends the stream, for instance at a reset; steps that follow begin another one, of any stamps.

        Returns:
            The open segment, if there is one, and after it the newest step, if that was not like it.
        """
        ended = [] if self._segment is None else [self._segment]
        ended += [_Segment(step, 1) for step in self._waiting_steps()]
        cuts = tuple(segment.cut(_NEAR * self._limit(segment)) for segment in ended)
        self._segment = self._waiting = None
        return cuts

    def _check_step(self, features: Tensor, start_ns: int, end_ns: int, sharpness: float) -> None:
        if features.ndim < 2 or not features.is_floating_point():
            raise ValueError(
                f"the step's features are {features.dtype} {list(features.shape)}; give patches with floating-point "
                "features, [P, D]"
            )
        if not math.isfinite(sharpness):
            raise ValueError(f"the step's sharpness is {sharpness}; it must be a finite number")
        if end_ns < start_ns:
            raise ValueError(f"the step ends at {end_ns} ns, before it starts at {start_ns} ns; swap its stamps")
        if self._segment is None:
            return
        if features.shape != self._segment.mean.shape:
            raise ValueError(
                f"the step's features are {list(features.shape)}, those of the segment {list(self._segment.mean.shape)}"
                "; close the segmenter before the camera or the model changes"
            )
        last_ns = self._waiting.end_ns if self._waiting else self._segment.end_ns
        if start_ns < last_ns:
            raise ValueError(
                f"the step starts at {start_ns} ns, before the last one ended at {last_ns} ns; close the segmenter "
                "where a clock is set back"
            )

    def _measure(self, step: _Step) -> _Distances:
        """All distances of a step with one wait for the device."""
        features = step.features
        others = [features.flatten(0, -2).mean(0).expand_as(features)]
        if self._segment is not None:
            others += [self._segment.mean, self._segment.newest.features]
        others += [waiting.features for waiting in self._waiting_steps()]
        measured = [functional.mse_loss(features, other, reduction="sum") for other in others]
        distances = _Distances(*torch.stack(measured).tolist())
        if not math.isfinite(distances.contrast):
            raise ValueError(
                f"the features of the step that starts at {step.start_ns} ns are not finite; leave it out, and look "
                "for what the model was given"
            )
        return distances

    def _learn_noise(self, noise: float) -> None:
        self._noises.append(noise)
        self._quiet_noise = sorted(self._noises)[int(_QUIET_SHARE * len(self._noises))]

    def _alike(self, segment: _Segment, distance: float) -> bool:
        """Whether a step at this distance from a segment's mean shows its scene."""
        # The mean of n steps is itself off by an n-th of the noise.
        return distance * segment.averaged / (segment.averaged + 1) <= self._limit(segment)

    def _limit(self, segment: _Segment) -> float:
        """The distance that ends a segment."""
        config, weight = self._config, _PRIOR_STEPS + segment.averaged - 1
        noise = (_PRIOR_STEPS * self._quiet_noise + segment.noise_sum) / weight
        least, most = config.least_change * self._contrast, config.most_change * self._contrast
        return min(max(config.noise_factor * noise, least), most)

    def _too_long(self, segment: _Segment, step: _Step) -> bool:
        return step.end_ns - segment.start_ns > self._config.longest_s * SECOND_NS

    def _open(self, step: _Step) -> _Segment:
        self._waiting = None
        self._segment = _Segment(step, self._config.keyframe_candidates)
        return self._segment

    def _continue(self, segment: _Segment, step: _Step, newest: float, alike: bool) -> None:
        """Adds a step to the open segment, or lets it wait; `newest` is its distance from the segment's newest step."""
        if not alike:
            self._waiting = step
            return
        for glitch in self._waiting_steps():
            segment.skip(glitch)
        self._waiting = None
        segment.add(step, newest / 2)

    def _waiting_steps(self) -> tuple[_Step, ...]:
        return () if self._waiting is None else (self._waiting,)


class _Segment:
    """The open segment.

    Attributes:
        start_ns, end_ns, steps, mean: see `Cut`.
        averaged: steps in the mean.
        newest: of these.
        noise_sum: sum of the noise between each of these and the one before.
        candidates: the sharpest of these, by their index.
    """

    def __init__(self, step: _Step, most_candidates: int) -> None:
        self.start_ns, self.end_ns = step.start_ns, step.end_ns
        self.steps = self.averaged = 1
        self.mean = step.features.clone()
        self.newest = step
        self.noise_sum = 0.0
        self.candidates = [step]
        self._most_candidates = most_candidates

    def add(self, step: _Step, noise: float) -> None:
        """Adds a step that shows the scene."""
        self.skip(step)
        self.averaged += 1
        self.mean += (step.features - self.mean) / self.averaged
        self.newest = step
        self.noise_sum += noise
        self.candidates.append(step)
        if len(self.candidates) > self._most_candidates:
            # Of two that are equally sharp the newer one goes: its picture need not be kept in the first place.
            self.candidates.remove(min(self.candidates, key=lambda one: (one.sharpness, -one.index)))

    def skip(self, step: _Step) -> None:
        """Counts a step that does not show the scene."""
        self.steps += 1
        self.end_ns = step.end_ns

    def cut(self, near: float) -> Cut:
        """Ends the segment. Its keyframe is the sharpest candidate at most `near` from the mean, or the nearest."""
        distances = [functional.mse_loss(one.features, self.mean, reduction="sum") for one in self.candidates]
        by_distance = sorted(zip(torch.stack(distances).tolist(), self.candidates, strict=True), key=lambda one: one[0])
        among = [step for distance, step in by_distance if distance <= near] or [by_distance[0][1]]
        keyframe = max(among, key=lambda one: one.sharpness)
        return Cut(self.start_ns, self.end_ns, self.steps, self.mean, keyframe.index, keyframe.end_ns)
