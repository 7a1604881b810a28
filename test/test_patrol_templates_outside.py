from __future__ import annotations

import re
from collections import Counter
from importlib import resources

import numpy as np
import pytest
import yaml

from fvs_ros.patrol import orthography
from fvs_ros.patrol.phrasings import Wording
from fvs_ros.patrol.templates_outside import TEMPLATES
from fvs_ros.patrol.vocabulary import COLOURS, KINDS, PLURALS, ROOMS

WORLD = {*COLOURS, *KINDS, *PLURALS.values(), *ROOMS}


def file() -> dict:
    return yaml.safe_load(resources.files("fvs_ros.patrol").joinpath("outside.yaml").read_text(encoding="utf-8"))


def drawn(wording: Wording, count: int, seed: int = 0) -> list[tuple[str, str]]:
    numbers = np.random.default_rng(seed)
    templates = [template for template in TEMPLATES if template.has(wording)]
    chosen = [templates[number] for number in numbers.integers(len(templates), size=count)]
    return [(template.name, template.question({}, wording, numbers)) for template in chosen]


def test_a_third_of_the_kinds_is_held_out() -> None:
    held_out = [template.name for template in TEMPLATES if template.held_out]
    assert len(TEMPLATES) >= 26
    assert len(held_out) / len(TEMPLATES) == pytest.approx(1 / 3, abs=0.05)


def test_original_wording_has_none_and_training_none_of_those_held_out() -> None:
    assert not [template for template in TEMPLATES if template.has(Wording.ORIGINAL)]
    trained = {template.name for template in TEMPLATES if template.has(Wording.TRAINED)}
    assert trained == {template.name for template in TEMPLATES if not template.held_out}
    assert all(template.has(Wording.HELD_OUT) for template in TEMPLATES)


def test_no_list_holds_a_word_of_the_world() -> None:
    for name, words in file()["lists"].items():
        assert not {str(word) for word in words} & WORLD, name


def test_the_test_has_over_three_hundred_questions_that_training_never_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    for share in ("TYPO", "CONTRACTED", "NO_ARTICLES", "AMERICAN", "MARK_DROPPED", "CAPITAL"):
        monkeypatch.setattr(orthography, f"{share}_SHARE", 0.0)
    trained = {text.rstrip("?.") for _, text in drawn(Wording.TRAINED, 20_000)}
    asked = {(kind, text.rstrip("?.")) for kind, text in drawn(Wording.HELD_OUT, 2_000, seed=1)}
    new = [(kind, text) for kind, text in asked if text not in trained]
    assert len(new) > 1_000
    assert len(new) > 0.97 * len(asked), "kinds whose patterns have no slot may meet by chance"
    assert len({kind for kind, _ in new}) == len(TEMPLATES)


def test_every_slot_is_filled_and_articles_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orthography, "TYPO_SHARE", 0.0)
    counts: Counter[str] = Counter()
    for kind, text in drawn(Wording.HELD_OUT, 3_000):
        assert not re.search(r"[{}]", text), (kind, text)
        assert not re.search(r"\ba [aeio]", text.lower()) or kind in (
            "outside.german_french",
            "outside.spanish_italian",
        ), (kind, text)
        counts[kind] += 1
    assert min(counts.values()) > 15
