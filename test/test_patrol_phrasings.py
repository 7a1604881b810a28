from __future__ import annotations

import hashlib
import re
import runpy
from collections import Counter
from itertools import chain, islice, product
from pathlib import Path

import numpy as np
import pytest

from fvs_ros.patrol import orthography, templates_outside
from fvs_ros.patrol.config import Wording
from fvs_ros.patrol.phrasings import FORMS, HELD_OUT_EVERY, expanded, grammar, phrase, read_data
from fvs_ros.patrol.questions import CLOCK_TEMPLATES, TEMPLATES, tokens

ROOT = Path(__file__).resolve().parents[1]
# What each file of the grammar trains on and holds out, as a digest, without the kinds of patrols with a clock.
SPLITS = {
    "phrasings.yaml": "5dcf70edeecaab5520eff631866142b2332a366b9b699c70efbf586750603ed2",
    "phrasings_more.yaml": "c366a094ecaabba75fafc2fa2303dc4a9102847b1e9111cd7bd92da250693533",
}
KINDS = {template.name: template for template in CLOCK_TEMPLATES if template.family != templates_outside.FAMILY}
GAPS = {
    "thing": "red chair",
    "a_thing": "an orange box",
    "one": "blue ball",
    "other": "green cone",
    "kind": "lamp",
    "kinds": "ladders",
    "a_kind": "a ladder",
    "colour": "purple",
    "room": "kitchen",
    "began": "two minutes ago",
    "clock": "five past two in the afternoon",
    "when": "in the last hour",
}
# What each kind cannot be asked without.
NEEDED = {
    name: {gap for gap in GAPS if any(f"{{{gap}}}" in text for text in template.phrasings)} - {"began"}
    for name, template in KINDS.items()
} | {
    "recall.place": {"thing"},
    "recall.in_room": {"a_thing", "room"},
    "recall.any_kind": {"kinds"},
    "recall.any_colour": {"colour"},
    "recall.all_kind": {"kinds"},
    "change.where": set(),
    "time.duration": set(),
    "time.stay": {"room"},
    "time.nearest": {"thing", "one", "other"},
    "description.story": set(),
}


def choices(text: str) -> list[str]:
    """A text with each of its inline choices."""
    parts = re.split(r"\[([^\]]*)\]", text)
    return [
        "".join(chosen)
        for chosen in product(*([part] if i % 2 == 0 else part.split("|") for i, part in enumerate(parts)))
    ]


def skeleton(text: str) -> str:
    """A construction without the words that are chosen: what two must differ in."""
    return re.sub(r"\[[^\]]*\]|\{\w+\}", "*", text)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_every_kind_of_question_has_bodies_and_nothing_else_has() -> None:
    assert set(grammar().bodies) == set(KINDS)
    for name in SPLITS:
        for kind, forms in read_data(name)["kinds"].items():
            assert kind in KINDS
            assert set(forms) <= set(FORMS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_at_least_sixty_constructions_of_which_a_fifth_of_the_bodies_is_held_out(kind: str) -> None:
    found = grammar()
    trained, held_out = ({skeleton(text) for text in found.constructions(kind, side)} for side in (False, True))
    assert len(trained | held_out) >= 60
    assert not trained & held_out
    bodies = found.bodies[kind]
    assert len({skeleton(body.text) for body in bodies}) >= 20, "bodies that differ in more than a word"
    assert sum(body.held_out for body in bodies) == len(bodies) // HELD_OUT_EVERY
    assert {body.form for body in bodies} >= {"questions", "clauses", "sentences"}
    assert {body.form for body in bodies} <= set(FORMS)


def test_every_body_stays_on_its_side_of_the_split() -> None:
    """Weights have been trained on one side, and figures are told of the other: a new body may not move an old one."""
    files = {name: read_data(name)["kinds"] for name in SPLITS}
    digests = {name: hashlib.sha256() for name in SPLITS}
    without_clock = {template.name for template in TEMPLATES}
    for kind, bodies in grammar().bodies.items():
        if kind not in without_clock:
            continue
        following = iter(bodies)
        for name, kinds in files.items():
            for body in islice(following, sum(map(len, kinds[kind].values()))):
                digests[name].update(f"{kind} {body.held_out} {body.text}\n".encode())
    assert {name: digest.hexdigest() for name, digest in digests.items()} == SPLITS


@pytest.mark.parametrize("kind", KINDS)
def test_every_body_names_what_is_asked_about(kind: str) -> None:
    synonyms = set(grammar().synonyms)
    for body in grammar().bodies[kind]:
        for text in choices(body.text):
            names = set(re.findall(r"\{(\w+)\}", text.replace("{a_kind}", "{kinds}")))
            assert names - synonyms == NEEDED[kind], text
        assert not re.search(r"[?.]$", body.text), body.text
        assert body.text == body.text.strip()


def test_no_two_kinds_share_a_construction() -> None:
    """It would have two answers."""
    owners: dict[str, set[str]] = {}
    for kind in KINDS:
        for text in chain(grammar().constructions(kind, False), grammar().constructions(kind, True)):
            owners.setdefault(text, set()).add(kind)
    shared = {text: kinds for text, kinds in owners.items() if len(kinds) > 1}
    assert not shared


def test_no_two_kinds_share_a_body_however_its_choices_fall() -> None:
    found = grammar()
    left_out = {name for name, words in found.synonyms.items() if "" in words}
    assert left_out
    owners: dict[str, set[tuple[str, bool]]] = {}
    for kind in KINDS:
        for body in found.bodies[kind]:
            for text in choices(body.text):
                short = re.sub(r"\{(\w+)\}", lambda gap: "" if gap[1] in left_out else gap[0], text)
                owners.setdefault(" ".join(short.split()), set()).add((kind, body.held_out))
    assert not {text: sides for text, sides in owners.items() if len(sides) > 1}


def test_held_out_constructions_use_no_word_that_training_lacks() -> None:
    """They test constructions; a word never seen would test something else."""
    found = grammar()

    def words(side: bool) -> set[str]:
        texts = [text for kind in KINDS for text in found.constructions(kind, side)]
        open_sets = {name for text in texts for name in re.findall(r"\{(\w+)\}", text)} & set(found.synonyms)
        texts += [word for name in open_sets for word in found.synonyms[name]]
        return {token.lower() for text in texts for token in tokens(re.sub(r"\{\w+\}|[\[\]|]", " ", text))}

    assert not words(True) - words(False)


def test_all_that_is_open_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    for share in ("TYPO_SHARE", "NO_ARTICLES_SHARE", "AMERICAN_SHARE"):
        monkeypatch.setattr(orthography, share, 0.0)
    for kind, template in KINDS.items():
        for wording in (Wording.TRAINED, Wording.HELD_OUT):
            for seed in range(30):
                text = phrase(kind, template.phrasings, GAPS, wording, random(seed))
                assert not re.search(r"[\[\]{}|]|  | [?.,]", text), text
                named = text.lower().replace("the orange box", "an orange box").replace("a ladder", "ladders")
                assert all(GAPS[gap].lower() in named for gap in NEEDED[kind]), (kind, text)


def test_the_same_numbers_give_the_same_words() -> None:
    def drawn(seed: int) -> list[str]:
        numbers = random(seed)
        return [phrase("recall.where", (), GAPS, Wording.TRAINED, numbers) for _ in range(20)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len(set(drawn(1))) > 15


def test_original_phrasings_are_kept_as_written_and_stand_among_the_trained_ones() -> None:
    originals = ("Where was the {thing}?",)
    assert phrase("recall.where", originals, GAPS, Wording.ORIGINAL, random()) == "Where was the red chair?"
    numbers = random()
    drawn = Counter(phrase("recall.where", originals, GAPS, Wording.TRAINED, numbers) for _ in range(1000))
    assert 100 < drawn["Where was the red chair?"] < 220


def test_held_out_bodies_are_never_drawn_for_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fvs_ros.patrol.phrasings.styled", lambda text, _: text)
    numbers = random()
    held_out = {body.text for body in grammar().bodies["now.view"] if body.held_out}
    found = {grammar().draw("now.view", False, numbers) for _ in range(2000)}
    assert len(found) > 100
    assert not [text for text in found for body in held_out if body in text]


def test_choices_are_drawn_and_may_be_left_out() -> None:
    numbers = random()
    found = {expanded("[a|the|] {object}, {thing}?", {"thing": "x"}, numbers) for _ in range(200)}
    nouns = grammar().synonyms["object"]
    assert found == {f"{article}{noun}, x?" for article in ("a ", "the ", "") for noun in nouns}


def test_bodies_that_begin_with_whether_may_begin_with_if() -> None:
    firsts = {
        expanded(body.text, GAPS, random(seed)).split()[0]
        for body in grammar().bodies["recall.seen"]
        if body.form == "clauses"
        for seed in range(20)
    }
    assert firsts == {"whether", "if"}


@pytest.mark.parametrize(
    "words",
    [
        "What do you see?",
        "Did you see a green chair?",
        "What was the first room?",
        "How many rooms have you been in?",
        "Count the green objects you saw.",
    ],
)
def test_what_newcomers_ask_is_made_of_known_words(words: str) -> None:
    from fvs_ros.patrol.questions import words as vocabulary

    assert set(tokens(words)) <= set(vocabulary())


def test_the_page_of_wordings_is_up_to_date() -> None:
    script = runpy.run_path(str(ROOT / "scripts/phrasings_page.py"))
    assert (ROOT / "docs/phrasings.md").read_text(encoding="utf-8") == script["page"]()
