"""What a question is made from: phrasings with gaps, and the candidates that fill them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from fvs_ros.patrol.config import Wording
from fvs_ros.patrol.phrasings import phrase
from fvs_ros.patrol.truth import STEADY_S, EpisodeTruth, Sighting, Stay
from fvs_ros.patrol.vocabulary import COLOURS, KINDS, joined

YES_NO = ("yes", "no")
NOT_SEEN = "not seen"
NOTHING = "nothing"
HERE = "here"

Frames = tuple[tuple[int, int], ...]
"""Intervals of frames, both ends included."""


@dataclass(frozen=True)
class Candidate:
    """One question that could be asked now, with its exact answer.

    Attributes:
        gaps: what fills the phrasings' gaps.
        answer: the right answer.
        proof: intervals of frames that show it.
        choices: the possible answers where the question leaves only these, else empty.
    """

    gaps: dict[str, str]
    answer: str
    proof: Frames
    choices: tuple[str, ...] = ()


Finder = Callable[..., Iterator[Candidate]]
"""Gives the candidates of a moment, from its `EpisodeTruth` and a `np.random.Generator`."""


@dataclass(frozen=True)
class Template:
    """A kind of question.

    Attributes:
        name: unique, `family.what`.
        phrasings: texts with gaps such as ``{room}``; all mean the same. `phrasings.yaml` has more of them; a template
            without any here is asked in those alone.
        find: the candidates of a moment.
    """

    name: str
    phrasings: tuple[str, ...]
    find: Finder = field(repr=False)

    @property
    def family(self) -> str:
        """The group that it is scored in."""
        return self.name.partition(".")[0]

    def has(self, wording: Wording) -> bool:
        """Whether a wording has words for it."""
        return wording is not Wording.ORIGINAL or bool(self.phrasings)

    def question(self, gaps: dict[str, str], wording: Wording, random: np.random.Generator) -> str:
        """A question with these gaps filled, in words drawn at random."""
        return phrase(self.name, self.phrasings, gaps, wording, random)


def template(templates: list[Template], name: str, *phrasings: str, **settings: object) -> Callable[[Finder], Finder]:
    """Decorates the finder of a template, which joins `templates`; `settings` are arguments of the finder.

    Stacked on one finder, the lowest joins first.
    """

    def join(find: Finder) -> Finder:
        templates.append(Template(name, phrasings, partial(find, **settings)))
        return find

    return join


def with_article(name: str) -> str:
    """The name with "a" or "an" before it."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def enumerated(truth: EpisodeTruth, object_ids: Iterable[int]) -> str:
    """The names of objects, as an answer enumerates them."""
    return joined([truth.name(object_id) for object_id in object_ids])


def everything(truth: EpisodeTruth) -> Frames:
    """The proof that something was not there: all that was seen so far."""
    return ((0, truth.frame),)


def spans(parts: Iterable[Sighting | Stay]) -> Frames:
    """The frames of sightings or stays, in time order, without repeats."""
    return tuple(sorted({(part.start, part.end) for part in parts}))


def is_steady(truth: EpisodeTruth, stay: Stay) -> bool:
    """Whether the robot was in the room long enough to be sure of it."""
    return stay.end - stay.start + 1 >= STEADY_S * truth.episode.config.frame_rate


def inspected_rooms(truth: EpisodeTruth, most: int) -> list[Stay]:
    """The last stay in each room, where it surely saw all of the room and at most `most` objects."""
    stays = truth.last_stays.values()
    return [stay for stay in stays if stay.complete and stay.clean and len(stay.objects) <= most]


def unseen_names(truth: EpisodeTruth, random: np.random.Generator, count: int) -> list[str]:
    """Names that were never seen, though their colour and their kind were: only the combination is new.

    Nothing that may have been seen in passing is among them.
    """
    taken = {truth.name(object_id) for object_id in (*truth.seen, *truth.doubtful)}
    objects = [truth.episode.objects[object_id] for object_id in truth.seen]
    kinds = [kind for kind in KINDS if any(scene_object.kind == kind for scene_object in objects)]
    colours = [colour for colour in COLOURS if any(scene_object.colour == colour for scene_object in objects)]
    names = [f"{colour} {kind}" for kind in kinds for colour in colours]
    free = [name for name in names if name not in taken]
    return [free[index] for index in random.permutation(len(free))[:count]]
