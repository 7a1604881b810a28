"""What questions about long patrols would recall: which segments their memory shows, as the simulator knows them.

Only these are drawn, so that a question about a day costs no more than one about some minutes. The segments are the
robot's stays at its views and the ways between them, which is what the segmenter cuts a stream into.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fvs_ros.memory.recalled import NEWEST, RECALLED, SPACED, spaced
from fvs_ros.patrol.config import STEP_S
from fvs_ros.patrol.episode import Episode
from fvs_ros.patrol.questions import Question
from fvs_ros.patrol.world import Stream, generator
from fvs_ros.sources.frame import SECOND_NS
from fvs_ros.training.data.episodes import (
    Conversation,
    ShownSegments,
    TrainingMoment,
)
from fvs_ros.training.objectives.segment_recall import SegmentQuestion, SegmentQuestions

PROOF = 20
"""Most segments of one question's proof: of more, evenly spaced ones."""
LONGEST_STEPS = 30
"""A stay is cut into segments of at most so many grid steps."""


@dataclass(frozen=True)
class EpisodeSegments:
    """The segments of an episode, in order.

    Attributes:
        first, last: [n] grid steps that each begins and ends with.
    """

    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, episode: Episode) -> EpisodeSegments:
        """Cuts an episode at 1 frame per second."""
        steps = slice(STEP_S - 1, None, STEP_S)
        scenes = np.stack([episode.views[steps], episode.visits[steps]])
        changed = (scenes[:, 1:] != scenes[:, :-1]).any(0)
        bounds = [0, *(np.flatnonzero(changed) + 1).tolist(), scenes.shape[1]]
        first = np.concatenate([np.arange(begin, end, LONGEST_STEPS) for begin, end in itertools.pairwise(bounds)])
        return cls(first, np.append(first[1:], scenes.shape[1]) - 1)

    def until(self, step: int) -> EpisodeSegments:
        """Those that have begun by a step, which ends the last of them."""
        count = int(np.searchsorted(self.first, step, side="right"))
        return EpisodeSegments(self.first[:count], np.minimum(self.last[:count], step))

    def showing(self, intervals: Iterable[tuple[int, int]]) -> list[int]:
        """Numbers of those that overlap any interval of steps, both ends included."""
        shown = np.zeros(len(self.first), dtype=bool)
        for begin, end in intervals:
            shown |= (self.first <= end) & (self.last >= begin)
        return np.flatnonzero(shown).tolist()

    def shown(self, recall: Recall) -> list[int]:
        """The grid step that stands for each segment of a memory: the one in its middle."""
        numbers = list(recall.segments)
        return ((self.first[numbers] + self.last[numbers]) // 2).tolist()


@dataclass(frozen=True)
class Recall:
    """Questions that share a memory, and the segments that it shows.

    Attributes:
        questions: at one moment.
        segments: numbers, in order.
    """

    questions: tuple[Question, ...]
    segments: tuple[int, ...]


@dataclass(frozen=True)
class RecalledMoments:
    """The moments of a long patrol, and the grid steps that are drawn for them, in order."""

    steps: tuple[int, ...]
    moments: tuple[TrainingMoment, ...]


def recalled_moments(episode: Episode, asked: Sequence[tuple[int, Sequence[Question]]]) -> RecalledMoments:
    """Deals questions into memories of what they recall, and of what is recalled beside it.

    Args:
        episode: at 1 frame per second.
        asked: frames that end a grid step, each with the questions that are asked then.
    """
    every = EpisodeSegments.of(episode)
    found: list[tuple[int, EpisodeSegments, Recall]] = []
    for frame, questions in asked:
        segments = every.until(frame // STEP_S)
        random = generator(episode.world.seed, Stream.QUESTIONS, frame, 1)
        found += [(frame // STEP_S, segments, one) for one in recalls(questions, segments, episode, random)]
    drawn = sorted({step for newest, segments, one in found for step in (newest, *segments.shown(one))})
    places = {step: place for place, step in enumerate(drawn)}
    moments = tuple(
        TrainingMoment(newest + 1, conversations(one.questions), _shown(episode, newest, segments, one, places))
        for newest, segments, one in found
    )
    return RecalledMoments(tuple(drawn), moments)


def segment_questions(episode: Episode, asked: Sequence[tuple[int, Sequence[Question]]]) -> SegmentQuestions:
    """Questions and the segments that prove their answers, of those that are not proved by most of what was seen.

    Args:
        episode: at 1 frame per second.
        asked: frames that end a grid step, each with the questions that are asked then.
    """
    every = EpisodeSegments.of(episode)
    found = []
    for frame, questions in asked:
        segments = every.until(frame // STEP_S)
        total, now_ns = len(segments.first), int(episode.stamps_ns[frame])
        for question in questions:
            proof = segments.showing(_steps(episode, question))
            if proof and 2 * len(proof) <= total:
                found.append(SegmentQuestion(question.question, question.family, total, now_ns, tuple(proof)))
    return SegmentQuestions(
        start_ns=tuple(episode.stamps_ns[STEP_S * every.first].tolist()),
        end_ns=tuple(episode.stamps_ns[STEP_S * every.last + STEP_S - 1].tolist()),
        questions=tuple(found),
    )


def _steps(episode: Episode, question: Question) -> list[tuple[int, int]]:
    """The grid steps of a question's proof."""
    begin_ns, step_ns = int(episode.stamps_ns[0]), STEP_S * SECOND_NS
    return [((start - begin_ns) // step_ns, (end - begin_ns) // step_ns) for start, end in question.proof_ns]


def conversations(questions: Iterable[Question]) -> tuple[Conversation, ...]:
    """One for each question."""
    return tuple(Conversation(((one.question, one.answer_text),), one.family, tuple(one.proof_ns)) for one in questions)


def _shown(
    episode: Episode, newest: int, segments: EpisodeSegments, recall: Recall, places: Mapping[int, int]
) -> ShownSegments:
    numbers = list(recall.segments)
    first, last = segments.first[numbers], segments.last[numbers]
    return ShownSegments(
        places=tuple(places[step] for step in segments.shown(recall)),
        window=(places[newest],),
        steps=newest + 1,
        times=tuple(((first + last) / 2).tolist()),
        start_ns=tuple(episode.stamps_ns[STEP_S * first].tolist()),
        end_ns=tuple(episode.stamps_ns[STEP_S * last + STEP_S - 1].tolist()),
    )


def recalls(
    questions: Sequence[Question], segments: EpisodeSegments, episode: Episode, random: np.random.Generator
) -> list[Recall]:
    """Deals questions into memories that show the proof of each, and what was recalled wrongly: of the others.

    Args:
        questions: at one moment.
        segments: until then.
        episode: that they are about.
        random: chooses further segments.
    """
    total = len(segments.first)
    always = {*range(max(0, total - NEWEST), total), *spaced(total, SPACED)}
    dealt: list[Recall] = []
    group: list[Question] = []
    recalled: set[int] = set()
    proofs: list[tuple[Question, set[int]]] = []
    for question in questions:
        found = segments.showing(_steps(episode, question))
        # What proves that something was nowhere is all that was seen; any part of it does.
        if 2 * len(found) > total:
            found = []
        proofs.append((question, {found[place] for place in spaced(len(found), PROOF)} - always))
    # Short proofs side by side: so memories are fewer.
    for question, wanted in sorted(proofs, key=lambda pair: len(pair[1])):
        if group and len(recalled | wanted) > RECALLED:
            dealt.append(_recall(group, recalled, always, total, random))
            group, recalled = [], set()
        group.append(question)
        recalled |= wanted
    return [*dealt, _recall(group, recalled, always, total, random)] if group else dealt


def _recall(
    group: Sequence[Question], recalled: set[int], always: set[int], total: int, random: np.random.Generator
) -> Recall:
    others = np.setdiff1d(np.arange(total), [*recalled, *always])
    # As often few as many: where little is like the question, little more than the proof is recalled.
    most = min(RECALLED - len(recalled), len(others))
    wrong = random.choice(others, random.integers(most + 1), replace=False).tolist() if most > 0 else []
    return Recall(tuple(group), tuple(sorted({*recalled, *always, *wrong})))
