from fakes import GRID, SECOND_NS, FakeModel, frame, pose_at

from fvs_ros.stream.episode_memory import DecodedFrame, EpisodeMemory
from fvs_ros.stream.evidence import shown_moments
from fvs_ros.stream.origins import StepOrigin, StepOrigins


def test_only_live_steps_survive_a_pruning() -> None:
    origins = StepOrigins(lambda: [1, 3, 99], prune_every=4)
    origins.add(0, [StepOrigin(str(step)) for step in range(3)])
    assert sorted(origins.view()) == [0, 1, 2]
    origins.add(3, [StepOrigin("3")])
    assert {step: origin.frame_id for step, origin in origins.view().items()} == {1: "1", 3: "3"}


def test_a_view_does_not_change_with_later_steps() -> None:
    origins = StepOrigins(list, prune_every=2)
    origins.add(0, [StepOrigin("0")])
    view = origins.view()
    origins.add(1, [StepOrigin("1")])
    assert view == {0: StepOrigin("0")}
    assert origins.view() == {}


def test_origins_stay_bounded_and_cover_every_keyframe_over_10_000_frames() -> None:
    memory = EpisodeMemory(FakeModel(csm_slots=2, dam_slots=2), GRID, episode=0)
    largest = 0
    for first in range(0, 10_000, 500):
        frames = [
            DecodedFrame(
                second * SECOND_NS,
                frame(second, value=second * 7919 % 256).image(),
                StepOrigin(f"camera{second}", pose_at(second)),
            )
            for second in range(first, first + 500)
        ]
        published = memory.add(frames)
        largest = max(largest, len(published.origins))
        for moment in shown_moments(published).moments:
            second = moment.stamp_ns // SECOND_NS
            assert (moment.frame_id, moment.pose) == (f"camera{second}", pose_at(second))
    assert published.status.steps == 5_000
    # At most 255 steps and a batch since the last pruning, and the steps that were live then, 3 of each micro-cluster.
    assert largest <= 255 + 250 + 3 * 21
