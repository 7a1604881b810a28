"""A table of answers, read strictly and by the published parsers."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fvs_ros.evaluation import parsing
from fvs_ros.evaluation.parsing import Choice, parse_choice, parse_count, parse_minutes, parse_position, parse_yes_no

OPTIONS = ("a dog", "a cat", "C opens and C closes the door", "Both A and B")

CHOICES = [
    # The letter alone.
    ("B", 1),
    ("b", 1),
    (" B\n", 1),
    ("(B)", 1),
    ("(B", 1),
    ("B)", 1),
    ("B).", 1),
    ("B.", 1),
    ("B:", 1),
    ("**B**", 1),
    ("A", 0),
    ("D", 3),
    # After a lead-in.
    ("Best option: (B", 1),
    ("Best option: (B)", 1),
    ("The answer is B.", 1),
    ("The correct option is B", 1),
    ("Answer: (B) a cat", 1),
    ("Therefore, the best answer is (B).", 1),
    # The letter with text.
    ("B. a cat", 1),
    ("B.a cat", 1),
    ("(B)a cat", 1),
    ("(B. a cat;", 1),
    ("B: A cat.", 1),
    ("B a cat", 1),
    ("B. It is clear from the video.", 1),
    ("B.\nExplanation: it meows", 1),
    ("(C) C opens and C closes the door", 2),
    ("(C) C opens and", 2),
    ("(D) Both A and B", 3),
    # The whole text of an option.
    ("a cat", 1),
    ("A cat.", 1),
    ("A dog", 0),
    ("Both A and B", 3),
    # Several letters, or a letter with another option's text.
    ("A, B", None),
    ("A and B", None),
    ("A/B", None),
    ("AB", None),
    ("(A)(B)", None),
    ("(A) or (B)", None),
    ("A. B.", None),
    ("B. Because (C) is wrong", None),
    ("B. a dog", None),
    # Letters that may be words or names.
    ("A dog is running", None),
    ("A.M. is early", None),
    ("C opens the box", None),
    ("B?", None),
    ("b cat", None),
    # No option.
    ("E", None),
    ("I do not know", None),
    ("The answer is not B", None),
    ("The dog", None),
    ("Answer", None),
    ("", None),
    ("   ", None),
    (None, None),
]


@pytest.mark.parametrize(("response", "expected"), CHOICES)
def test_choice(response: str, expected: Any) -> None:
    assert parse_choice(response, OPTIONS) == expected


def test_choice_without_the_texts_reads_letters_up_to_the_count() -> None:
    assert parse_choice("(C) whatever", ()) == 2


def test_options_that_are_numbers_or_letters() -> None:
    assert parse_choice("7", ("1", "3", "5", "7")) == 3
    assert parse_choice("3.5", ("1", "3", "5", "7")) is None
    assert parse_choice("B", ("B", "A")) == 1, "a letter is a letter, also where an option's text is one"


def test_equal_options_are_told_apart_by_their_letters_only() -> None:
    assert parse_choice("same", ("same", "same")) is None
    assert parse_choice("(B) same", ("same", "same")) == 1


@given(st.text(max_size=40), st.lists(st.text(max_size=8), max_size=6))
def test_any_response_gives_an_option_or_nothing(response: str, options: tuple[str, ...]) -> None:
    index = parse_choice(response, options)
    assert index is None or 0 <= index < (len(options) or 26)


@pytest.mark.parametrize("index", range(4))
def test_an_option_with_its_letter_and_text_is_always_read(index: int) -> None:
    options = ("The man, who is tall.", "A and B", "(C) none", "Yes")
    assert parse_choice(f"({'ABCD'[index]}) {options[index]}", options) == index


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("What?\n(A) one\n(B) two \nOnly give the best option.", ("one", "two")),
        ("What?\nOptions:\n(A) one", ("one",)),
        ("What?\nA. one\nB. two.", ("one", "two.")),
        ("What?\n(A) A. Smith\n(B) B. Jones", ("A. Smith", "B. Jones")),
        ("What?\n(A) one\n(C) three", ()),
        ("What is (A) here?", ()),
    ],
)
def test_inline_options(question: str, options: tuple[str, ...]) -> None:
    assert parsing.inline_options(question) == options


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("Yes", True),
        ("yes.", True),
        ("No, she is not.", False),
        ("Y", True),
        ("n", False),
        ("Yes and no", None),
        ("Y es", None),
        ("I see: yes", None),
        ("Nothing", None),
        ("", None),
        (None, None),
    ],
)
def test_yes_no(response: str, expected: Any) -> None:
    assert parse_yes_no(response) is expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("3", 3),
        ("3 times.", 3),
        ("They jumped 12 times", 12),
        ("1 or 2", None),
        ("2.5", None),
        ("3.", 3),
        ("-1", None),
        ("three", None),
        ("", None),
        (None, None),
    ],
)
def test_count(response: str, expected: Any) -> None:
    assert parse_count(response) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("[1, -2.5, 3e1]", (1.0, -2.5, 30.0)),
        ("It is at (1.0, 2.0).", (1.0, 2.0)),
        ('{"position": [1, 2, 3], "text": "there"}', (1.0, 2.0, 3.0)),
        ('```json\n{"position": "[1, 2, 3]"}\n```', (1.0, 2.0, 3.0)),
        ("1, 2, 3", (1.0, 2.0, 3.0)),
        ('{"text": "there"}', None),
        ('{"position": [1, true]}', None),
        ("[1]", None),
        ("[1, 2] or [3, 4]", None),
        ("far away", None),
        (None, None),
    ],
)
def test_position(response: str, expected: Any) -> None:
    assert parse_position(response) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("5", 5.0),
        ("2.5 minutes ago", 2.5),
        ("30 seconds", 0.5),
        ("1 hour", 60.0),
        ("90s", 1.5),
        ("about 4 min", 4.0),
        ('{"time": 7}', 7.0),
        ('{"time": "7 minutes"}', 7.0),
        ("1 minute 30 seconds", None),
        ("a while", None),
        ("", None),
        (None, None),
    ],
)
def test_minutes(response: str, expected: Any) -> None:
    assert parse_minutes(response, "time") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("response", "index"), [("B", 1), ("An apple", 0), ("The answer is C", 2), ("HELLO E", 4), ("Did D", 3)]
)
def test_flash_vstream_takes_the_first_capital_letter(response: str, index: int) -> None:
    assert parsing.first_letter(response, random.Random(0)) == Choice(index, drawn=False)


def test_flash_vstream_draws_among_five_letters_where_there_is_none() -> None:
    drawn = [parsing.first_letter("none", random.Random(seed)) for seed in range(50)]
    assert all(choice.drawn for choice in drawn)
    assert {choice.index for choice in drawn} == {0, 1, 2, 3, 4}
    assert drawn == [parsing.first_letter("none", random.Random(seed)) for seed in range(50)]


def test_ovo_bench_rules() -> None:
    assert parsing.contains_letter("The Cat", "C")
    assert not parsing.contains_letter("c", "C")
    assert not parsing.contains_letter(None, "C")
    assert parsing.joined_digits("1 or 2", 12)
    assert not parsing.joined_digits("three", 3)
    assert not parsing.joined_digits(None, 0)
    assert parsing.contains_yes_no("No. Yes!", True)
    assert parsing.contains_yes_no("N", False)
    assert not parsing.contains_yes_no("yes", True)
    assert not parsing.contains_yes_no(None, False)


def test_streaming_bench_compares_the_first_character() -> None:
    assert parsing.first_character("C. three", "C")
    assert not parsing.first_character(" C", "C")
    assert not parsing.first_character("(C)", "C")
    assert not parsing.first_character("", "C")
