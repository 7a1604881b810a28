"""From what a model wrote to an answer: a strict parse that never guesses, and the published parsers by name.

The strict parse reads an answer only where it can mean one thing; anything else is unparsed, counted apart and
wrong. The published parsers (`first_letter`, `contains_letter`, `joined_digits`, `contains_yes_no`,
`first_character`) repeat what each benchmark's own scorer does, faults included, so that a score can be compared
with published ones.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

LETTERS = string.ascii_uppercase

_LEAD_IN = re.compile(
    r"(?:so[,\s]+)?(?:therefore[,\s]+)?(?:the\s+)?(?:(?:best|correct|right|final)\s+)?(?:option|answer|choice)\b"
    r"(?:\s+is\b|\s*:)*\s*:?\s*",
    re.IGNORECASE,
)
# A letter, and the mark that makes it more than a word's first one: "B)", "B.", "B:"; "(B." is how a model goes on
# after a prompt that ends in "(".
_LETTER = re.compile(r"\(?(?P<letter>[A-Za-z])(?:(?P<mark>\.?\)|[.:](?=\W|$))|(?=\W|$))")
# An option named after the first one: "(C)", "C." or "C)", "or C", ", C" at the end.
_FURTHER = re.compile(
    r"\(\s*(?P<bracketed>[A-Z])\s*\)"
    r"|(?<![\w'])(?P<marked>[A-Z])(?=[.:)](?:\s|$))"
    r"|(?:\b(?:or|and|option|answer)\s+|[,;/&]\s*)(?P<joined>[A-Z])(?![\w'])"
    r"|^\s*(?P<alone>[A-Z])\s*$"
)
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
_INTEGER = re.compile(r"(?<![\w.+-])\d+(?![\w]|\.\d)")
_MINUTES_PER_UNIT = {"s": 1 / 60, "sec": 1 / 60, "second": 1 / 60, "m": 1.0, "min": 1.0, "minute": 1.0, "hour": 60.0}
_WRAPPING = " \t\r\n*`\"'"


def inline_options(question: str) -> tuple[str, ...]:
    """The options that a question's text lists, one a line: `(A) text`, or `A. text` where no line has brackets.

    Returns:
        The texts without their letters, in order; empty if there are none, or their letters do not run from A on.
    """
    for pattern in (r"^\(([A-Z])\)[ \t]*(.*)$", r"^([A-Z])\.[ \t]*(.*)$"):
        found = re.findall(pattern, question, re.MULTILINE)
        if found:
            in_order = [letter for letter, _ in found] == list(LETTERS[: len(found)])
            return tuple(text.strip() for _, text in found) if in_order else ()
    return ()


def without_options(question: str) -> str:
    """A question's text up to the options that it lists, and without their heading; all of it where it lists none."""
    if not inline_options(question):
        return question.strip()
    found = re.search(r"^(?:\(A\)|A\.)", question, re.MULTILINE)
    assert found is not None, "options begin with A"
    return re.sub(r"\s*Options:\s*$", "", question[: found.start()]).strip()


def _plain(text: str) -> str:
    """Text as it is compared: case, spacing, wrapping marks and final punctuation do not count."""
    return " ".join(text.split()).strip(_WRAPPING + ".;,").casefold()


def parse_choice(response: str | None, options: Sequence[str]) -> int | None:
    """The option that a response chooses, strictly.

    Read are: the letter alone (`B`, `b`, `(B)`, `B.`, `(B`); the letter with its mark and any text (`B. a dog`,
    `(B) a dog`), unless that text is another option's or names another letter; the letter and the option's own
    text; an option's whole text; each of them also after "Best option:", "The answer is" and the like.

    Args:
        response: what the model wrote, without the prompt's `Best option: (`; None for no response.
        options: the options' texts without letters; empty where they are not known, then letters alone are read.

    Returns:
        The index from 0; None for unparsed: nothing, no letter of an option, several letters.
    """
    text = (response or "").strip(_WRAPPING)
    count = len(options) or len(LETTERS)
    plain = [_plain(option) for option in options]
    whole = [index for index, option in enumerate(plain) if option and option == _plain(text)]
    lead_in = _LEAD_IN.match(text)
    if lead_in and not whole:
        text = text[lead_in.end() :].strip(_WRAPPING)
        whole = [index for index, option in enumerate(plain) if option and option == _plain(text)]
    if whole and not re.fullmatch("[a-z]", _plain(text)):
        return whole[0] if len(whole) == 1 else None
    match = _LETTER.match(text)
    if match is None:
        return None
    index = ord(match["letter"].upper()) - ord("A")
    rest = text[match.end() :].strip(_WRAPPING)
    if index >= count or (match["letter"].islower() and rest):
        return None
    return index if not _plain(rest) else _with_text(index, rest, plain, marked=match["mark"] is not None)


def _with_text(index: int, rest: str, plain: list[str], marked: bool) -> int | None:
    """The option of a letter that text follows; see `parse_choice`."""
    said = " ".join(rest.split())
    own = plain[index] if index < len(plain) else ""
    if own and (_plain(rest) == own or (marked and own.startswith(_plain(rest)))):
        return index
    if own and said.casefold().startswith(own):
        said = said[len(own) :]
    # A bare letter before other text may be the article "A", or a person called C in EgoSchema.
    if not marked or _plain(rest) in plain:
        return None
    return None if _further(said) - {LETTERS[index]} else index


def _further(text: str) -> set[str]:
    return {letter for match in _FURTHER.finditer(text) for letter in match.groups() if letter}


def parse_yes_no(response: str | None) -> bool | None:
    """Yes or no, strictly: the first word says it, and the other word does not occur; None for unparsed."""
    words = re.findall(r"[a-z]+", (response or "").casefold())
    if not words:
        return None
    says = {"yes": True, "no": False, "y": True, "n": False}
    if words[0] not in says or (words[0] in ("y", "n") and len(words) > 1):
        return None
    other = "no" if says[words[0]] else "yes"
    return None if other in words else says[words[0]]


def parse_count(response: str | None) -> int | None:
    """A count, strictly: the one integer in the response; None where there is none, or several numbers."""
    text = response or ""
    integers = _INTEGER.findall(text)
    return int(integers[0]) if len(integers) == 1 and len(_NUMBER.findall(text)) == 1 else None


def json_field(response: str, name: str) -> object:
    """A field of a response that is a JSON object, fenced or not; the response itself if it is none."""
    text = re.sub(r"^```(?:json)?|```$", "", response.strip()).strip()
    if text.startswith("{"):
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            return response
        return value.get(name) if isinstance(value, dict) else None
    return response


def parse_position(response: str | None) -> tuple[float, ...] | None:
    """A position in metres, strictly: `[x, y, z]` or `(x, y)`, or the field `position` of a JSON object.

    Returns:
        Two or three coordinates; None for unparsed.
    """
    value = json_field(response or "", "position")
    if isinstance(value, str):
        groups = re.findall(r"[\[(]([^\[\]()]*)[\])]", value)
        if len(groups) > 1:
            return None
        numbers = _NUMBER.findall(groups[0] if groups else value)
        value = [float(number) for number in numbers]
    if not isinstance(value, list) or len(value) not in (2, 3):
        return None
    if any(isinstance(part, bool) or not isinstance(part, int | float) for part in value):
        return None
    return tuple(float(part) for part in value)


def parse_minutes(response: str | None, name: str) -> float | None:
    """A span of time in minutes, strictly: one number with or without a unit.

    Args:
        response: `5`, `2.5 minutes ago`, `30 seconds`, or a JSON object.
        name: the JSON object's field.

    Returns:
        Minutes; a number without a unit is minutes. None for unparsed.
    """
    value = json_field(response or "", name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        return None
    numbers = list(_NUMBER.finditer(value))
    if len(numbers) != 1:
        return None
    following = re.match(r"\s*([a-z]*)", value[numbers[0].end() :].casefold())
    unit = following.group(1) if following else ""
    factor = _MINUTES_PER_UNIT.get(unit.rstrip("s") or unit, 1.0)
    return float(numbers[0].group()) * factor


@dataclass(frozen=True)
class Choice:
    """What Flash-VStream's parser makes of a response.

    Attributes:
        index: the option from 0.
        drawn: whether it was drawn at random because the response holds no letter.
    """

    index: int
    drawn: bool


def first_letter(response: str, draw: random.Random) -> Choice:
    """Flash-VStream's parser: the first capital A to E anywhere, "An apple" is A; without one, drawn at random.

    Source: `extract_answer` of eval_any_dataset.py. It draws among five letters whatever the number of options,
    and unseeded; here from `draw`, so that a score repeats.
    """
    found = re.search("[A-E]", response)
    letter = found.group() if found else draw.choice("ABCDE")
    return Choice(LETTERS.index(letter), found is None)


def contains_letter(response: str | None, letter: str) -> bool:
    """OVO-Bench's rule for its options: the right letter occurs anywhere in the response."""
    return response is not None and letter in response


def joined_digits(response: str | None, count: int) -> bool:
    """OVO-Bench's rule for REC: all digits of the response, joined, spell the count; "1 or 2" is 12."""
    return response is not None and "".join(re.findall(r"\d+", response)) == str(count)


def contains_yes_no(response: str | None, expected: bool) -> bool:
    """OVO-Bench's rule for SSR and CRR: `Yes` or `No` occurs as expected, or the response is `Y` or `N`."""
    if response is None:
        return False
    word = "Yes" if expected else "No"
    return response == word[0] or word in response


def first_character(response: str, letter: str) -> bool:
    """StreamingBench's rule: the response's first character is the right letter; leading spaces are not skipped."""
    return response[:1] == letter
