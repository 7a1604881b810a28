"""How people write: capitals, closing marks, contractions, articles, American spelling and typing errors."""

from __future__ import annotations

import re
import string

import numpy as np

CAPITAL_SHARE = 0.6
"""Of texts that begin with a capital."""
MARK_DROPPED_SHARE = 0.3
"""Of texts without their closing mark."""
CONTRACTED_SHARE = 0.4
"""Of texts whose words are drawn together where they can be."""
AMERICAN_SHARE = 0.5
"""Of texts in American spelling."""
NO_ARTICLES_SHARE = 0.08
"""Of texts without articles."""
TYPO_SHARE = 0.05
"""Of texts with one typing error."""

_CONTRACTIONS = tuple(
    (re.compile(rf"\b{full}\b", re.IGNORECASE), short)
    for full, short in (
        (r"(what|where|when|who|how|there|that|here) is(?= \w)", r"\1's"),
        (r"(did|do|does|have|has|is|are|was|were|would|could) not", r"\1n't"),
        (r"I would", "I'd"),
        (r"I am(?= \w)", "I'm"),
        (r"you have (?=\w+(?:ed|en|n)\b)", "you've "),
        (r"you are(?= \w)", "you're"),
    )
)
_ARTICLES = re.compile(r"\b(?:the|an?) ", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]{4,}")
CONTRACTED_TOKENS = ("'s", "'t", "'d", "'m", "'ve", "'re")
"""What a tokenizer splits off contracted words."""


def styled(text: str, random: np.random.Generator) -> str:
    """A text as somebody might type it.

    Args:
        text: in lower case but "I", with its closing mark and British spelling.
        random: draws.
    """
    if random.random() < CONTRACTED_SHARE:
        for full, short in _CONTRACTIONS:
            text = full.sub(short, text)
    if random.random() < AMERICAN_SHARE:
        text = text.replace("colour", "color")
    if random.random() < NO_ARTICLES_SHARE:
        text = _ARTICLES.sub("", text)
    if random.random() < TYPO_SHARE:
        text = mistyped(text, random)
    if random.random() < MARK_DROPPED_SHARE:
        text = text.rstrip("?.!")
    return text[:1].upper() + text[1:] if random.random() < CAPITAL_SHARE else text.replace("I", "i")


def mistyped(text: str, random: np.random.Generator) -> str:
    """A text with one typing error: in a word of at least four letters two change places, or one is left out, typed
    twice or replaced. A text without such a word stays as it is.
    """
    words = list(_WORD.finditer(text))
    if not words:
        return text
    word = words[random.integers(len(words))]
    place = word.start() + int(random.integers(len(word[0]) - 1))
    one, other, rest = text[place], text[place + 1], text[place + 2 :]
    wrong = (
        other + one + rest,
        other + rest,
        one + one + other + rest,
        string.ascii_lowercase[random.integers(26)] + other + rest,
    )
    return text[:place] + wrong[random.integers(len(wrong))]
