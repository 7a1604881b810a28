"""Questions about what is or was there: the families now, recall and count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Literal

import numpy as np

from fvs_ros.patrol.templates import (
    NOT_SEEN,
    YES_NO,
    Candidate,
    Frames,
    Template,
    everything,
    inspected_rooms,
    is_steady,
    spans,
    template,
    unseen_names,
    with_article,
)
from fvs_ros.patrol.truth import EpisodeTruth, Sighting
from fvs_ros.patrol.vocabulary import COLOURS, KINDS, PLURALS, ROOMS, joined, number_word
from fvs_ros.patrol.world import SceneObject

MOST_COUNTED = 9
"""Larger numbers are not asked for."""

Trait = Literal["kind", "colour"]

TEMPLATES: list[Template] = []
_template = partial(template, TEMPLATES)


def _newest(truth: EpisodeTruth) -> Frames:
    return ((truth.frame - truth.episode.config.frame_rate, truth.frame),)


@_template("now.view", "What do you see now?", "What is in view?", "What is in front of you?")
def _now_view(truth: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    if not truth.calm:
        return []
    return [Candidate({}, joined([truth.name(object_id) for object_id in truth.in_view]), _newest(truth))]


@_template("now.count", "How many objects are in view?", "How many objects do you see now?")
def _now_count(truth: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return [Candidate({}, number_word(len(truth.in_view)), _newest(truth))] if truth.calm else []


@_template("now.room", "Which room are you in?", "Where are you now?", "What room is this?")
def _now_room(truth: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return [Candidate({}, truth.episode.room_name(truth.frame), _newest(truth))] if truth.calm else []


@_template(
    "now.kind",
    "What is the {colour} object in view?",
    "Which object in view is {colour}?",
    known="colour",
    asked="kind",
)
@_template(
    "now.colour",
    "What colour is the {kind} in view?",
    "Which colour is this {kind}?",
    "What color is the {kind} in view?",
    known="kind",
    asked="colour",
)
def _now_other(truth: EpisodeTruth, _: np.random.Generator, known: Trait, asked: Trait) -> list[Candidate]:
    objects = _only_ones(truth, truth.in_view if truth.calm else [], known)
    return [Candidate({known: getattr(one, known)}, getattr(one, asked), _newest(truth)) for one in objects]


def _only_ones(truth: EpisodeTruth, object_ids: Iterable[int], trait: Trait) -> list[SceneObject]:
    """Those objects that share the trait with no other of them."""
    objects = [truth.episode.objects[object_id] for object_id in object_ids]
    counts = Counter(getattr(one, trait) for one in objects)
    return [one for one in objects if counts[getattr(one, trait)] == 1]


@_template("now.presence", "Is {a_thing} in view?", "Do you see {a_thing} now?", "Is there {a_thing} in front of you?")
def _now_presence(truth: EpisodeTruth, random: np.random.Generator) -> list[Candidate]:
    # An empty view would make "no" the more frequent answer.
    if not truth.calm or not truth.in_view:
        return []
    objects = [truth.episode.objects[object_id] for object_id in truth.in_view]
    here = {one.name for one in objects}
    near = [
        name
        for one in objects
        for name in (
            f"{tuple(COLOURS)[random.integers(len(COLOURS))]} {one.kind}",
            f"{one.colour} {KINDS[random.integers(len(KINDS))]}",
        )
        if name not in here
    ]
    return [
        Candidate({"a_thing": with_article(name)}, answer, _newest(truth), YES_NO)
        for answer, names in (("yes", sorted(here)), ("no", near))
        for name in names
    ]


@_template("recall.seen", "Have you seen {a_thing} so far?", "Did you see {a_thing}?", "Was there {a_thing} anywhere?")
def _recall_seen(truth: EpisodeTruth, random: np.random.Generator) -> list[Candidate]:
    seen = [
        Candidate({"a_thing": with_article(truth.name(object_id))}, "yes", spans(sightings), YES_NO)
        for object_id, sightings in truth.seen.items()
    ]
    unseen = [
        Candidate({"a_thing": with_article(name)}, "no", everything(truth), YES_NO)
        for name in unseen_names(truth, random, 6)
    ]
    return [*seen, *unseen] if seen and unseen else []


@_template(
    "recall.where",
    "In which room did you last see the {thing}?",
    "Where was the {thing}?",
    "Where did you last see the {thing}?",
)
def _recall_where(truth: EpisodeTruth, random: np.random.Generator) -> list[Candidate]:
    unseen = unseen_names(truth, random, 2)
    candidates = [Candidate({"thing": name}, NOT_SEEN, everything(truth)) for name in unseen]
    for object_id, sightings in truth.seen.items():
        last = sightings[-1]
        # Glimpsed elsewhere since: the last room is not sure.
        if not truth.unsure[last.visit + 1 :, object_id].any():
            proof = spans(sighting for sighting in sightings if sighting.room == last.room)
            candidates.append(Candidate({"thing": truth.name(object_id)}, truth.room(last.room), proof))
    return candidates


@_template("recall.colour", "What colour was the only {kind} you saw?", "You saw one {kind}. What colour was it?")
def _recall_colour(truth: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    doubtful = {truth.episode.objects[object_id].kind for object_id in truth.doubtful}
    return [
        Candidate({"kind": one.kind}, one.colour, _proof(truth, one))
        for one in _only_ones(truth, truth.seen, "kind")
        if one.kind not in doubtful
    ]


def _proof(truth: EpisodeTruth, scene_object: SceneObject, room: int | None = None) -> Frames:
    sightings = truth.seen[truth.episode.objects.index(scene_object)]
    return spans(sighting for sighting in sightings if room is None or sighting.room == room)


def _doubtful_in(truth: EpisodeTruth, room: int) -> set[int]:
    """Objects that may have been seen in a room, though never for sure."""
    visits = [stay.visit for stay in truth.stays if stay.room == room]
    sure = {sighting.object_id for sighting in truth.sightings if sighting.room == room}
    return {int(object_id) for object_id in np.flatnonzero(truth.unsure[visits].any(axis=0))} - sure


@_template(
    "recall.room_kind",
    "Which {colour} object did you see in the {room}?",
    "What was the {colour} object in the {room}?",
    known="colour",
    asked="kind",
)
@_template(
    "recall.room_colour",
    "What colour was the {kind} in the {room}?",
    "Which colour did the {kind} in the {room} have?",
    known="kind",
    asked="colour",
)
def _recall_in_room(truth: EpisodeTruth, _: np.random.Generator, known: Trait, asked: Trait) -> list[Candidate]:
    rooms: dict[int, list[Sighting]] = {}
    for sighting in truth.sightings:
        rooms.setdefault(sighting.room, []).append(sighting)
    candidates = []
    for room, sightings in rooms.items():
        doubtful = {getattr(truth.episode.objects[object_id], known) for object_id in _doubtful_in(truth, room)}
        name, object_ids = truth.room(room), sorted({sighting.object_id for sighting in sightings})
        candidates += [
            Candidate({known: getattr(one, known), "room": name}, getattr(one, asked), _proof(truth, one, room))
            for one in _only_ones(truth, object_ids, known)
            if getattr(one, known) not in doubtful
        ]
    return candidates


@_template(
    "recall.visited", "Have you been in the {room}?", "Did you visit the {room}?", "Were you in the {room} so far?"
)
def _recall_visited(truth: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    candidates = []
    for name in ROOMS:
        stays = [stay for stay in truth.stays if truth.room(stay.room) == name]
        if not stays:
            candidates.append(Candidate({"room": name}, "no", everything(truth), YES_NO))
        elif any(is_steady(truth, stay) for stay in stays):
            candidates.append(Candidate({"room": name}, "yes", spans(stays), YES_NO))
    return candidates


@_template(
    "count.colour",
    "How many {colour} objects have you seen so far?",
    "How many different {colour} objects did you see?",
    gap="colour",
    trait="colour",
    words={colour: colour for colour in COLOURS},
)
@_template(
    "count.kind",
    "How many {kinds} have you seen so far?",
    "How many different {kinds} did you see?",
    gap="kinds",
    trait="kind",
    words=PLURALS,
)
def _count_of(
    truth: EpisodeTruth, _: np.random.Generator, gap: str, trait: Trait, words: Mapping[str, str]
) -> list[Candidate]:
    """How many objects of each value of a trait were seen; `words` are the values as questions say them."""
    objects = truth.episode.objects
    doubtful = {getattr(objects[object_id], trait) for object_id in truth.doubtful}
    candidates = []
    for value, word in words.items():
        sightings = [one for one in truth.sightings if getattr(objects[one.object_id], trait) == value]
        count = len({one.object_id for one in sightings})
        if value not in doubtful and count <= MOST_COUNTED:
            candidates.append(Candidate({gap: word}, number_word(count), spans(sightings) or everything(truth)))
    return candidates


@_template("count.all", "How many different objects have you seen so far?", "How many objects have you seen in all?")
def _count_all(truth: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    count = len(truth.seen)
    if truth.doubtful or count > MOST_COUNTED:
        return []
    return [Candidate({}, number_word(count), spans(truth.sightings) or everything(truth))]


@_template(
    "count.room",
    "How many objects did you see on your last visit to the {room}?",
    "How many objects were in the {room} last?",
)
def _count_room(truth: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    return [
        Candidate({"room": truth.room(stay.room)}, number_word(len(stay.objects)), spans([stay]))
        for stay in inspected_rooms(truth, MOST_COUNTED)
    ]


@_template("count.rooms", "How many different rooms have you visited?", "How many rooms have you been in so far?")
def _count_rooms(truth: EpisodeTruth, _: np.random.Generator) -> list[Candidate]:
    # A room just entered may or may not have been noticed.
    if not truth.stays or not is_steady(truth, truth.stays[-1]):
        return []
    first = truth.first_stays.values()
    return [Candidate({}, number_word(len(first)), spans(first))]
