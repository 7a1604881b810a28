"""The moments that a model had in front of it, ranked by what an answer rests on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fakes import GRID, SECOND_NS, FakeModel, frame, pose_at

from fvs_ros.episodic.segment import Segment
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.stream.episode_memory import DecodedFrame, EpisodeMemory
from fvs_ros.stream.evidence import most_relevant, shown_moments
from fvs_ros.stream.latest_memory import PublishedMemory
from fvs_ros.stream.origins import StepOrigin
from fvs_ros.stream.types import Kept, MemoryStatus, Moment

WIDTH = 4


def memory(steps: int, window_slots: int = 1) -> MemorySnapshot:
    """Of a stream of distinct steps, two seconds each from second 0."""
    config = FlashMemoryConfig(csm_slots=3, dam_slots=2, window_slots=window_slots, time_weight=1.0)
    filled = StreamingFlashMemory(config, GRID, WIDTH, device=torch.device("cpu"), dtype=torch.float32)
    for step in range(steps):
        low = torch.full((GRID.low_patches, WIDTH), float(step))
        start_ns = 2 * step * SECOND_NS
        filled.append(torch.zeros(GRID.patches, WIDTH), low, start_ns, start_ns + SECOND_NS)
    return filled.snapshot()


def published(snapshot: MemorySnapshot, origins: dict[int, StepOrigin] | None = None) -> PublishedMemory:
    end_ns = (2 * snapshot.steps - 1) * SECOND_NS
    return PublishedMemory(snapshot, origins or {}, MemoryStatus(end_ns=end_ns))


@pytest.mark.parametrize("steps", [1, 2, 3, 9, 40])
def test_every_slot_shows_a_moment_whose_keyframe_lies_within_it(steps: int) -> None:
    snapshot = memory(steps)
    shown = shown_moments(published(snapshot))
    assert len(shown.of_slots) == len(snapshot.slot_tokens)
    assert set(shown.of_slots) == set(range(len(shown.moments)))
    assert all(one.start_ns <= one.stamp_ns <= one.end_ns for one in shown.moments)
    assert all(one.stamp_ns % (2 * SECOND_NS) == 0 for one in shown.moments), "each is the stamp of a step"
    stamps = [one.stamp_ns for one in shown.moments]
    assert stamps == sorted(stamps)
    assert stamps[-1] == 2 * (steps - 1) * SECOND_NS, "the newest step is among them"


def test_slots_that_show_one_moment_add_up() -> None:
    snapshot = memory(2)
    shown = shown_moments(published(snapshot))
    # Two keyframes, two clusters and the window, which is the second step.
    assert shown.of_slots == (0, 1, 0, 1, 1)
    both = Kept.DETAIL | Kept.SYNOPSIS
    assert [one.kept for one in shown.moments] == [both, both | Kept.WINDOW]
    assert [one.relevance for one in shown.weighed([0.1, 0.2, 0.3, 0.1, 0.3])] == pytest.approx([0.4, 0.6])
    assert all(one.relevance is None for one in shown.weighed(None))


def test_a_keyframe_outside_its_cluster_is_a_moment_of_its_own() -> None:
    snapshot = memory(40)
    slot = int(snapshot.dam_slots[0])
    outside = int(snapshot.csm_end_ns[slot]) + 5 * SECOND_NS
    stamps_ns = torch.cat([torch.tensor([outside]), snapshot.dam_stamps_ns[1:]])
    shown = shown_moments(published(replace(snapshot, dam_stamps_ns=stamps_ns)))
    own = shown.moments[shown.of_slots[0]]
    assert (own.start_ns, own.stamp_ns, own.end_ns, own.weight) == (outside, outside, outside, 1)
    assert own.kept == Kept.DETAIL
    cluster = shown.moments[shown.of_slots[len(stamps_ns) + slot]]
    assert cluster.kept == Kept.SYNOPSIS
    assert cluster.weight == snapshot.csm_weights[slot]
    assert cluster.start_ns <= cluster.stamp_ns <= cluster.end_ns


def test_moments_know_where_they_were_seen() -> None:
    model = FakeModel(csm_slots=2, dam_slots=1)
    frames = [
        DecodedFrame(second * SECOND_NS, frame(second, value=second).image(), StepOrigin("camera", pose_at(second)))
        for second in range(100)
    ]
    for moment in shown_moments(EpisodeMemory(model, GRID, episode=0).add(frames)).moments:
        assert (moment.frame_id, moment.pose) == ("camera", pose_at(moment.stamp_ns // SECOND_NS))


def test_recalled_segments_are_moments_with_their_own_keyframes() -> None:
    snapshot = memory(3)
    none = snapshot.dam_steps[:0]
    snapshot = replace(snapshot, dam=snapshot.dam[:0], dam_steps=none, dam_slots=none, dam_stamps_ns=none)
    segments = tuple(
        Segment(
            start_ns=at * SECOND_NS,
            end_ns=(at + 9) * SECOND_NS,
            keyframe_ns=(at + 4) * SECOND_NS,
            weight=5,
            camera="",
            width=56,
            height=56,
            frame_id="camera",
        )
        for at in (100, 200, 300)
    )
    shown = shown_moments(replace(published(snapshot), recalled=segments))
    assert [(one.stamp_ns // SECOND_NS, one.weight) for one in shown.moments[1:]] == [(104, 5), (204, 5), (304, 5)]
    assert [one.kept for one in shown.moments] == [Kept.WINDOW, *[Kept.RECALLED] * 3]
    assert shown.of_slots == (1, 2, 3, 0), "the newest step is in none of them"


def test_the_most_relevant_come_first() -> None:
    moments = [Moment(second, second, second, 1.0, relevance=share) for second, share in enumerate((0.2, 0.5, 0.3))]
    assert [one.stamp_ns for one in most_relevant(moments, 2)] == [1, 2]
    assert most_relevant(moments, 0) == ()
    unranked = [Moment(second, second, second, weight) for second, weight in enumerate((1.0, 3.0, 3.0))]
    assert [one.stamp_ns for one in most_relevant(unranked, 5)] == [1, 2, 0]
