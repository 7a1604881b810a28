"""How people put a question: constructions of each kind, their wording, and the split that tests wording.

`phrasings.yaml` holds the grammar, and `phrasings_more.yaml` more bodies for it. A *body* is what a kind of question
can be built on: a direct question, an indirect clause, a noun phrase, or a sentence that stands alone. A *frame* is
what may surround the first three ("tell me ..."). A body in a frame is a *construction*; choices between synonyms make
no other one. Every fifth body of a kind, with all its constructions, is never trained on: it is the test of wording.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import yaml

from fvs_ros.patrol.config import Wording
from fvs_ros.patrol.orthography import styled

HELD_OUT_EVERY = 5
"""One of as many is held out. Numbers go through the forms of the first file, then on through those of the second:
it moves no body of the first across the split."""

_FRAMED_SHARE = 0.5
"""Of the bodies that can stand alone, those that have a frame all the same."""
_ORIGINAL_SHARE = 0.15
"""Of the trained wording, questions in a template's own phrasings."""
_PLAIN_BODIES = 4
"""The first bodies of each kind: how most people ask."""
_PLAIN_SHARE = 0.3
"""Of the trained wording beyond what falls to them anyway, questions built on these."""
_KNOWN_SHARE = 0.2
"""Of the questions about "a red chair", those that say "the red chair"."""
_OWNED_SHARE = 0.05
"""Of the questions about an object, those that call it "my"."""

FORMS = ("questions", "clauses", "nouns", "sentences")
_ALONE = {"questions": ("{body}?",), "nouns": ("{body}?",), "sentences": ("{body}.",)}
"""How a body is said without a frame; a clause needs one, and a sentence takes none."""


@dataclass(frozen=True)
class Body:
    """What a question is built on, with its gaps and synonym sets open.

    Attributes:
        text: such as ``where did you last {see} the {thing}``, without a closing mark.
        form: one of `FORMS`, which says what may surround it.
        held_out: whether it is kept from training.
    """

    text: str
    form: str
    held_out: bool


@dataclass(frozen=True)
class Grammar:
    """The files `phrasings.yaml` and `phrasings_more.yaml`, as one.

    Attributes:
        synonyms: words that are chosen from, by the name of their set.
        frames: what each form can be said in; ``{body}`` stands for the body.
        bodies: by kind of question.
    """

    synonyms: dict[str, tuple[str, ...]]
    frames: dict[str, tuple[str, ...]]
    bodies: dict[str, tuple[Body, ...]]

    def of(self, kind: str, held_out: bool) -> list[Body]:
        """The bodies of a kind that are held out, or those that are not."""
        return [body for body in self.bodies[kind] if body.held_out == held_out]

    def constructions(self, kind: str, held_out: bool) -> list[str]:
        """All constructions of a kind on one side of the split, with gaps and synonym sets open."""
        return [
            frame.replace("{body}", body.text)
            for body in self.of(kind, held_out)
            for frame in (*_ALONE.get(body.form, ()), *self.frames.get(body.form, ()))
        ]

    def draw(self, kind: str, held_out: bool, random: np.random.Generator) -> str:
        """One of these constructions: each body is as likely as any other of its side, but for the plain ones."""
        bodies = self.of(kind, held_out)
        if not held_out and random.random() < _PLAIN_SHARE:
            bodies = bodies[:_PLAIN_BODIES]
        body = bodies[random.integers(len(bodies))]
        frames = self.frames.get(body.form, ())
        if body.form in _ALONE and not (frames and random.random() < _FRAMED_SHARE):
            frames = _ALONE[body.form]
        return frames[random.integers(len(frames))].replace("{body}", body.text)


_WHETHER = re.compile(r"^whether\b")
_ARTICLE = re.compile(r"^an? ")


def is_held_out(number: int) -> bool:
    """Whether the body, pattern or word of that number, counted from 0, is kept from training."""
    return number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def read_data(name: str) -> dict[str, Any]:
    """A YAML file of this package."""
    return yaml.safe_load(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


@cache
def grammar() -> Grammar:
    """The grammar of the package."""
    data = read_data("phrasings.yaml")
    parts = (data["kinds"], read_data("phrasings_more.yaml")["kinds"])
    bodies = {}
    for kind in data["kinds"]:
        texts = [(form, body) for kinds in parts for form in FORMS for body in kinds.get(kind, {}).get(form, ())]
        bodies[kind] = tuple(
            Body(_WHETHER.sub("[whether|if]", text), form, is_held_out(number))
            for number, (form, text) in enumerate(texts)
        )
    return Grammar(
        synonyms={name: tuple(words) for name, words in data["synonyms"].items()},
        frames={form: tuple(frames) for form, frames in data["frames"].items()},
        bodies=bodies,
    )


def phrase(
    kind: str, originals: tuple[str, ...], gaps: dict[str, str], wording: Wording, random: np.random.Generator
) -> str:
    """A question of a kind in words drawn at random.

    Args:
        kind: name of its template.
        originals: the template's own phrasings.
        gaps: what fills the gaps.
        wording: whose words.
        random: draws.
    """
    trained = wording is Wording.TRAINED and originals and random.random() < _ORIGINAL_SHARE
    if wording is Wording.ORIGINAL or trained:
        return originals[random.integers(len(originals))].format(**gaps)
    if "a_thing" in gaps and random.random() < _KNOWN_SHARE:
        gaps = {**gaps, "a_thing": _ARTICLE.sub("the ", gaps["a_thing"])}
    construction = grammar().draw(kind, wording is Wording.HELD_OUT, random)
    if random.random() < _OWNED_SHARE:
        construction = construction.replace("the {thing}", "my {thing}")
    return styled(expanded(construction, gaps, random), random)


_CHOICE = re.compile(r"\[([^\]]*)\]|\{(\w+)\}")


def expanded(text: str, gaps: dict[str, str], random: np.random.Generator) -> str:
    """A text whose gaps are filled, and whose choices (``[a|b]`` and synonym sets) are drawn."""
    synonyms = grammar().synonyms

    def chosen(found: re.Match[str]) -> str:
        inline, name = found.groups()
        if inline is None and name in gaps:
            return gaps[name]
        options = inline.split("|") if inline is not None else synonyms[name]
        return expanded(options[random.integers(len(options))], gaps, random)

    # A choice that was left out leaves its space.
    spaced = re.sub(r"\s+", " ", _CHOICE.sub(chosen, text))
    return re.sub(r" (?=[?.,:])", "", spaced).strip()


def wordings() -> list[str]:
    """Every text of the grammar with its choices written out one after the other: for a list of its words."""
    found = grammar()
    bodies = [body.text for kind in found.bodies.values() for body in kind]
    texts = [*bodies, *(frame for frames in found.frames.values() for frame in frames)]
    texts += ["my", "if", *(word for words in found.synonyms.values() for word in words)]
    return [re.sub(r"[\[\]|]", " ", text) for text in texts]
