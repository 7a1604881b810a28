"""Questions that no patrol answers: other things and places, arithmetic, greetings, what cannot be known by looking.

`outside.yaml` holds kinds of them with patterns, and lists of words for the patterns' slots. A third of the kinds is
never trained on; of the other kinds every fifth pattern, and of every list every fifth word. Each gets the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TypeVar

import numpy as np
import yaml

from fvs_ros.patrol.orthography import styled
from fvs_ros.patrol.phrasings import HELD_OUT_EVERY, Wording
from fvs_ros.patrol.templates import Candidate, Template, everything, with_article
from fvs_ros.patrol.truth import EpisodeTruth
from fvs_ros.patrol.vocabulary import COLOURS, KINDS, NUMBERS, OUTSIDE_ANSWER, PLURALS, ROOMS

FAMILY = "outside"

_WORLD: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "kind": KINDS,
    "kinds": tuple(PLURALS.values()),
    "room": ROOMS,
    "number": NUMBERS,
}
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\ba (?=(\w+))")
# What somebody asks stands more often with its mark than what somebody says.
_MARKS = ("?", "?", ".", "")

Item = TypeVar("Item")


@dataclass(frozen=True)
class OutsideTemplate(Template):
    """A kind of question from outside.

    Attributes:
        kind: its name in the file.
        held_out: whether no training sees the kind.
    """

    kind: str = ""
    held_out: bool = False

    def has(self, wording: Wording) -> bool:
        """See `Template.has`."""
        return wording is Wording.HELD_OUT or (wording is Wording.TRAINED and not self.held_out)

    def question(self, gaps: dict[str, str], wording: Wording, random: np.random.Generator) -> str:
        """See `Template.question`."""
        data = _data()
        held_out = wording is Wording.HELD_OUT
        patterns = data["kinds"][self.kind]["patterns"]
        pattern = _drawn(patterns if self.held_out else _side(patterns, held_out), random)

        def word(found: re.Match[str]) -> str:
            name = found[1]
            return _drawn(_WORLD[name] if name in _WORLD else _side(data["lists"][name], held_out), random)

        text = _ARTICLE.sub(lambda found: with_article(found[1])[: -len(found[1])], _SLOT.sub(word, pattern))
        return styled(text + _drawn(_MARKS, random), random)


def _side(items: Sequence[Item], held_out: bool) -> list[Item]:
    """Every fifth of a list, or the others; all of one that is too short to be split."""
    kept = [item for number, item in enumerate(items) if (number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out]
    return kept or list(items)


def _drawn(items: Sequence[Item], random: np.random.Generator) -> Item:
    return items[int(random.integers(len(items)))]


@cache
def _data() -> dict:
    text = resources.files(__package__).joinpath("outside.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _find(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    yield Candidate({}, OUTSIDE_ANSWER, everything(truth))


TEMPLATES = [
    OutsideTemplate(f"{FAMILY}.{kind}", (), _find, kind, bool(settings["held_out"]))
    for kind, settings in _data()["kinds"].items()
]
