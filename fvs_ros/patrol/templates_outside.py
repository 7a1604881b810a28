"""Questions that no patrol answers: other things and places, arithmetic, greetings, what cannot be known by looking.

`outside.yaml` holds kinds of them with patterns, and lists of words for the patterns' slots. A third of the kinds is
never trained on; of the other kinds every fifth pattern, and of every list every fifth word. Each gets the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from fvs_ros.patrol.config import Wording
from fvs_ros.patrol.orthography import styled
from fvs_ros.patrol.phrasings import is_held_out, read_data
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


@dataclass(frozen=True)
class OutsideTemplate(Template):
    """A kind of question from outside.

    Attributes:
        patterns: texts with slots such as ``{thing}``, without a closing mark.
        held_out: whether no training sees the kind.
    """

    patterns: tuple[str, ...] = ()
    held_out: bool = False

    def has(self, wording: Wording) -> bool:
        """See `Template.has`."""
        return wording is Wording.HELD_OUT or (wording is Wording.TRAINED and not self.held_out)

    def question(self, gaps: dict[str, str], wording: Wording, random: np.random.Generator) -> str:
        """See `Template.question`."""
        held_out = wording is Wording.HELD_OUT
        pattern = _drawn(self.patterns if self.held_out else _side(self.patterns, held_out), random)

        def word(found: re.Match[str]) -> str:
            return _drawn(_WORLD.get(found[1]) or _side(_LISTS[found[1]], held_out), random)

        text = _ARTICLE.sub(lambda found: with_article(found[1])[: -len(found[1])], _SLOT.sub(word, pattern))
        return styled(text + _drawn(_MARKS, random), random)


@cache
def _side(items: tuple[str, ...], held_out: bool) -> tuple[str, ...]:
    """Those of a list that are held out, or the others; all of one that is too short to be split."""
    return tuple(item for number, item in enumerate(items) if is_held_out(number) == held_out) or items


def _drawn(items: Sequence[str], random: np.random.Generator) -> str:
    return items[int(random.integers(len(items)))]


def _find(truth: EpisodeTruth, _: np.random.Generator) -> Iterator[Candidate]:
    yield Candidate({}, OUTSIDE_ANSWER, everything(truth))


_DATA = read_data("outside.yaml")
_LISTS: dict[str, tuple[str, ...]] = {name: tuple(map(str, words)) for name, words in _DATA["lists"].items()}
TEMPLATES = [
    OutsideTemplate(f"{FAMILY}.{kind}", (), _find, tuple(settings["patterns"]), settings["held_out"])
    for kind, settings in _DATA["kinds"].items()
]
