from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.recalled import NEWEST, RECALLED, SPACED, spaced
from fvs_ros.memory.snapshot import PatchGrid, StepFeatures
from fvs_ros.patrol.config import day_config
from fvs_ros.patrol.episode import Episode, simulate
from fvs_ros.patrol.questions import CLOCK_FAMILIES, Question, ask, step_ends
from fvs_ros.training.data.episodes import ShownSegments, TrainingEpisode, TrainingMoment
from fvs_ros.training.data.memories import memories
from fvs_ros.training.data.recall import (
    LONGEST_STEPS,
    PROOF,
    EpisodeSegments,
    RecalledMoments,
    recalled_moments,
    segment_questions,
)

Asked = list[tuple[int, list[Question]]]
STEP_NS = 2 * 10**9
# Of more segments than a memory shows, of which a day has hundreds.
STEPS = 1200


@pytest.fixture(scope="module")
def episode() -> Episode:
    return simulate(3, day_config(STEPS))


@pytest.fixture(scope="module")
def asked(episode: Episode) -> Asked:
    """A quarter before the end, and at the end."""
    ends = step_ends(episode)
    moments = [ends[len(ends) * 3 // 4], ends[-1]]
    return [(end, ask(episode, 24, CLOCK_FAMILIES, [end], number)) for number, end in enumerate(moments)]


@pytest.fixture(scope="module")
def recalled(episode: Episode, asked: Asked) -> RecalledMoments:
    return recalled_moments(episode, asked)


def steps_of(episode: Episode, start_ns: int, end_ns: int) -> set[int]:
    """The grid steps from one stamp to another."""
    first = int(episode.stamps_ns[0])
    return set(range((start_ns - first) // STEP_NS, (end_ns - first) // STEP_NS + 1))


def proof_of(episode: Episode, question: Question) -> set[int]:
    return {step for start, end in question.proof_ns for step in steps_of(episode, start, end)}


def shown_steps(episode: Episode, shown: ShownSegments) -> list[set[int]]:
    """The grid steps of each segment that a memory shows."""
    return [steps_of(episode, start, end) for start, end in zip(shown.start_ns, shown.end_ns, strict=True)]


def shown_of(moment: TrainingMoment) -> ShownSegments:
    assert moment.shown is not None
    return moment.shown


def test_segments_are_stays_and_the_ways_between_them(episode: Episode) -> None:
    segments = EpisodeSegments.of(episode)
    assert (segments.first[0], segments.last[-1]) == (0, STEPS - 1)
    assert (segments.first[1:] == segments.last[:-1] + 1).all()
    lengths = segments.last - segments.first + 1
    assert (lengths.min(), lengths.max()) == (1, LONGEST_STEPS)
    scenes = [(int(episode.views[2 * step + 1]), int(episode.visits[2 * step + 1])) for step in range(STEPS)]
    for first, last in zip(segments.first, segments.last, strict=True):
        assert len(set(scenes[first : last + 1])) == 1
    for before, after in itertools.pairwise(range(len(lengths))):
        assert scenes[segments.last[before]] != scenes[segments.first[after]] or lengths[before] == LONGEST_STEPS


def test_until_a_step_they_are_those_that_have_begun(episode: Episode) -> None:
    whole = EpisodeSegments.of(episode)
    number = int(np.flatnonzero(whole.last - whole.first >= 3)[5])
    within = int(whole.first[number]) + 2
    segments = whole.until(within)
    assert segments.first.tolist() == whole.first[: number + 1].tolist()
    assert segments.last.tolist() == [*whole.last[:number].tolist(), within]
    assert whole.until(int(whole.first[number]) - 1).last.tolist() == whole.last[:number].tolist()
    assert whole.until(STEPS - 1).last.tolist() == whole.last.tolist()


def test_showing_names_those_that_overlap_an_interval() -> None:
    segments = EpisodeSegments(np.array([0, 3, 5, 9]), np.array([2, 4, 8, 9]))
    assert segments.showing([]) == []
    assert segments.showing([(4, 4), (9, 12)]) == [1, 3]
    assert segments.showing([(2, 5)]) == [0, 1, 2]


def test_every_question_is_asked_once_of_a_memory_that_shows_its_proof(
    episode: Episode, asked: Asked, recalled: RecalledMoments
) -> None:
    whole = EpisodeSegments.of(episode)
    seen = 0
    for frame, questions in asked:
        total = len(whole.until(frame // 2).first)
        moments = [moment for moment in recalled.moments if moment.steps == (frame + 1) // 2]
        told = [one for moment in moments for one in moment.conversations]
        assert sorted(one.turns[0] for one in told) == sorted((one.question, one.answer_text) for one in questions)
        assert {one.family for one in told} == {one.family for one in questions}
        by_text = {one.question: one for one in questions}
        for moment in moments:
            shown = shown_steps(episode, shown_of(moment))
            for conversation in moment.conversations:
                proof = proof_of(episode, by_text[conversation.turns[0][0]])
                proving = len(whole.until(frame // 2).showing([(step, step) for step in proof]))
                found = sum(not proof.isdisjoint(steps) for steps in shown)
                if 2 * proving <= total:
                    assert found >= min(proving, PROOF)
                    seen += proving > 0
    assert seen > 20


def test_a_memory_shows_the_newest_the_spaced_and_as_many_others_as_it_can_recall(
    episode: Episode, recalled: RecalledMoments
) -> None:
    further = []
    for moment in recalled.moments:
        assert moment.steps is not None
        segments = EpisodeSegments.of(episode).until(moment.steps - 1)
        total = len(segments.first)
        starts = (episode.stamps_ns[2 * segments.first]).tolist()
        shown = [starts.index(start) for start in shown_of(moment).start_ns]
        assert shown == sorted(set(shown))
        always = {*range(total - NEWEST, total), *spaced(total, SPACED)}
        assert always <= set(shown)
        assert len(shown) <= len(always) + RECALLED
        further.append(len(shown) - len(always))
    # What is recalled wrongly beside the proofs is now much and now little.
    assert len(set(further)) > 1
    assert max(further) > 0


def test_a_memory_tells_when_what_it_shows_was(episode: Episode, recalled: RecalledMoments) -> None:
    """The last segment ends with the newest frame, however long the robot stays after that."""
    for moment in recalled.moments:
        shown = shown_of(moment)
        steps = shown_steps(episode, shown)
        assert shown.steps == moment.steps
        assert steps[-1] >= {shown.steps - 1}
        assert max(steps[-1]) == shown.steps - 1
        assert list(shown.times) == [(min(one) + max(one)) / 2 for one in steps]
        for start, end in zip(shown.start_ns, shown.end_ns, strict=True):
            assert (end - start) % STEP_NS == STEP_NS // 2


def test_only_what_some_memory_shows_is_drawn(episode: Episode, recalled: RecalledMoments) -> None:
    used = set()
    for moment in recalled.moments:
        shown = shown_of(moment)
        used |= {*shown.places, *shown.window}
        for place, steps in zip(shown.places, shown_steps(episode, shown), strict=True):
            assert recalled.steps[place] in steps
            assert abs(recalled.steps[place] - (min(steps) + max(steps)) / 2) <= 0.5
        assert [recalled.steps[place] for place in shown.window] == [shown.steps - 1]
    assert sorted(used) == list(range(len(recalled.steps)))
    assert list(recalled.steps) == sorted(set(recalled.steps))
    assert len(recalled.steps) < STEPS / 2


def test_the_same_questions_are_dealt_in_the_same_way(
    episode: Episode, asked: Asked, recalled: RecalledMoments
) -> None:
    assert recalled_moments(episode, asked) == recalled
    assert recalled_moments(simulate(3, day_config(STEPS)), asked) == recalled
    assert recalled_moments(episode, []) == RecalledMoments((), ())


def test_a_short_stream_is_shown_as_a_whole() -> None:
    short = simulate(3, day_config(60))
    ends = step_ends(short)
    found = recalled_moments(short, [(ends[-1], ask(short, 6, moments=[ends[-1]]))])
    (moment,) = found.moments
    assert set.union(*shown_steps(short, shown_of(moment))) == set(range(60))


def test_recall_learns_from_what_part_of_the_segments_proves(episode: Episode, asked: Asked) -> None:
    whole = EpisodeSegments.of(episode)
    found = segment_questions(episode, asked)
    assert found == segment_questions(episode, asked)
    spans = [steps_of(episode, start, end) for start, end in zip(found.start_ns, found.end_ns, strict=True)]
    assert spans == [set(range(first, last + 1)) for first, last in zip(whole.first, whole.last, strict=True)]
    expected = []
    for frame, questions in asked:
        total = len(whole.until(frame // 2).first)
        for question in questions:
            proof = proof_of(episode, question)
            proving = tuple(number for number in range(total) if not proof.isdisjoint(spans[number]))
            if 0 < len(proving) <= total / 2:
                expected.append((question.question, question.family, total, int(episode.stamps_ns[frame]), proving))
    assert [dataclasses.astuple(one) for one in found.questions] == expected
    assert len(expected) > 20
    assert len(expected) < sum(len(questions) for _, questions in asked)


def test_the_memory_of_a_moment_holds_what_it_shows() -> None:
    grid, config = PatchGrid(8, 8), FlashMemoryConfig(csm_slots=2, dam_slots=1, window_slots=1)
    random = torch.Generator().manual_seed(0)
    features = StepFeatures(
        torch.randn(4, grid.patches, 6, generator=random), torch.randn(4, grid.low_patches, 6, generator=random)
    )
    moments = tuple(
        TrainingMoment(steps, (), ShownSegments(places, window, steps, times, stamps, tuple(one + 5 for one in stamps)))
        for places, window, steps, times, stamps in (
            ((0, 2), (3,), 900, (4.5, 899.0), (10, 1800)),
            ((1,), (2,), 700, (7.0,), (14,)),
        )
    )
    episode = TrainingEpisode("day", "day", tuple(range(8)), moments)
    first, second = memories(features, episode, grid, config)
    assert first.ranked
    assert second.ranked
    assert torch.equal(first.csm, features.low[[0, 2]])
    assert torch.equal(first.window, features.high[[3]])
    assert (first.steps, first.csm_times.tolist()) == (900, [4.5, 899.0])
    assert (first.csm_start_ns.tolist(), first.csm_end_ns.tolist()) == ([10, 1800], [15, 1805])
    assert torch.equal(second.csm, features.low[[1]])
    assert torch.equal(second.window, features.high[[2]])
    without = dataclasses.replace(config, window_slots=0)
    assert memories(features, episode, grid, without)[0].window.shape == (0, grid.patches, 6)
