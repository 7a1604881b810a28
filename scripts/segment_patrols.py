#!/usr/bin/env python3
"""Segments simulated patrols as the embedded model sees them, and measures where the cuts lie and what keyframes show.

    MUJOCO_GL=osmesa python scripts/segment_patrols.py --first-seed 871000 --episodes 10 --dwell-s 7 15

Cuts are compared with the moments at which stays at a view begin and end. A sighting is kept if its object is in view
in a keyframe that was taken during it. Beside the segmenter stand as many evenly spaced keyframes, and those of a Flash
Memory of as many slots.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from fvs_ros.episodic.segmenter import Cut, Segmenter, SegmenterConfig
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.patrol.config import FRAME_SIZE, STEP_S, TEST_SEED, PatrolConfig
from fvs_ros.patrol.episode import Episode, simulate
from fvs_ros.patrol.motion import NOWHERE
from fvs_ros.patrol.render import shared_renderer
from fvs_ros.patrol.truth import EpisodeRecord
from fvs_ros.patrol.visibility import SEEN_PX
from fvs_ros.sources.frame import SECOND_NS

BRIEF_S = 20
"""Sightings up to here are brief."""
_BATCH = 16


@dataclass(frozen=True)
class Counts:
    """Of one episode or several: how many of how many.

    Attributes:
        steps, segments: in all.
        cuts: that were not made at the longest length.
        right: of these, at most one step from the begin or the end of a stay.
        inside: of these, more than one step from the begin and the end of the stay in which they lie.
        changes, found: begins and ends of stays, and those with a cut at most one step away.
        brief: sightings of at most `BRIEF_S` seconds.
        kept, even, flash: of these, with a keyframe of the segmenter, of even spacing, of a Flash Memory.
    """

    steps: int
    segments: int
    cuts: int
    right: int
    inside: int
    changes: int
    found: int
    brief: int
    kept: int
    even: int
    flash: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def encode(model: FlashVStream, episode: Episode) -> tuple[Tensor, list[float]]:
    """Low-resolution features [T, P / 4, D] of an episode's steps, and the sharpness of each step's last frame."""
    grid = model.frame_grid(FRAME_SIZE, FRAME_SIZE, FRAME_SIZE**2, FRAME_SIZE**2)
    frames = list(shared_renderer(FRAME_SIZE).frames(episode))
    parts = [model.encode_steps(frames[first : first + _BATCH], grid).low for first in range(0, len(frames), _BATCH)]
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[1::2]]
    return torch.cat(parts), [float(cv2.Laplacian(frame, cv2.CV_32F).var()) for frame in grey]


def segments(low: Tensor, sharpness: Sequence[float], config: SegmenterConfig) -> list[Cut]:
    """All segments of an episode, whose stamps count from 0."""
    segmenter, cuts = Segmenter(config), []
    for step, features in enumerate(low):
        start_ns = step * STEP_S * SECOND_NS
        cut = segmenter.append(features, start_ns, start_ns + SECOND_NS, sharpness[step])
        cuts += [] if cut is None else [cut]
    return [*cuts, *segmenter.close()]


def flash_keyframes(low: Tensor, slots: int, config: FlashMemoryConfig, grid: PatchGrid) -> np.ndarray:
    """The step nearest to each centroid of a Flash Memory of so many slots, int64 [slots]."""
    config = replace(config, csm_slots=slots, dam_slots=slots, window_slots=0)
    memory = StreamingFlashMemory(config, grid, low.shape[-1], device=low.device, dtype=low.dtype)
    stamps = list(range(len(low)))
    memory.append(low.new_zeros(len(low), grid.patches, low.shape[-1]), low, stamps, stamps)
    return memory.snapshot().dam_steps.numpy()


def stays(episode: Episode) -> np.ndarray:
    """Begin and end of each stay at a view, in steps, float64 [stays, 2]."""
    view = np.where(episode.views == NOWHERE, NOWHERE, episode.visits * len(episode.views) + episode.views)
    starts = np.flatnonzero(np.diff(view, prepend=NOWHERE - 1))
    bounds = np.stack([starts, np.r_[starts[1:], len(view)]], axis=1)
    return bounds[view[starts] != NOWHERE] / STEP_S


def near(moments: np.ndarray, others: np.ndarray) -> int:
    """How many moments have another one at most a step away."""
    return int((np.abs(moments[:, None] - others[None]).min(axis=1) <= 1).sum())


def kept(episode: Episode, keyframes: np.ndarray) -> tuple[int, int]:
    """Brief sightings with a keyframe, and brief sightings in all."""
    frames = STEP_S * np.asarray(keyframes) + 1
    brief = [one for one in EpisodeRecord(episode).sightings if one.end - one.start + 1 <= BRIEF_S]
    shown = [episode.pixels[frames[(frames >= one.start) & (frames <= one.end)], one.object_id] for one in brief]
    return sum(bool((pixels >= SEEN_PX).any()) for pixels in shown), len(brief)


def measure(model: FlashVStream, episode: Episode, config: SegmenterConfig) -> Counts:
    """Segments an episode and counts."""
    low, sharpness = encode(model, episode)
    found = segments(low, sharpness, config)
    # The next step did not fit into what was ended at the longest length.
    longest_ns = (config.longest_s - STEP_S) * SECOND_NS
    ends = np.cumsum([cut.steps for cut in found])[:-1]
    cuts = ends[[cut.end_ns - cut.start_ns <= longest_ns for cut in found[:-1]]]
    at_views = stays(episode)
    changes = at_views[(at_views > 0) & (at_views < len(low))]
    within = (cuts[:, None] > at_views[None, :, 0] + 1) & (cuts[:, None] < at_views[None, :, 1] - 1)
    grid = model.frame_grid(FRAME_SIZE, FRAME_SIZE, FRAME_SIZE**2, FRAME_SIZE**2)
    middles = (np.arange(len(found)) + 0.5) * len(low) / len(found)
    return Counts(
        steps=len(low),
        segments=len(found),
        cuts=len(cuts),
        right=near(cuts, changes),
        inside=int(within.any(axis=1).sum()),
        changes=len(changes),
        found=near(changes, ends),
        brief=kept(episode, np.empty(0, np.int64))[1],
        kept=kept(episode, np.array([cut.keyframe for cut in found]))[0],
        even=kept(episode, middles.astype(np.int64))[0],
        flash=kept(episode, flash_keyframes(low, len(found), model.memory_config, grid))[0],
    )


def main() -> None:
    """Prints one line for all episodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-seed", type=int, default=871_000)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=500, help="grid steps of an episode")
    parser.add_argument("--dwell-s", type=int, nargs=2, default=PatrolConfig.dwell_s, help="shortest and longest stay")
    parser.add_argument("--noise", type=float, default=PatrolConfig.noise)
    chosen = parser.parse_args()
    if chosen.first_seed + chosen.episodes > TEST_SEED:
        parser.error(f"seeds from {TEST_SEED} up are for tests")
    model = FlashVStream.load("embedded")
    shortest, longest = chosen.dwell_s
    settings = PatrolConfig(steps=chosen.steps, dwell_s=(shortest, longest), noise=chosen.noise)
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.episodes)
    counts = [measure(model, simulate(seed, settings), SegmenterConfig()) for seed in seeds]
    total = sum(counts[1:], counts[0])
    print(
        f"dwell {shortest} to {longest} s: {1000 * total.segments / total.steps:.0f} segments per 1,000 steps; cuts "
        f"{total.right}/{total.cuts} right, {total.inside} inside a stay; changes {total.found}/{total.changes} found; "
        f"brief sightings {total.kept}/{total.brief} kept, {total.even} evenly spaced, {total.flash} by Flash Memory"
    )


if __name__ == "__main__":
    main()
