"""Questions about what is or was there: the families now, recall and count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np

from fvs_ros.patrol.templates import (
    HERE,
    NOT_SEEN,
    YES_NO,
    Candidate,
    Frames,
    Template,
    enumerated,
    everything,
    inspected_rooms,
    is_steady,
    spans,
    template,
    unseen_names,
    with_article,
)
from fvs_ros.patrol.truth import EpisodeTruth
from fvs_ros.patrol.vocabulary import COLOURS, KINDS, NUMBERS, PLURALS, ROOMS

MOST_COUNTED = 9
"""Larger numbers are not asked for."""
MOST_NAMED = 3
"""Objects of a kind that an answer enumerates."""
MOST_ABSENT = 4
"""Objects seen elsewhere, or nowhere, that are asked for in a room."""

Trait = Literal["kind", "colour"]
_OTHER: dict[Trait, Trait] = {"kind": "colour", "colour": "kind"}

TEMPLATES: list[Template] = []
_template = partial(template, TEMPLATES)


def _newest(truth: EpisodeTruth) -> Frames:
    return ((truth.frame - truth.episode.config.frame_rate, truth.frame),)


@_template("now.view", "What do you see now?", "What is in view?", "What is in front of you?")
def _now_view(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    if truth.calm:
        yield Candidate({}, enumerated(truth, truth.in_view), _newest(truth))


@_template("now.count", "How many objects are in view?", "How many objects do you see now?")
def _now_count(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    if truth.calm:
        yield Candidate({}, NUMBERS[len(truth.in_view)], _newest(truth))


@_template("now.room", "Which room are you in?", "Where are you now?", "What room is this?")
def _now_room(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    if truth.calm:
        yield Candidate({}, truth.episode.room_name(truth.frame), _newest(truth))


@_template("now.kind", "What is the {colour} object in view?", "Which object in view is {colour}?", asked="kind")
@_template(
    "now.colour",
    "What colour is the {kind} in view?",
    "Which colour is this {kind}?",
    "What color is the {kind} in view?",
    asked="colour",
)
def _now_other(truth: EpisodeTruth, _: np.random.Generator, asked: Trait) -> Iterator[Candidate]:
    known = _OTHER[asked]
    if truth.calm:
        for value, object_id in _only_ones(truth, truth.in_view, known):
            yield Candidate({known: value}, getattr(truth.episode.objects[object_id], asked), _newest(truth))


def _traits(truth: EpisodeTruth, object_ids: Iterable[int], trait: Trait) -> list[str]:
    return [getattr(truth.episode.objects[object_id], trait) for object_id in object_ids]


def _only_ones(truth: EpisodeTruth, object_ids: Iterable[int], trait: Trait) -> list[tuple[str, int]]:
    """Those objects that share the trait with no other of them, and what it is."""
    object_ids = list(object_ids)
    values = _traits(truth, object_ids, trait)
    counts = Counter(values)
    return [(value, object_id) for value, object_id in zip(values, object_ids, strict=True) if counts[value] == 1]


@_template("now.presence", "Is {a_thing} in view?", "Do you see {a_thing} now?", "Is there {a_thing} in front of you?")
def _now_presence(truth: EpisodeTruth, random: np.random.Generator) -> Iterator[Candidate]:
    # An empty view yields nothing: it would make "no" the more frequent answer.
    if not truth.calm:
        return
    objects = [truth.episode.objects[object_id] for object_id in truth.in_view]
    here = {one.name for one in objects}
    for name in sorted(here):
        yield Candidate({"a_thing": with_article(name)}, "yes", _newest(truth), YES_NO)
    for one in objects:
        other_colour = f"{tuple(COLOURS)[random.integers(len(COLOURS))]} {one.kind}"
        other_kind = f"{one.colour} {KINDS[random.integers(len(KINDS))]}"
        for name in (other_colour, other_kind):
            if name not in here:
                yield Candidate({"a_thing": with_article(name)}, "no", _newest(truth), YES_NO)


@_template("recall.seen", "Have you seen {a_thing} so far?", "Did you see {a_thing}?", "Was there {a_thing} anywhere?")
def _recall_seen(truth: EpisodeTruth, random: np.random.Generator) -> Iterator[Candidate]:
    unseen = unseen_names(truth, random, 6)
    if truth.seen and unseen:
        for object_id, sightings in truth.seen.items():
            yield Candidate({"a_thing": with_article(truth.name(object_id))}, "yes", spans(sightings), YES_NO)
        for name in unseen:
            yield Candidate({"a_thing": with_article(name)}, "no", everything(truth), YES_NO)


@_template(
    "recall.where",
    "In which room did you last see the {thing}?",
    "Where was the {thing}?",
    "Where did you last see the {thing}?",
)
def _recall_where(truth: EpisodeTruth, random: np.random.Generator) -> Iterator[Candidate]:
    for name in unseen_names(truth, random, 2):
        yield Candidate({"thing": name}, NOT_SEEN, everything(truth))
    for object_id, sightings in truth.seen.items():
        last = sightings[-1]
        # Glimpsed elsewhere since: the last room is not sure.
        if not truth.unsure[last.visit + 1 :, object_id].any():
            yield Candidate(
                {"thing": truth.name(object_id)}, truth.room(last.room), _proof(truth, object_id, last.room)
            )


def _proof(truth: EpisodeTruth, object_id: int, room: int) -> Frames:
    return spans(sighting for sighting in truth.seen[object_id] if sighting.room == room)


@_template("recall.place")
def _recall_place(truth: EpisodeTruth, random: np.random.Generator) -> Iterator[Candidate]:
    """As `_recall_where`, but what is in view is here."""
    if not truth.calm:
        return
    in_view = {truth.name(object_id) for object_id in truth.in_view}
    for name in sorted(in_view):
        yield Candidate({"thing": name}, HERE, _newest(truth))
    for candidate in _recall_where(truth, random):
        if candidate.gaps["thing"] not in in_view:
            yield candidate


@_template("recall.in_room")
def _recall_in_room_last(truth: EpisodeTruth, random: np.random.Generator) -> Iterator[Candidate]:
    """Whether something was in a room on the last visit, where that saw all of the room for sure."""
    names = [truth.name(object_id) for object_id in truth.seen]
    for stay in truth.last_stays.values():
        if not (stay.complete and stay.clean):
            continue
        here = {truth.name(object_id) for object_id in stay.objects}
        elsewhere = [name for name in (*names, *unseen_names(truth, random, 2)) if name not in here]
        for name in [*sorted(here), *elsewhere[:MOST_ABSENT]]:
            gaps = {"a_thing": with_article(name), "room": truth.room(stay.room)}
            yield Candidate(gaps, "yes" if name in here else "no", spans([stay]), YES_NO)


@_template("recall.any_kind", trait="kind")
@_template("recall.any_colour", trait="colour")
def _recall_any(truth: EpisodeTruth, _: np.random.Generator, trait: Trait) -> Iterator[Candidate]:
    doubtful = _traits(truth, truth.doubtful, trait)
    for value in KINDS if trait == "kind" else COLOURS:
        sightings = [s for s in truth.sightings if getattr(truth.episode.objects[s.object_id], trait) == value]
        if sightings or value not in doubtful:
            gaps = {"kinds": PLURALS[value], "a_kind": with_article(value)} if trait == "kind" else {"colour": value}
            answer = "yes" if sightings else "no"
            yield Candidate(gaps, answer, spans(sightings) or everything(truth), YES_NO)


@_template("recall.all_kind")
def _recall_all_kind(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    """The names of all objects of a kind, in the order of their first sightings."""
    doubtful = _traits(truth, truth.doubtful, "kind")
    for kind in KINDS:
        found = [object_id for object_id in truth.seen if truth.episode.objects[object_id].kind == kind]
        ordered = all(truth.seen[one][0].start < truth.first_glimpse(other) for one, other in pairwise(found))
        if kind not in doubtful and ordered and len(found) <= MOST_NAMED:
            proof = spans(sighting for object_id in found for sighting in truth.seen[object_id])
            yield Candidate({"kinds": PLURALS[kind]}, enumerated(truth, found), proof or everything(truth))


@_template("recall.colour", "What colour was the only {kind} you saw?", "You saw one {kind}. What colour was it?")
def _recall_colour(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    doubtful = _traits(truth, truth.doubtful, "kind")
    for kind, object_id in _only_ones(truth, truth.seen, "kind"):
        if kind not in doubtful:
            yield Candidate({"kind": kind}, truth.episode.objects[object_id].colour, spans(truth.seen[object_id]))


@_template(
    "recall.room_kind",
    "Which {colour} object did you see in the {room}?",
    "What was the {colour} object in the {room}?",
    asked="kind",
)
@_template(
    "recall.room_colour",
    "What colour was the {kind} in the {room}?",
    "Which colour did the {kind} in the {room} have?",
    asked="colour",
)
def _recall_in_room(truth: EpisodeTruth, _: np.random.Generator, asked: Trait) -> Iterator[Candidate]:
    known = _OTHER[asked]
    for room in dict.fromkeys(sighting.room for sighting in truth.sightings):
        sure = {sighting.object_id for sighting in truth.sightings if sighting.room == room}
        visits = [stay.visit for stay in truth.stays if stay.room == room]
        unsure = set(np.flatnonzero(truth.unsure[visits].any(axis=0)).tolist())
        doubtful = _traits(truth, unsure - sure, known)
        for value, object_id in _only_ones(truth, sorted(sure), known):
            if value not in doubtful:
                gaps, answer = {known: value, "room": truth.room(room)}, truth.episode.objects[object_id]
                yield Candidate(gaps, getattr(answer, asked), _proof(truth, object_id, room))


@_template(
    "recall.visited", "Have you been in the {room}?", "Did you visit the {room}?", "Were you in the {room} so far?"
)
def _recall_visited(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    for name in ROOMS:
        stays = [stay for stay in truth.stays if truth.room(stay.room) == name]
        if not stays:
            yield Candidate({"room": name}, "no", everything(truth), YES_NO)
        elif any(is_steady(truth, stay) for stay in stays):
            yield Candidate({"room": name}, "yes", spans(stays), YES_NO)


@_template(
    "count.colour",
    "How many {colour} objects have you seen so far?",
    "How many different {colour} objects did you see?",
    trait="colour",
)
@_template(
    "count.kind", "How many {kinds} have you seen so far?", "How many different {kinds} did you see?", trait="kind"
)
def _count_of(truth: EpisodeTruth, _: np.random.Generator, trait: Trait) -> Iterator[Candidate]:
    gap, words = ("kinds", PLURALS) if trait == "kind" else ("colour", {colour: colour for colour in COLOURS})
    doubtful = _traits(truth, truth.doubtful, trait)
    for value, word in words.items():
        sightings = [s for s in truth.sightings if getattr(truth.episode.objects[s.object_id], trait) == value]
        count = len({sighting.object_id for sighting in sightings})
        if value not in doubtful and count <= MOST_COUNTED:
            yield Candidate({gap: word}, NUMBERS[count], spans(sightings) or everything(truth))


@_template("count.all", "How many different objects have you seen so far?", "How many objects have you seen in all?")
def _count_all(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    count = len(truth.seen)
    if not truth.doubtful and count <= MOST_COUNTED:
        yield Candidate({}, NUMBERS[count], spans(truth.sightings) or everything(truth))


@_template(
    "count.room",
    "How many objects did you see on your last visit to the {room}?",
    "How many objects were in the {room} last?",
)
def _count_room(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    for stay in inspected_rooms(truth, MOST_COUNTED):
        yield Candidate({"room": truth.room(stay.room)}, NUMBERS[len(stay.objects)], spans([stay]))


@_template("count.rooms", "How many different rooms have you visited?", "How many rooms have you been in so far?")
def _count_rooms(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    # A room just entered may or may not have been noticed.
    if truth.stays and is_steady(truth, truth.stays[-1]):
        yield Candidate({}, NUMBERS[len(truth.first_stays)], spans(truth.first_stays.values()))
