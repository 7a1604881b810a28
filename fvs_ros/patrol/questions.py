"""Questions about an episode: which are asked, when, with what exact answer and what proof.

Answers cannot be guessed from the wording: within each template every answer that is possible at a few random moments
is equally likely to be asked for, and "no" and "not seen" come from names whose colour and kind were both seen.
`guesses` measures what is left.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.patrol import templates_outside, templates_range, templates_seen, templates_story, templates_time
from fvs_ros.patrol.clock import DAY_S, RECENT, clock_words
from fvs_ros.patrol.config import STEP_S, Wording
from fvs_ros.patrol.episode import Episode
from fvs_ros.patrol.errors import PatrolError
from fvs_ros.patrol.motion import NOWHERE
from fvs_ros.patrol.orthography import CONTRACTED_TOKENS
from fvs_ros.patrol.phrasings import wordings
from fvs_ros.patrol.templates import HERE, NOT_SEEN, NOTHING, YES_NO, Candidate, Frames, Template, with_article
from fvs_ros.patrol.truth import EpisodeRecord
from fvs_ros.patrol.vocabulary import (
    AGES,
    COLOURS,
    CORRIDOR,
    DURATIONS,
    KINDS,
    LONG_AGES,
    LONG_DURATIONS,
    NUMBERS,
    OUTSIDE_ANSWER,
    PARTS,
    PLURALS,
    ROOMS,
    TENS,
)
from fvs_ros.patrol.world import Stream, generator

TEMPLATES = (
    *templates_seen.TEMPLATES,
    *templates_story.TEMPLATES,
    *templates_time.TEMPLATES,
    *templates_outside.TEMPLATES,
)
CLOCK_TEMPLATES = (*TEMPLATES, *templates_range.TEMPLATES)
"""Those of an episode with a clock."""
FAMILIES = ("now", "recall", "order", "count", "change", "time", "description")
"""Of the questions about a patrol."""
CLOCK_FAMILIES = (*FAMILIES, templates_range.FAMILY)
"""Of the questions about a patrol with a clock."""
OUTSIDE = templates_outside.FAMILY
"""The family of questions that no patrol answers."""
HELD_OUT_KINDS = frozenset(template.name for template in templates_outside.TEMPLATES if template.held_out)
"""The kinds of them that no training sees."""

MOST_QUESTIONS = 10_000
_POOLED_MOMENTS = 8
_ATTEMPTS = 30
_FEWEST_SAME = 4


@dataclass(frozen=True, kw_only=True)
class Question(TimedQuestion):
    """A question asked at a moment of an episode, on its clock. Seed and number make its id unique among all episodes.

    Attributes:
        frame: index of the newest frame when it is asked; the last of a grid step.
        template: what it was made from, `family.what`.
    """

    frame: int
    template: str


def step_ends(episode: Episode) -> list[int]:
    """The frames that end a grid step of an episode at 1 frame per second: the moments when questions are asked."""
    rate = episode.config.frame_rate
    return list(range((STEP_S - 1) * rate, len(episode), STEP_S * rate))


def steady_ends(episode: Episode, seconds: int) -> list[int]:
    """Those of `step_ends` after which the robot keeps its view for this long, so that answers stay true meanwhile.

    A live stream continues while it is asked about.
    """
    ahead = seconds * episode.config.frame_rate
    views, visits = episode.views, episode.visits
    return [
        end
        for end in step_ends(episode)
        if end + ahead < len(episode)
        and views[end] != NOWHERE
        and (views[end : end + ahead + 1] == views[end]).all()
        and (visits[end : end + ahead + 1] == visits[end]).all()
    ]


def check_families(families: Sequence[str], wording: Wording = Wording.ORIGINAL, clock: bool = False) -> None:
    """Refuses an empty list, a name that is neither a family's nor a template's, and one without words in a wording.

    Args:
        families: of questions, or names of templates.
        wording: whose words they are in.
        clock: whether the patrols have a clock.

    Raises:
        PatrolError: for these.
    """
    templates, own = (CLOCK_TEMPLATES, CLOCK_FAMILIES) if clock else (TEMPLATES, FAMILIES)
    unknown = sorted(set(families) - {*own, OUTSIDE, *(template.name for template in templates)})
    if unknown or not families:
        problem = f"families {', '.join(unknown)} are unknown" if unknown else "no family is asked for"
        known = f"{', '.join(own)}, {OUTSIDE}, or single templates such as {TEMPLATES[0].name}"
        raise PatrolError(f"{problem}; choose from {known}")
    wordless = sorted(family for family in families if not _askable(family, wording, clock))
    if wordless:
        raise PatrolError(
            f"{', '.join(wordless)} cannot be asked in {wording.value} phrasings, which have no words for that; choose "
            "other phrasings"
        )


def ask(
    episode: Episode,
    count: int,
    families: Sequence[str] = FAMILIES,
    moments: Sequence[int] | None = None,
    draw: int = 0,
    wording: Wording = Wording.ORIGINAL,
) -> list[Question]:
    """Draws questions, as many of each family as there are, in the order of their stamps.

    Args:
        episode: what they are about.
        count: number of questions; fewer if an episode does not hold enough (a short one has no changes).
        families: some of `FAMILIES` and `OUTSIDE`, or of the names of `TEMPLATES` where only some of a family are
            wanted; of `CLOCK_FAMILIES` and `CLOCK_TEMPLATES` where the episode has a clock.
        moments: frames after which they may be asked, from `step_ends`, which is the default.
        draw: each number draws other questions.
        wording: whose words they are in.

    Raises:
        PatrolError: for a family that is unknown or has no words in this wording, a moment that ends no step, or more
            than `MOST_QUESTIONS`.
    """
    check_families(families, wording, episode.config.clock)
    if not 0 <= count <= MOST_QUESTIONS:
        raise PatrolError(f"{count} questions are asked for; at most {MOST_QUESTIONS} can be drawn of an episode")
    ends = step_ends(episode)
    moments = ends if moments is None else list(moments)
    strange = sorted(set(moments) - set(ends))
    if strange or not moments:
        raise PatrolError(f"moments {strange or moments} end no grid step; choose some of step_ends(episode)")
    random = generator(episode.world.seed, Stream.QUESTIONS, draw)
    record = EpisodeRecord(episode)
    drawn: dict[tuple[int, str], Question] = {}
    counts = dict.fromkeys(families, 0)
    tries = dict.fromkeys(families, _ATTEMPTS + 4 * count // len(families))
    while len(drawn) < count and tries:
        family = min(tries, key=lambda name: counts[name])
        found = _draw(record, family, moments, random, wording)
        if found is not None and (found.frame, found.question) not in drawn:
            drawn[found.frame, found.question] = found
            counts[family] += 1
        tries[family] -= 1
        if not tries[family]:
            del tries[family]
    ordered = [drawn[key] for key in sorted(drawn)]
    return [replace(found, id=f"{episode.world.seed}-{draw}-{number:04d}") for number, found in enumerate(ordered)]


def _draw(
    record: EpisodeRecord, family: str, moments: Sequence[int], random: np.random.Generator, wording: Wording
) -> Question | None:
    """One question of a family or template, without its id, or nothing where the moments looked at hold none."""
    clock = record.episode.config.clock
    templates = _askable(family, wording, clock)
    template = templates[random.integers(len(templates))]
    pool: dict[str, list[tuple[int, Candidate]]] = {}
    for moment in random.permutation(len(moments))[:_POOLED_MOMENTS]:
        frame = moments[moment]
        for candidate in template.find(record.until(frame), random):
            pool.setdefault(candidate.answer, []).append((frame, candidate))
    # With nothing to weigh them against, these would be the frequent answers.
    if set(pool) <= {*YES_NO, NOTHING, NOT_SEEN} and len(pool) < 2:
        return None
    answers = sorted(pool)
    same = pool[answers[random.integers(len(answers))]]
    frame, candidate = same[random.integers(len(same))]
    stamps_ns, choices = record.episode.stamps_ns.tolist(), candidate.choices
    return Question(
        id="",
        time_ns=stamps_ns[frame],
        relative=False,
        question=template.question(candidate.gaps, wording, random),
        choices=choices,
        answer=choices.index(candidate.answer) if choices else candidate.answer,
        proof_ns=tuple((stamps_ns[start], stamps_ns[end]) for start, end in candidate.proof),
        family=template.family,
        exposure_s=_exposure_s(record.episode, frame, candidate.proof) if clock else None,
        frame=frame,
        template=template.name,
    )


def _exposure_s(episode: Episode, frame: int, proof: Frames) -> float | None:
    """Seconds that a proof was in view; None for all that was seen, which proves that something was not there."""
    frames = {number for start, end in proof for number in range(start, end + 1)}
    return None if len(frames) > frame else len(frames) / episode.config.frame_rate


@cache
def _askable(family: str, wording: Wording, clock: bool) -> tuple[Template, ...]:
    """The templates of a family, or that of a name, which a wording has words for."""
    return tuple(
        template
        for template in (CLOCK_TEMPLATES if clock else TEMPLATES)
        if family in (template.family, template.name) and template.has(wording)
    )


_TOKEN = re.compile(r"[A-Za-z]+|[^\sA-Za-z]")
_GAP = re.compile(r"\{\w+\}")


def tokens(text: str) -> list[str]:
    """Words and punctuation marks of a question or an answer, as a tokenizer by words would split them."""
    return _TOKEN.findall(text)


def words() -> tuple[str, ...]:
    """Every token that a question or an answer can hold, as it may be written, sorted."""
    texts: list[str] = [_GAP.sub(" ", phrasing) for template in CLOCK_TEMPLATES for phrasing in template.phrasings]
    texts += [_GAP.sub(" ", text) for text in wordings()]
    texts += [*KINDS, *PLURALS.values(), *COLOURS, *ROOMS, CORRIDOR, *NUMBERS, *PARTS, *YES_NO, NOT_SEEN, NOTHING, HERE]
    texts += [text for _, text in (*AGES, *DURATIONS, *LONG_AGES, *LONG_DURATIONS, *RECENT)]
    texts += [*TENS, "hour and a half", "in the last hour", "yesterday today between one and two"]
    texts += [f"It is {clock_words(second)}." for second in range(0, DAY_S, 300)]
    texts += [with_article(colour) for colour in COLOURS]
    texts += ["one, two and three", "added removed moved in the", "less than one minute ago", "two minutes ago"]
    texts += ["kitchen with nothing, then office", OUTSIDE_ANSWER, "colour colours coloured color colors colored"]
    found = {token for text in texts for token in tokens(text)}
    found |= {form for token in found for form in (token.capitalize(), token.lower())}
    return tuple(sorted({*found, *CONTRACTED_TOKENS}))


def guesses(known: Iterable[Question], asked: Iterable[Question]) -> list[str]:
    """The most frequent answer to the same words, for each question asked, without any picture.

    Args:
        known: questions whose answers may be counted, of other episodes than `asked`. A wording that occurs fewer
            than 4 times among them is guessed by its template's most frequent answer.
        asked: questions to guess.
    """
    by_text: defaultdict[str, Counter[str]] = defaultdict(Counter)
    by_template: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for question in known:
        by_text[question.question][question.answer_text] += 1
        by_template[question.template][question.answer_text] += 1
    found = []
    for question in asked:
        same = by_text[question.question]
        counts = same if same.total() >= _FEWEST_SAME else by_template[question.template]
        found.append(max(sorted(counts), key=lambda answer: counts[answer], default=""))
    return found
