"""Held-out patrols: episodes made from their seeds, asked about at moments that are spread over them."""

from __future__ import annotations

import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, ClassVar

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.timed.chosen_steps import evenly_spaced, oracle_steps, random_steps
from fvs_ros.evaluation.timed.controls import TOLD, Condition, ConditionKind
from fvs_ros.evaluation.timed.stream_run import RunOptions, StreamQuestion, StreamRun
from fvs_ros.patrol.config import FRAME_SIZE, STEP_S, PatrolConfig, Wording, day_config
from fvs_ros.patrol.episode import Episode, simulate
from fvs_ros.patrol.questions import (
    CLOCK_FAMILIES,
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
from fvs_ros.sources.frame import SECOND_NS, Frame
from fvs_ros.stream.model_protocol import StreamModel

if TYPE_CHECKING:
    from fvs_ros.patrol.render import PatrolRenderer

GUESS = "guess"
# Between the lengths that episodes take by turns, in grid steps.
STRIDE = 50
# Below the seeds for tests; what is learnt of them is which answers are frequent.
_GUESS_SEED, GUESS_EPISODES, _GUESS_QUESTIONS = 800_000, 40, 200
_GUESS_DAYS, _GUESS_DAY_QUESTIONS = 4, 1000


EpisodeRows = Mapping[str, Sequence[AnswerRow]]
"""What came of one episode: the rows of each condition, by its name."""


@dataclass(frozen=True)
class EpisodeCost:
    """What an episode took.

    Attributes:
        steps: grid steps.
        draw_s, encode_s: seconds spent on drawing its frames, and on encoding them.
        total_s: seconds for all of it: simulation, memory and answers too.
    """

    steps: int
    draw_s: float
    encode_s: float
    total_s: float


@dataclass(frozen=True)
class EpisodeAnswers:
    """Answers about one episode, and what they took."""

    rows: EpisodeRows
    cost: EpisodeCost


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

    clock: ClassVar[bool] = False
    """Whether the patrols have a time of day."""

    def __post_init__(self) -> None:
        for name in ("questions", "moments", "shortest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.longest < self.shortest:
            raise ValueError(f"lengths from {self.shortest} to {self.longest} steps; the longest must not be shorter")
        known = [wording.value for wording in Wording]
        if self.phrasings not in known:
            raise ValueError(f"phrasings is {self.phrasings!r}; choose from {', '.join(known)}")
        check_families(self.asked_families, self.wording, self.clock)

    @property
    def wording(self) -> Wording:
        """Whose words the questions are in."""
        return Wording(self.phrasings)

    @property
    def asked_families(self) -> tuple[str, ...]:
        """The families that are asked, all of them written out."""
        own = CLOCK_FAMILIES if self.clock else FAMILIES
        return self.families or (own if self.wording is Wording.ORIGINAL else (*own, OUTSIDE))

    def steps(self, seed: int) -> int:
        """The length of a seed's episode in grid steps."""
        lengths = range(self.shortest, self.longest + 1, STRIDE)
        return lengths[seed % len(lengths)]

    def episode(self, seed: int) -> Episode:
        """The episode of a seed.

        Raises:
            PatrolError: for a seed below 0, or a length that no patrol can have.
        """
        return simulate(seed, self.config(seed))

    def config(self, seed: int) -> PatrolConfig:
        """The settings of a seed's episode."""
        return PatrolConfig(steps=self.steps(seed))

    def ask(self, episode: Episode) -> list[Question]:
        """The questions about an episode."""
        return ask(episode, self.questions, self.asked_families, self._moments(episode), wording=self.wording)

    @property
    def guess_episodes(self) -> int:
        """How many other episodes a guess knows."""
        return GUESS_EPISODES

    def guessable(self) -> list[Question]:
        """Questions about other episodes, whose answers a guess may count."""
        return [
            question
            for seed in range(_GUESS_SEED, _GUESS_SEED + self.guess_episodes)
            for question in ask(self.episode(seed), _GUESS_QUESTIONS, self.asked_families, wording=self.wording)
        ]

    def _moments(self, episode: Episode) -> list[int]:
        ends = step_ends(episode)
        count = min(self.moments, len(ends))
        return [ends[len(ends) * (n + 1) // count - 1] for n in range(count)]


@dataclass(frozen=True)
class DayPlan(PatrolPlan):
    """What is asked of a patrol with a clock, of one length; see `patrol.config.day_config`.

    Attributes:
        shortest, longest: both are the length that `hours` gives.
    """

    questions: int = 160
    moments: int = 20

    clock: ClassVar[bool] = True

    @classmethod
    def of(cls, hours: float, **settings: object) -> DayPlan:
        """The plan for a length in hours; `settings` are further fields.

        Raises:
            PatrolError: no patrol can be as long, or as short.
        """
        config = day_config(round(hours * 3600 / STEP_S))
        return cls(**{**settings, "shortest": config.steps, "longest": config.steps})  # type: ignore[arg-type]

    @property
    def hours(self) -> float:
        """The length of an episode."""
        return self.shortest * STEP_S / 3600

    @property
    def guess_episodes(self) -> int:
        """See `PatrolPlan.guess_episodes`: few, since days take a while."""
        return _GUESS_DAYS

    def config(self, seed: int) -> PatrolConfig:
        """See `PatrolPlan.config`."""
        return day_config(self.steps(seed))

    def guessable(self) -> list[Question]:
        """See `PatrolPlan.guessable`: at the plan's moments."""
        episodes = map(self.episode, range(_GUESS_SEED, _GUESS_SEED + self.guess_episodes))
        return [
            question
            for episode in episodes
            for question in ask(
                episode, _GUESS_DAY_QUESTIONS, self.asked_families, self._moments(episode), wording=self.wording
            )
        ]


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
) -> EpisodeAnswers:
    """Runs one episode through a model.

    Raises:
        RenderError: it cannot be drawn here.
    """
    begin = time.perf_counter()
    episode = plan.episode(seed)
    questions = {question.id: timed(question) for question in plan.ask(episode)}
    asked = [
        StreamQuestion(one.id, one.time_ns, one.question, steps=_told(plan, options, model, episode, one))
        for one in questions.values()
    ]
    rows: defaultdict[str, list[AnswerRow]] = defaultdict(list)
    run, drawing = StreamRun(model, options), _Drawing(episode, renderer)
    for reply in run.replies(drawing.frames(), asked):
        question = questions[reply.question.id]
        rows[reply.condition.name].append(reply.row(question.id, question.question, question.answer))
    cost = EpisodeCost(episode.config.steps, drawing.seconds, run.encode_s, time.perf_counter() - begin)
    return EpisodeAnswers(dict(rows), cost)


def _told(
    plan: PatrolPlan, options: RunOptions, model: StreamModel, episode: Episode, question: TimedQuestion
) -> dict[str, tuple[int, ...]]:
    """The steps that a question names for conditions that are told them.

    With a clock, evenly spaced ones are among them: of a day they would not all stay in memory until then.
    """
    step_ns = STEP_S * SECOND_NS
    begin_ns, slots = int(episode.stamps_ns[0]), model.memory_config.csm_slots
    total = (question.time_ns - begin_ns) // step_ns + 1

    def steps(condition: Condition) -> list[int]:
        if condition.kind is ConditionKind.ORACLE:
            proof = [((start - begin_ns) // step_ns, (end - begin_ns) // step_ns) for start, end in question.proof_ns]
            return oracle_steps(total, slots, proof)
        if condition.kind is ConditionKind.RANDOM:
            return random_steps(total, slots, episode.world.seed)
        return evenly_spaced(total, slots)

    kinds = (*TOLD, ConditionKind.UNIFORM) if plan.clock else TOLD
    return {one.name: tuple(steps(one)) for one in options.conditions if one.kind in kinds}


class _Drawing:
    """Frames drawn as they are read: on the caller's thread, where the renderer's context lives.

    Attributes:
        seconds: that it took so far.
    """

    def __init__(self, episode: Episode, renderer: PatrolRenderer) -> None:
        self._episode = episode
        self._renderer = renderer
        self.seconds = 0.0

    def frames(self) -> Iterator[Frame]:
        """All of them."""
        images = self._renderer.frames(self._episode)
        for stamp in self._episode.stamps_ns.tolist():
            begin = time.perf_counter()
            image = next(images)
            self.seconds += time.perf_counter() - begin
            yield Frame(stamp, lambda image=image: image)  # type: ignore[misc]


def answer_episodes(
    load: Callable[[], StreamModel],
    options: RunOptions,
    plan: PatrolPlan,
    seeds: Sequence[int],
    workers: int,
) -> Iterator[EpisodeAnswers]:
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


def _worker(load: Callable[[], StreamModel], options: RunOptions, plan: PatrolPlan) -> Callable[[int], EpisodeAnswers]:
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
def _process_worker() -> Callable[[int], EpisodeAnswers]:
    """Made with the first episode and not at the process's start, where an error would only break the pool."""
    assert _worker_arguments is not None
    return _worker(*_worker_arguments)


def _work(seed: int) -> EpisodeAnswers:
    return _process_worker()(seed)


def guessed(plan: PatrolPlan, asked: Sequence[Question]) -> list[AnswerRow]:
    """Answers of a model without eyes: to each question the most frequent answer in other episodes."""
    known = plan.guessable()
    return [
        AnswerRow(question.id, question.question, question.answer_text, guess)
        for question, guess in zip(asked, guesses(known, asked), strict=True)
    ]
