"""Questions about how things went on: the families order and change."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import numpy as np

from fvs_ros.patrol.templates import NOTHING, YES_NO, Candidate, Template, is_steady, spans, template
from fvs_ros.patrol.truth import EpisodeTruth, Sighting, Stay
from fvs_ros.patrol.vocabulary import joined

MOST_PAIRS = 8
"""Pairs of objects that one moment's candidates compare."""
MOST_CHANGES = 2
"""That an answer enumerates."""

TEMPLATES: list[Template] = []
_template = partial(template, TEMPLATES)


@_template(
    "order.last_of_two",
    "Which did you see last, the {one} or the {other}?",
    "What came last, the {one} or the {other}?",
    first=False,
)
@_template(
    "order.first_of_two",
    "Which did you see first, the {one} or the {other}?",
    "What came first, the {one} or the {other}?",
    first=True,
)
def _order_of_two(truth: EpisodeTruth, random: np.random.Generator, first: bool) -> Iterator[Candidate]:
    object_ids, moment = list(truth.seen), 0 if first else -1
    for _ in range(MOST_PAIRS if len(object_ids) > 1 else 0):
        one, other = (object_ids[index] for index in random.permutation(len(object_ids))[:2])
        names = (truth.name(one), truth.name(other))
        for winner, loser in ((one, other), (other, one)):
            won, lost = truth.seen[winner][moment], truth.seen[loser][moment]
            if won.start < truth.first_glimpse(loser) if first else won.end > truth.last_glimpse(loser):
                yield Candidate({"one": names[0], "other": names[1]}, truth.name(winner), spans([won, lost]), names)


def newcomers(truth: EpisodeTruth) -> list[Sighting | None]:
    """First sightings in order; None stands where two objects came together or one may have come between."""
    firsts = sorted((truth.first_glimpse(object_id), object_id) for object_id in (*truth.seen, *truth.doubtful))
    story: list[Sighting | None] = []
    for position, (_, object_id) in enumerate(firsts):
        following = firsts[position + 1][0] if position + 1 < len(firsts) else truth.frame + 1
        if object_id in truth.seen and truth.seen[object_id][0].start < following:
            story.append(truth.seen[object_id][0])
        else:
            # It and its successor cannot be put in order.
            story.append(None)
    return story


@_template("order.first", "What was the first object you saw?", "Which object did you see first of all?")
def _order_first(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    for one in newcomers(truth)[:1]:
        if one is not None:
            yield Candidate({}, truth.name(one.object_id), spans([one]))


@_template(
    "order.after", "Which new object came right after the {thing}?", "What did you first see right after the {thing}?"
)
def _order_after(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    for one, other in pairwise(newcomers(truth)):
        if one is not None and other is not None:
            yield Candidate({"thing": truth.name(one.object_id)}, truth.name(other.object_id), spans([one, other]))


@_template(
    "order.before",
    "Which new object came right before the {thing}?",
    "What did you first see right before the {thing}?",
)
def _order_before(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    story = newcomers(truth)
    # The one before the earlier of the two must be sure as well, or it might have come between.
    for before, one, other in zip([*story[:1], *story], story, story[1:], strict=False):
        if before is not None and one is not None and other is not None:
            yield Candidate({"thing": truth.name(other.object_id)}, truth.name(one.object_id), spans([one, other]))


@_template("order.room_first", "Which room did you visit first?", "In which room did the patrol begin?")
def _order_room_first(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    for stay in truth.stays[:1]:
        yield Candidate({}, truth.room(stay.room), spans([stay]))


@_template(
    "order.room_after",
    "Which room did you visit right after your first visit to the {room}?",
    "Where did you go after you first saw the {room}?",
)
def _order_room_after(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    known = set()
    for one, other in pairwise(truth.stays):
        if one.room not in known and is_steady(truth, other):
            yield Candidate({"room": truth.room(one.room)}, truth.room(other.room), spans([one, other]))
        known.add(one.room)


@_template(
    "order.room_before", "Which room did you visit right before this one?", "In which room were you before this one?"
)
def _order_room_before(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    for before, here in pairwise(truth.stays[-2:]):
        if here.end == truth.frame and is_steady(truth, here):
            yield Candidate({}, truth.room(before.room), spans([before, here]))


def _revisits(truth: EpisodeTruth) -> Iterator[tuple[Stay, Stay]]:
    """For each room, its last two visits, where both saw all of it for sure."""
    for room in truth.first_stays:
        couple = [stay for stay in truth.stays if stay.room == room][-2:]
        if len(couple) == 2 and all(stay.complete and stay.clean for stay in couple):
            yield couple[0], couple[1]


def _changes(truth: EpisodeTruth, before: Stay, after: Stay) -> list[str]:
    """What is different, one text for each object."""
    world, texts = truth.episode.world, []
    for object_id in sorted({*before.objects, *after.objects}):
        if object_id not in before.objects:
            texts.append(f"{truth.name(object_id)} added")
        elif object_id not in after.objects:
            texts.append(f"{truth.name(object_id)} removed")
        else:
            then, now = (world.visits[stay.visit].placements[object_id] for stay in (before, after))
            if then.view != now.view:
                texts.append(f"{truth.name(object_id)} moved")
    return texts


def _single_changes(truth: EpisodeTruth) -> Iterator[tuple[Stay, Stay, str]]:
    """Revisits with at most one change, and the words for it."""
    for before, after in _revisits(truth):
        texts = _changes(truth, before, after) or [NOTHING]
        if len(texts) == 1:
            yield before, after, texts[0]


@_template(
    "change.what",
    "What changed in the {room} between your last two visits?",
    "What was different in the {room} last time?",
)
def _change_what(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    for before, after, text in _single_changes(truth):
        yield Candidate({"room": truth.room(before.room)}, text, spans([before, after]))


@_template(
    "change.here", "What changed in this room since your last visit?", "What is different here since your last visit?"
)
def _change_here(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    for before, after, text in _single_changes(truth):
        if after.end == truth.frame:
            yield Candidate({}, text, spans([before, after]))


@_template(
    "change.any",
    "Did anything change in the {room} between your last two visits?",
    "Was the {room} different last time?",
)
def _change_any(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    for before, after in _revisits(truth):
        answer = "yes" if _changes(truth, before, after) else "no"
        yield Candidate({"room": truth.room(before.room)}, answer, spans([before, after]), YES_NO)


@_template("change.where")
def _change_where(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    """All changes anywhere, where every room seen twice was seen wholly both times."""
    twice = [room for room in truth.first_stays if sum(stay.room == room for stay in truth.stays) > 1]
    couples = list(_revisits(truth))
    texts = [
        f"{text} in the {truth.room(before.room)}"
        for before, after in couples
        for text in _changes(truth, before, after)
    ]
    if twice and len(couples) == len(twice) and len(texts) <= MOST_CHANGES:
        yield Candidate({}, joined(texts), spans(stay for couple in couples for stay in couple))


@_template(
    "change.gone",
    "What was missing from the {room} on your last visit?",
    "Which object had gone from the {room} last?",
    newer=False,
)
@_template(
    "change.new",
    "What was new in the {room} on your last visit?",
    "Which object was added to the {room} last?",
    newer=True,
)
def _difference(truth: EpisodeTruth, _: np.random.Generator, newer: bool) -> Iterator[Candidate]:
    for before, after in _revisits(truth):
        having, lacking = (after, before) if newer else (before, after)
        names = [truth.name(object_id) for object_id in having.objects if object_id not in lacking.objects]
        if len(names) < 2:
            answer = names[0] if names else NOTHING
            yield Candidate({"room": truth.room(before.room)}, answer, spans([before, after]))


@_template(
    "change.still", "Was the {thing} still in the {room} on your last visit?", "Did the {thing} stay in the {room}?"
)
def _change_still(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    for before, after in _revisits(truth):
        for object_id in before.objects:
            gaps = {"thing": truth.name(object_id), "room": truth.room(before.room)}
            yield Candidate(gaps, "yes" if object_id in after.objects else "no", spans([before, after]), YES_NO)


@_template("change.moved", "Have you seen the {thing} in more than one room?", "Did the {thing} move to another room?")
def _change_moved(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    for object_id, sightings in truth.seen.items():
        rooms = {sighting.room for sighting in sightings}
        # A single sighting cannot tell; a doubtful one might.
        if len(sightings) > 1 and (len(rooms) > 1 or not truth.unsure[:, object_id].any()):
            answer = "yes" if len(rooms) > 1 else "no"
            yield Candidate({"thing": truth.name(object_id)}, answer, spans(sightings), YES_NO)
