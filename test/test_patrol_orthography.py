from __future__ import annotations

import difflib
from collections.abc import Callable

import numpy as np
import pytest

from fvs_ros.patrol import orthography
from fvs_ros.patrol.orthography import mistyped, styled

SHARES = ("CAPITAL", "MARK_DROPPED", "CONTRACTED", "AMERICAN", "NO_ARTICLES", "TYPO")
TEXT = "what is the colour of a chair that I did not see?"


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Styles a text with some habits for certain and all others never."""

    def style(text: str, *habits: str, seed: int = 0) -> str:
        for share in SHARES:
            monkeypatch.setattr(orthography, f"{share}_SHARE", float(share in habits))
        return styled(text, np.random.default_rng(seed))

    return style


@pytest.mark.parametrize(
    ("habits", "expected"),
    [
        ((), "what is the colour of a chair that i did not see?"),
        (("CAPITAL",), "What is the colour of a chair that I did not see?"),
        (("MARK_DROPPED",), "what is the colour of a chair that i did not see"),
        (("CONTRACTED",), "what's the colour of a chair that i didn't see?"),
        (("AMERICAN",), "what is the color of a chair that i did not see?"),
        (("NO_ARTICLES",), "what is colour of chair that i did not see?"),
    ],
)
def test_each_habit_changes_what_it_says(only: Callable[..., str], habits: tuple[str, ...], expected: str) -> None:
    assert only(TEXT, *habits) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I would like to know whether you have seen it.", "I'd like to know whether you've seen it."),
        ("do you have a chair in view?", "Do you have a chair in view?"),
        ("say where you are. I know where it is.", "Say where you are. I know where it is."),
        ("there is one, is not it?", "There's one, isn't it?"),
    ],
)
def test_only_what_can_be_contracted_is(only: Callable[..., str], text: str, expected: str) -> None:
    assert only(text, "CONTRACTED", "CAPITAL") == expected


def test_a_typing_error_is_one_slip_in_one_long_word(only: Callable[..., str]) -> None:
    for seed in range(200):
        wrong = mistyped("where is the red chair", np.random.default_rng(seed))
        old, new = ["where", "is", "the", "red", "chair"], wrong.split()
        assert len(old) == len(new)
        changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
        assert len(changed) <= 1, "a letter may have been replaced by itself"
        for a, b in changed:
            assert len(a) >= 4
            assert abs(len(a) - len(b)) <= 1
            assert difflib.SequenceMatcher(None, a, b).ratio() > 0.7
    assert mistyped("is it a box", np.random.default_rng(0)) == "is it a box"


def test_shares_are_as_documented() -> None:
    numbers = np.random.default_rng(0)
    texts = [styled("where is the red chair?", numbers) for _ in range(4000)]
    assert sum(text[0].isupper() for text in texts) / 4000 == pytest.approx(0.6, abs=0.03)
    assert sum(not text.endswith("?") for text in texts) / 4000 == pytest.approx(0.3, abs=0.03)
    assert sum("'s" in text for text in texts) / 4000 == pytest.approx(0.4, abs=0.04)
    words = {"where", "where's", "is", "the", "red", "chair"}
    wrong = sum(not set(text.lower().rstrip("?").split()) <= words for text in texts)
    assert wrong / 4000 == pytest.approx(0.05, abs=0.015), "one in twenty has a typing error"
