"""Held-out patrols: episodes made from their seeds, asked about at moments that are spread over them."""

from __future__ import annotations

import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.timed.stream_run import RunOptions, StreamQuestion, StreamRun
from fvs_ros.patrol.config import FRAME_SIZE, PatrolConfig, Wording
from fvs_ros.patrol.episode import Episode, simulate
from fvs_ros.patrol.questions import (
    FAMILIES,
    HELD_OUT_KINDS,
    OUTSIDE,
    Question,
    ask,
    check_families,
    guesses,
    step_ends,
)
from fvs_ros.patrol.vocabulary import OUTSIDE_ANSWER
from fvs_ros.sources.frame import Frame
from fvs_ros.stream.model_protocol import StreamModel

if TYPE_CHECKING:
    from fvs_ros.patrol.render import PatrolRenderer

GUESS = "guess"
# Between the lengths that episodes take by turns, in grid steps.
STRIDE = 50
# Below the seeds for tests; what is learnt of them is which answers are frequent.
_GUESS_SEED, GUESS_EPISODES, _GUESS_QUESTIONS = 800_000, 40, 200


EpisodeRows = Mapping[str, Sequence[AnswerRow]]
"""What came of one episode: the rows of each condition, by its name."""


@dataclass(frozen=True)
class PatrolPlan:
    """What is asked of an episode.

    Attributes:
        questions: of each episode; as many of each family as there are.
        moments: at which they are asked, evenly spread, the last one at the end.
        shortest, longest: bounds on an episode's length in grid steps; it follows from the seed, so that any set of
            seeds gives the same episodes.
        phrasings: whose words the questions are in, a value of `Wording`. All but the original ones also ask from
            outside the patrol, as one more family.
        families: families or single templates that are asked; empty for all.

    Raises:
        ValueError: for a number below 1, lengths the wrong way round, or unknown phrasings.
        PatrolError: for an unknown family, or one that these phrasings have no words for.
    """

    questions: int = 56
    moments: int = 10
    shortest: int = 200
    longest: int = 600
    phrasings: str = Wording.ORIGINAL.value
    families: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("questions", "moments", "shortest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.longest < self.shortest:
            raise ValueError(f"lengths from {self.shortest} to {self.longest} steps; the longest must not be shorter")
        known = [wording.value for wording in Wording]
        if self.phrasings not in known:
            raise ValueError(f"phrasings is {self.phrasings!r}; choose from {', '.join(known)}")
        check_families(self.asked_families, self.wording)

    @property
    def wording(self) -> Wording:
        """Whose words the questions are in."""
        return Wording(self.phrasings)

    @property
    def asked_families(self) -> tuple[str, ...]:
        """The families that are asked, all of them written out."""
        return self.families or (FAMILIES if self.wording is Wording.ORIGINAL else (*FAMILIES, OUTSIDE))

    def steps(self, seed: int) -> int:
        """The length of a seed's episode in grid steps."""
        lengths = range(self.shortest, self.longest + 1, STRIDE)
        return lengths[seed % len(lengths)]

    def episode(self, seed: int) -> Episode:
        """The episode of a seed.

        Raises:
            PatrolError: for a seed below 0, or a length that no patrol can have.
        """
        return simulate(seed, PatrolConfig(steps=self.steps(seed)))

    def ask(self, episode: Episode) -> list[Question]:
        """The questions about an episode."""
        ends = step_ends(episode)
        count = min(self.moments, len(ends))
        moments = [ends[len(ends) * (n + 1) // count - 1] for n in range(count)]
        return ask(episode, self.questions, self.asked_families, moments, wording=self.wording)


def timed(question: Question) -> TimedQuestion:
    """A question as it is scored: by its text, since a choice would be read less strictly.

    Kinds of questions from outside that no training sees are a family of their own.
    """
    family = f"{OUTSIDE}, kinds held out" if question.template in HELD_OUT_KINDS else question.family
    return replace(question, choices=(), answer=question.answer_text, family=family)


def declined(questions: Sequence[Question], rows: Mapping[str, AnswerRow]) -> tuple[int, int]:
    """How many questions about the patrol were taken for ones from outside, and how many there are."""
    inside = [question for question in questions if question.family != OUTSIDE]
    taken = [one for one in inside if one.id in rows and rows[one.id].response == OUTSIDE_ANSWER]
    return len(taken), len(inside)


def answer_episode(
    model: StreamModel, options: RunOptions, plan: PatrolPlan, seed: int, renderer: PatrolRenderer
) -> EpisodeRows:
    """Runs one episode through a model.

    Raises:
        RenderError: it cannot be drawn here.
    """
    episode = plan.episode(seed)
    questions = {question.id: timed(question) for question in plan.ask(episode)}
    asked = [StreamQuestion(one.id, one.time_ns, one.question) for one in questions.values()]
    rows: defaultdict[str, list[AnswerRow]] = defaultdict(list)
    for reply in StreamRun(model, options).replies(_frames(episode, renderer), asked):
        question = questions[reply.question.id]
        rows[reply.condition.name].append(reply.row(question.id, question.question, question.answer))
    return dict(rows)


def _frames(episode: Episode, renderer: PatrolRenderer) -> Iterator[Frame]:
    """Frames drawn as they are read: on the caller's thread, where the renderer's context lives."""
    for stamp, image in zip(episode.stamps_ns.tolist(), renderer.frames(episode), strict=True):
        yield Frame(stamp, lambda image=image: image)  # type: ignore[misc]


def answer_episodes(
    load: Callable[[], StreamModel],
    options: RunOptions,
    plan: PatrolPlan,
    seeds: Sequence[int],
    workers: int,
) -> Iterator[EpisodeRows]:
    """Runs episodes, in this process or in several; they come as they are done.

    Args:
        load: makes the model, once a process; for several workers something that can be pickled.
        options: conditions and how the stream is taken in.
        plan: what is asked.
        seeds: of the episodes.
        workers: processes.

    Raises:
        RenderError: episodes cannot be drawn here.
        CheckpointError: from `load`.
    """
    if not seeds:
        return
    if workers <= 1 or len(seeds) <= 1:
        yield from map(_worker(load, options, plan), seeds)
        return
    # Not forked: neither torch's threads nor an OpenGL context outlive that.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(seeds)), context, _start_worker, (load, options, plan)) as pool:
        pending = [pool.submit(_work, seed) for seed in seeds]
        try:
            for done in as_completed(pending):
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _worker(load: Callable[[], StreamModel], options: RunOptions, plan: PatrolPlan) -> Callable[[int], EpisodeRows]:
    """Runs the episode of a seed, with a model and a renderer that are made once."""
    from fvs_ros.patrol.render import shared_renderer

    renderer = shared_renderer(FRAME_SIZE)
    return partial(answer_episode, load(), options, plan, renderer=renderer)


_worker_arguments: tuple[Callable[[], StreamModel], RunOptions, PatrolPlan] | None = None


def _start_worker(load: Callable[[], StreamModel], options: RunOptions, plan: PatrolPlan) -> None:
    import torch

    torch.set_num_threads(1)
    global _worker_arguments
    _worker_arguments = (load, options, plan)


@cache
def _process_worker() -> Callable[[int], EpisodeRows]:
    """Made with the first episode and not at the process's start, where an error would only break the pool."""
    assert _worker_arguments is not None
    return _worker(*_worker_arguments)


def _work(seed: int) -> EpisodeRows:
    return _process_worker()(seed)


def guessed(plan: PatrolPlan, asked: Sequence[Question]) -> list[AnswerRow]:
    """Answers of a model without eyes: to each question the most frequent answer in other episodes."""
    known: list[Question] = []
    for seed in range(_GUESS_SEED, _GUESS_SEED + GUESS_EPISODES):
        episode = plan.episode(seed)
        known += ask(episode, _GUESS_QUESTIONS, plan.asked_families, wording=plan.wording)
    return [
        AnswerRow(question.id, question.question, question.answer_text, guess)
        for question, guess in zip(asked, guesses(known, asked), strict=True)
    ]
