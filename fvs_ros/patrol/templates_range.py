"""Questions about a stretch of time, in episodes with a clock: the family range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from fvs_ros.patrol.clock import TimeRange, clock_words, lasted_words, time_ranges
from fvs_ros.patrol.config import Wording
from fvs_ros.patrol.templates import (
    NOT_SEEN,
    YES_NO,
    Candidate,
    Finder,
    Frames,
    Template,
    enumerated,
    spans,
    unseen_names,
    with_article,
)
from fvs_ros.patrol.truth import STEADY_S, EpisodeTruth, Sighting
from fvs_ros.patrol.vocabulary import KINDS, NUMBERS, PLURALS

FAMILY = "range"
MOST_RANGES = 4
"""Stretches that one moment's candidates are about."""
MOST_NAMED = 3
"""Objects that an answer enumerates."""
MOST_COUNTED = 9
MOST_ABSENT = 4

TEMPLATES: list[Template] = []


@dataclass(frozen=True)
class RangeTemplate(Template):
    """A kind of question about a stretch of time.

    Before its words stands what a clock and the stream's stamps tell, since no picture does: what time it is, and how
    long ago the patrol began.
    """

    def question(self, gaps: dict[str, str], wording: Wording, random: np.random.Generator) -> str:
        """See `Template.question`."""
        told = f"It is {gaps['clock']}. The patrol began {gaps['began']}."
        return f"{told} {super().question(gaps, wording, random)}"


def _template(name: str, *phrasings: str) -> Callable[[Callable[..., Iterator[Candidate]]], Finder]:
    """Decorates what gives the candidates of one stretch; its template, which goes through several, joins the list."""

    def join(find: Callable[..., Iterator[Candidate]]) -> Finder:
        def find_all(truth: EpisodeTruth, random: np.random.Generator) -> Iterator[Candidate]:
            ranges = time_ranges(truth)
            for index in random.permutation(len(ranges))[:MOST_RANGES]:
                yield from find(_Stretch(truth, ranges[index]), random)

        TEMPLATES.append(RangeTemplate(f"{FAMILY}.{name}", phrasings, find_all))
        return find_all

    return join


class _Stretch:
    """What a stretch of time shows for sure, and what it may have shown."""

    def __init__(self, truth: EpisodeTruth, range_: TimeRange) -> None:
        self.truth = truth
        self._range = range_
        before = range_.margin if range_.start > 0 else 0
        after = range_.margin if range_.end < truth.frame else 0
        self.sure = (range_.start + before, range_.end - after)
        self.widest = (max(range_.start - before, 0), min(range_.end + after, truth.frame))

    def gaps(self, **gaps: str) -> dict[str, str]:
        """These gaps, and those that every question about the stretch has."""
        episode = self.truth.episode
        began = f"{lasted_words(self.truth.frame / episode.config.frame_rate)} ago"
        return {
            "when": self._range.words,
            "clock": clock_words(episode.time_of_day_s(self.truth.frame)),
            "began": began,
        } | gaps

    @property
    def everything(self) -> Frames:
        """The proof that something was not there then."""
        return ((self._range.start, self._range.end),)

    @cached_property
    def sightings(self) -> dict[int, list[Sighting]]:
        """Sightings, cut to the stretch, of each object that was surely seen in it, by the first of them."""
        cut = [self._cut(sighting) for sighting in self.truth.sightings if self._overlaps(sighting, *self.sure)]
        found: dict[int, list[Sighting]] = {}
        for sighting in cut:
            found.setdefault(sighting.object_id, []).append(sighting)
        return found

    def _overlaps(self, sighting: Sighting, start: int, end: int) -> bool:
        steady = STEADY_S * self.truth.episode.config.frame_rate
        return min(sighting.end, end) - max(sighting.start, start) + 1 >= steady

    def _cut(self, one: Sighting) -> Sighting:
        start, end = max(one.start, self._range.start), min(one.end, self._range.end)
        return Sighting(one.object_id, one.visit, one.room, start, end)

    @cached_property
    def possible(self) -> frozenset[int]:
        """Objects of which anything was to be seen, or would have been a little before or after."""
        return self.truth.glimpsed(*self.widest)

    def possible_in(self, room: int) -> frozenset[int]:
        """Those of `possible` that were in a room."""
        return self.truth.glimpsed(*self.widest, room)

    def absent_names(self, random: np.random.Generator) -> list[str]:
        """Names of which nothing was to be seen then: some seen at other times, some never."""
        others = [object_id for object_id in self.truth.seen if object_id not in self.possible]
        chosen = [self.truth.name(others[index]) for index in random.permutation(len(others))[:MOST_ABSENT]]
        return [*chosen, *unseen_names(self.truth, random, 2)]


@_template("seen", "Did you see {a_thing} {when}?", "Was there {a_thing} {when}?")
def _seen(stretch: _Stretch, random: np.random.Generator) -> Iterator[Candidate]:
    for object_id, sightings in stretch.sightings.items():
        name = with_article(stretch.truth.name(object_id))
        yield Candidate(stretch.gaps(a_thing=name), "yes", spans(sightings), YES_NO)
    for name in stretch.absent_names(random):
        yield Candidate(stretch.gaps(a_thing=with_article(name)), "no", stretch.everything, YES_NO)


@_template("where", "In which room did you see the {thing} {when}?", "Where was the {thing} {when}?")
def _where(stretch: _Stretch, random: np.random.Generator) -> Iterator[Candidate]:
    truth = stretch.truth
    for object_id, sightings in stretch.sightings.items():
        rooms = [room for room in truth.first_stays if object_id in stretch.possible_in(room)]
        if len(rooms) == 1:
            yield Candidate(stretch.gaps(thing=truth.name(object_id)), truth.room(rooms[0]), spans(sightings))
    for name in stretch.absent_names(random)[: MOST_ABSENT // 2]:
        yield Candidate(stretch.gaps(thing=name), NOT_SEEN, stretch.everything)


@_template("in_room", "What did you see in the {room} {when}?", "Which objects were in the {room} {when}?")
def _in_room(stretch: _Stretch, _: np.random.Generator) -> Iterator[Candidate]:
    """In the order of the views inspected, left before right."""
    truth, (start, end) = stretch.truth, stretch.widest
    for room in truth.first_stays:
        stays = [stay for stay in truth.stays if stay.room == room and stay.end >= start and stay.start <= end]
        sure = all(stay.complete and stretch.sure[0] <= stay.start and stay.end <= stretch.sure[1] for stay in stays)
        object_ids = list(dict.fromkeys(object_id for stay in stays for object_id in stay.objects))
        if stays and sure and len(object_ids) <= MOST_NAMED and stretch.possible_in(room) == set(object_ids):
            gaps = stretch.gaps(room=truth.room(room))
            yield Candidate(gaps, enumerated(truth, object_ids), spans(stays))


@_template("count", "How many {kinds} did you see {when}?", "How many different {kinds} were there {when}?")
def _count(stretch: _Stretch, _: np.random.Generator) -> Iterator[Candidate]:
    objects = stretch.truth.episode.objects
    for kind in KINDS:
        sure = {one: some for one, some in stretch.sightings.items() if objects[one].kind == kind}
        possible = {object_id for object_id in stretch.possible if objects[object_id].kind == kind}
        if possible == set(sure) and len(sure) <= MOST_COUNTED:
            proof = spans(sighting for some in sure.values() for sighting in some)
            yield Candidate(stretch.gaps(kinds=PLURALS[kind]), NUMBERS[len(sure)], proof or stretch.everything)


@_template("new", "What did you see for the first time {when}?", "Which objects were new {when}?")
def _new(stretch: _Stretch, _: np.random.Generator) -> Iterator[Candidate]:
    """Objects never seen before, in the order of their first sightings."""
    truth, (start, end) = stretch.truth, stretch.widest
    firsts = {one: truth.first_glimpse(one) for one in (*truth.seen, *truth.doubtful)}
    found = sorted((one for one, first in firsts.items() if start <= first <= end), key=lambda one: firsts[one])
    sure = all(
        one in truth.seen and stretch.sure[0] <= firsts[one] and truth.seen[one][0].start + 1 <= stretch.sure[1]
        for one in found
    )
    ordered = sure and all(truth.seen[one][0].start < firsts[other] for one, other in pairwise(found))
    if start > 0 and ordered and len(found) <= MOST_NAMED:
        proof = spans(truth.seen[one][0] for one in found)
        yield Candidate(stretch.gaps(), enumerated(truth, found), proof or stretch.everything)
