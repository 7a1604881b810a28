"""A second opinion on the patrol's answers: every question is read back from its words and answered by brute force.

Shares no code with `truth` and `templates`, only the episode's arrays and the vocabulary.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence

from fvs_ros.patrol.episode import Episode
from fvs_ros.patrol.questions import CLOCK_TEMPLATES, Question
from fvs_ros.patrol.vocabulary import NUMBERS, PLURALS

SEEN, FAINT = 36, 4
AGES = ["a few seconds", "about half a minute", "about a minute", "about two minutes", "about five minutes"]
LONG = ["about twenty minutes", "about half an hour", "about an hour", "about two hours", "about three hours"]
LONG += ["about six hours", "about twelve hours", "about a day"]
LONG_BOUNDS = (1500, 2700, 5400, 9000, 16200, 32400, 64800)
RECENT = {
    "five minutes": 300, "ten minutes": 600, "twenty minutes": 1200, "half hour": 1800, "hour": 3600, "two hours": 7200,
    "three hours": 10800, "six hours": 21600, "twelve hours": 43200,
}  # fmt: skip
HOURS = ["twelve", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
PARTS_OF_DAY = ["at night"] * 6 + ["in the morning"] * 6 + ["in the afternoon"] * 6 + ["in the evening"] * 6


def gaps_of(question: Question) -> dict[str, str]:
    """The words in the gaps of the question's phrasing; fails where no phrasing of its template fits."""
    template = next(template for template in CLOCK_TEMPLATES if template.name == question.template)
    text = question.question
    if template.family == "range":
        context = re.match(r"It is .+?\. The patrol began .+? ago\. ", text)
        assert context is not None
        text = text[context.end() :]
    for phrasing in template.phrasings:
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+?)", re.escape(phrasing))
        match = re.fullmatch(
            pattern.replace("(?P<when>.+?)", "(?P<when>(in the last|between|yesterday|today).*?)"), text
        )
        if match:
            return match.groupdict()
    raise AssertionError(f"no phrasing of {question.template} reads {question.question!r}")


@dataclasses.dataclass
class Visit:
    """The robot in one room: the room's name, first and last frame, and the visit's index."""

    room: str
    first: int
    last: int
    index: int


class Oracle:
    """What happened up to `frame`, collected in plain loops over the frames."""

    def __init__(self, episode: Episode, frame: int) -> None:
        self.episode, self.frame = episode, frame
        self.names = [f"{scene_object.colour} {scene_object.kind}" for scene_object in episode.objects]
        rate = episode.config.frame_rate
        self.visits: list[Visit] = []
        self.steady: dict[tuple[int, str], set[int]] = {}  # by visit and name: frames in sightings of at least 2 s
        run: dict[tuple[int, str], list[int]] = {}
        for now in range(frame + 1):
            room, visit = episode.room_name(now), int(episode.visits[now])
            if room != "corridor":
                if self.visits and self.visits[-1].index == visit:
                    self.visits[-1].last = now
                else:
                    self.visits.append(Visit(room, now, now, visit))
            for index, name in enumerate(self.names):
                key = (visit, name)
                if episode.pixels[now, index] >= SEEN:
                    run[key] = [*run.get(key, []), now] if run.get(key, [now])[-1] in (now, now - 1) else [now]
                    if len(run[key]) >= 2 * rate:
                        self.steady.setdefault(key, set()).update(run[key])
        self.now = [name for index, name in enumerate(self.names) if episode.pixels[frame, index] >= SEEN]

    def frames(self, name: str, room: str | None = None) -> list[int]:
        """Frames of the steady sightings of a name, in a room or anywhere."""
        rooms = {visit.index: visit.room for visit in self.visits}
        return sorted(
            now
            for (visit, seen), frames in self.steady.items()
            if seen == name and room in (None, rooms[visit])
            for now in frames
        )

    def glimpses(self, name: str) -> list[int]:
        """Frames that show anything of a name."""
        index = self.names.index(name)
        return [now for now in range(self.frame + 1) if self.episode.pixels[now, index] > FAINT]

    def seen(self, room: str | None = None) -> list[str]:
        """Names sighted, in a room or anywhere."""
        return [name for name in self.names if self.frames(name, room)]

    def in_visit(self, visit: int) -> list[str]:
        """Names sighted in a visit, in the order of the views inspected, left before right."""
        plan = self.episode.world.visits[visit]
        found = []
        for name in (name for index, name in self.steady if index == visit):
            place = plan.placements[self.names.index(name)]
            found.append((plan.views.index(place.view), place.place, name))
        return [name for _, _, name in sorted(found)]

    def of_room(self, room: str) -> list[Visit]:
        """The visits to a room."""
        return [visit for visit in self.visits if visit.room == room]

    def changes(self, room: str) -> tuple[set[str], set[str], set[str]]:
        """What differs between the last two visits to a room: added, gone, at another view."""
        then, now = (visit.index for visit in self.of_room(room)[-2:])
        before, after = set(self.in_visit(then)), set(self.in_visit(now))
        moved = set()
        for name in before & after:
            old, new = (self.episode.world.visits[visit].placements[self.names.index(name)] for visit in (then, now))
            if old.view != new.view:
                moved.add(name)
        return after - before, before - after, moved

    def what_changed(self, room: str) -> str:
        added, gone, moved = self.changes(room)
        texts = [f"{name} added" for name in added] + [f"{name} removed" for name in gone]
        texts += [f"{name} moved" for name in moved]
        assert len(texts) < 2, "asked although more than one thing changed"
        return texts[0] if texts else "nothing"

    def newcomers(self) -> list[str]:
        """Names in the order of their first glimpse."""
        shown = [name for name in self.names if self.glimpses(name)]
        return sorted(shown, key=lambda name: self.glimpses(name)[0])

    def share(self, frame: int) -> str:
        return ("beginning", "middle", "end")[min(int(3 * frame / self.frame), 2)]

    def within(self, when: str) -> list[int]:
        """The frames of a stretch of time, each looked at on the calendar."""
        rate = self.episode.config.frame_rate
        if recent := re.fullmatch("in the last (.+)", when):
            return list(range(self.frame + 1 - RECENT[recent[1]] * rate, self.frame + 1))
        stamps = (int(stamp) / 1e9 for stamp in self.episode.stamps_ns[: self.frame + 1])
        times = [datetime.datetime.fromtimestamp(stamp, datetime.timezone.utc) for stamp in stamps]
        date = times[-1].date() - datetime.timedelta(days="yesterday" in when)
        hour = re.fullmatch("(?:yesterday )?between (.+) and (.+) o'clock (.+)", when)
        if hour is None:
            assert when in ("yesterday", "today")
            return [now for now, time in enumerate(times) if time.date() == date]
        one = next(n for n in range(24) if (HOURS[n % 12], PARTS_OF_DAY[n]) == (hour[1], hour[3]))
        assert hour[2] == HOURS[(one + 1) % 12]
        found = [now for now, time in enumerate(times) if (time.date(), time.hour) == (date, one)]
        assert len(found) == 3600 * rate, "asked about an hour that was not seen wholly"
        return found

    def frames_within(self, name: str, when: str) -> list[int]:
        inside = set(self.within(when))
        return [now for now in self.frames(name) if now in inside]

    def in_room_within(self, room: str, when: str) -> list[str]:
        """Names in a room in the order of the views inspected, over its visits of a stretch."""
        inside = self.within(when)
        visits = [visit for visit in self.of_room(room) if visit.last >= inside[0] and visit.first <= inside[-1]]
        return list(dict.fromkeys(itertools.chain(*(self.in_visit(visit.index) for visit in visits))))

    def new_within(self, when: str) -> list[str]:
        inside = set(self.within(when))
        return [name for name in self.newcomers() if name in self.seen() and self.frames(name)[0] in inside]

    def lasted(self, frames: int) -> str:
        seconds = frames / self.episode.config.frame_rate
        if self.episode.config.clock and seconds >= 1050:
            return LONG[sum(seconds >= bound for bound in LONG_BOUNDS)]
        rank = sum(seconds >= bound for bound in (10, 40, 90, 180, 420, 780, 1050))
        return [*AGES, "about ten minutes", "about fifteen minutes", "about twenty minutes or more"][rank]

    def all_changes(self) -> list[str]:
        """What changed in each room seen twice, between the last two visits, one text a change."""
        found = []
        for room in self.rooms():
            if len(self.of_room(room)) > 1:
                verbs = zip(self.changes(room), ("added", "removed", "moved"), strict=True)
                changed = {name: verb for names, verb in verbs for name in names}
                found += [f"{name} {changed[name]} in the {room}" for name in self.names if name in changed]
        return found

    def nearest(self, thing: str, names: Sequence[str]) -> str:
        """Which name's frames come closest to the thing's."""
        return min(names, key=lambda name: min(abs(a - b) for a in self.frames(name) for b in self.frames(thing)))

    def story(self) -> str:
        told: set[str] = set()
        rooms: dict[str, list[str]] = {}
        for visit in self.visits:
            there = rooms.setdefault(visit.room, [])
            there += [name for name in self.in_visit(visit.index) if name not in told]
            told.update(there)
        if len(told) <= 6 and len(rooms) <= 4:
            return ", then ".join(f"{room} with {listed(names)}" for room, names in rooms.items())
        counts = {room: f"{NUMBERS[len(names)]} object{'s' * (len(names) != 1)}" for room, names in rooms.items()}
        return ", then ".join(f"{room} with {count}" for room, count in counts.items())

    def age(self, frame: int) -> str:
        seconds = (self.frame - frame) / self.episode.config.frame_rate
        if self.episode.config.clock and seconds >= 420:
            rank = sum(seconds >= bound for bound in (900, *LONG_BOUNDS))
            return f"{['about ten minutes', *LONG][rank]} ago"
        rank = sum(seconds >= bound for bound in (10, 40, 90, 180, 420))
        return f"{[*AGES, 'about ten minutes'][rank]} ago{' or more' if rank == 5 else ''}"

    def rooms(self) -> list[str]:
        return list(dict.fromkeys(visit.room for visit in self.visits))


def listed(names: Sequence[str]) -> str:
    """An enumeration as it is spoken."""
    if not names:
        return "nothing"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def only(items: Iterable[str]) -> str:
    """The single item; fails where the question was ambiguous."""
    items = list(items)
    assert len(items) == 1, f"ambiguous: {items}"
    return items[0]


def yes(truth: object) -> str:
    return "yes" if truth else "no"


def _colour(names: Iterable[str], kind: str) -> str:
    return only(name.split()[0] for name in names if name.split()[1] == kind)


def _kind(names: Iterable[str], colour: str) -> str:
    return only(name.split()[1] for name in names if name.split()[0] == colour)


def _bare(a_thing: str) -> str:
    article, colour, kind = a_thing.split()
    assert article == ("an" if colour[0] in "aeiou" else "a")
    return f"{colour} {kind}"


def _counted(names: Iterable[str], word: str) -> str:
    return NUMBERS[sum(word in (name.split()[0], PLURALS[name.split()[1]]) for name in names)]


def _neighbour(o: Oracle, name: str, step: int) -> str:
    story = o.newcomers()
    return story[story.index(name) + step]


def _since(o: Oracle, room: str) -> str:
    after = o.visits[max(index for index, visit in enumerate(o.visits) if visit.room == room) + 1 :]
    return listed(list(dict.fromkeys(itertools.chain(*(o.in_visit(visit.index) for visit in after)))))


def _new_or_gone(names: set[str]) -> str:
    assert len(names) < 2, "asked although there are several"
    return next(iter(names), "nothing")


def _next_room(o: Oracle, room: str) -> str:
    names = [visit.room for visit in o.visits]
    return names[names.index(room) + 1]


def _from_left(o: Oracle) -> list[str]:
    """Names in view by their direction from the robot; a larger angle is further left."""
    x, y, yaw = o.episode.poses[o.frame]

    def angle(name: str) -> float:
        (at_x, at_y), _ = o.episode.stand(o.frame, o.names.index(name))
        return (math.atan2(at_y - y, at_x - x) - yaw + math.pi) % (2 * math.pi)

    return sorted(o.now, key=angle, reverse=True)


ANSWERS: dict[str, Callable[[Oracle, dict[str, str]], str]] = {
    "now.view": lambda o, g: listed(_from_left(o)),
    "now.count": lambda o, g: NUMBERS[len(o.now)],
    "now.room": lambda o, g: o.episode.room_name(o.frame),
    "now.colour": lambda o, g: _colour(o.now, g["kind"]),
    "now.kind": lambda o, g: _kind(o.now, g["colour"]),
    "now.presence": lambda o, g: yes(_bare(g["a_thing"]) in o.now),
    "recall.seen": lambda o, g: yes(_bare(g["a_thing"]) in o.seen()),
    "recall.where": lambda o, g: (
        o.episode.room_name(o.frames(g["thing"])[-1]) if g["thing"] in o.seen() else "not seen"
    ),
    "recall.place": lambda o, g: (
        "here"
        if g["thing"] in o.now
        else o.episode.room_name(o.frames(g["thing"])[-1])
        if g["thing"] in o.seen()
        else "not seen"
    ),
    "recall.in_room": lambda o, g: yes(_bare(g["a_thing"]) in o.in_visit(o.of_room(g["room"])[-1].index)),
    "recall.any_kind": lambda o, g: yes(any(PLURALS[name.split()[1]] == g["kinds"] for name in o.seen())),
    "recall.any_colour": lambda o, g: yes(any(name.split()[0] == g["colour"] for name in o.seen())),
    "recall.all_kind": lambda o, g: listed(
        [name for name in o.newcomers() if name in o.seen() and PLURALS[name.split()[1]] == g["kinds"]]
    ),
    "recall.colour": lambda o, g: _colour(o.seen(), g["kind"]),
    "recall.room_colour": lambda o, g: _colour(o.seen(g["room"]), g["kind"]),
    "recall.room_kind": lambda o, g: _kind(o.seen(g["room"]), g["colour"]),
    "recall.visited": lambda o, g: yes(o.of_room(g["room"])),
    "count.kind": lambda o, g: _counted(o.seen(), g["kinds"]),
    "count.colour": lambda o, g: _counted(o.seen(), g["colour"]),
    "count.all": lambda o, g: NUMBERS[len(o.seen())],
    "count.room": lambda o, g: NUMBERS[len(o.in_visit(o.of_room(g["room"])[-1].index))],
    "count.rooms": lambda o, g: NUMBERS[len(o.rooms())],
    "order.first_of_two": lambda o, g: min((g["one"], g["other"]), key=lambda name: o.frames(name)[0]),
    "order.last_of_two": lambda o, g: max((g["one"], g["other"]), key=lambda name: o.frames(name)[-1]),
    "order.first": lambda o, g: o.newcomers()[0],
    "order.after": lambda o, g: _neighbour(o, g["thing"], 1),
    "order.before": lambda o, g: _neighbour(o, g["thing"], -1),
    "order.room_first": lambda o, g: o.visits[0].room,
    "order.room_after": lambda o, g: _next_room(o, g["room"]),
    "order.room_before": lambda o, g: o.visits[-2].room,
    "change.what": lambda o, g: o.what_changed(g["room"]),
    "change.here": lambda o, g: o.what_changed(o.episode.room_name(o.frame)),
    "change.any": lambda o, g: yes(any(o.changes(g["room"]))),
    "change.where": lambda o, g: listed(o.all_changes()),
    "change.new": lambda o, g: _new_or_gone(o.changes(g["room"])[0]),
    "change.gone": lambda o, g: _new_or_gone(o.changes(g["room"])[1]),
    "change.still": lambda o, g: yes(g["thing"] in o.in_visit(o.of_room(g["room"])[-1].index)),
    "change.moved": lambda o, g: yes(len({o.episode.room_name(now) for now in o.frames(g["thing"])}) > 1),
    "range.seen": lambda o, g: yes(_bare(g["a_thing"]) in o.names and o.frames_within(_bare(g["a_thing"]), g["when"])),
    "range.where": lambda o, g: (
        only({o.episode.room_name(now) for now in o.frames_within(g["thing"], g["when"])})
        if g["thing"] in o.names and o.frames_within(g["thing"], g["when"])
        else "not seen"
    ),
    "range.in_room": lambda o, g: listed(o.in_room_within(g["room"], g["when"])),
    "range.count": lambda o, g: _counted((name for name in o.names if o.frames_within(name, g["when"])), g["kinds"]),
    "range.new": lambda o, g: listed(o.new_within(g["when"])),
    "time.part_first": lambda o, g: o.share(o.frames(g["thing"])[0]),
    "time.part_last": lambda o, g: o.share(o.frames(g["thing"])[-1]),
    "time.thing": lambda o, g: o.age(o.frames(g["thing"])[-1]),
    "time.room": lambda o, g: o.age(o.of_room(g["room"])[-1].last),
    "time.duration": lambda o, g: o.lasted(o.frame),
    "time.stay": lambda o, g: o.lasted(o.of_room(g["room"])[-1].last - o.of_room(g["room"])[-1].first + 1),
    "time.nearest": lambda o, g: o.nearest(g["thing"], (g["one"], g["other"])),
    "description.story": lambda o, g: o.story(),
    "description.room": lambda o, g: listed(o.in_visit(o.of_room(g["room"])[-1].index)),
    "description.since": lambda o, g: _since(o, g["room"]),
    "description.tour": lambda o, g: listed(o.rooms()),
}


def answer(oracle: Oracle, question: Question) -> str:
    """The oracle's own answer to a question."""
    return ANSWERS[question.template](oracle, gaps_of(question))
