"""Text from tokens: what is emitted, and when. The tokenizer has one token a byte."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fvs_ros.model.text_stream import TextStream
from fvs_ros.model.tiny import byte_tokenizer

TOKENIZER = byte_tokenizer()


def stream_of(tokens: list[int]) -> tuple[TextStream, list[str]]:
    """A stream that took the tokens, and the pieces that it emits."""
    pieces: list[str] = []
    stream = TextStream(TOKENIZER, pieces.append)
    for token in tokens:
        stream.add(token)
    return stream, pieces


@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20))
@example("\N{CJK COMPATIBILITY IDEOGRAPH-2F800}")
@example("e\N{COMBINING ACUTE ACCENT}")
def test_pieces_join_to_the_text(text: str) -> None:
    """To its composed form, which Qwen2's tokenizers take of every text."""
    stream, pieces = stream_of(TOKENIZER.encode(text, split_special_tokens=True))
    assert "".join(pieces) == unicodedata.normalize("NFC", text) == stream.finish()


def test_a_character_waits_for_its_last_byte() -> None:
    stream, pieces = stream_of(TOKENIZER.encode("a€")[:-1])
    assert stream.text == "a"
    stream.add(TOKENIZER.encode("a€")[-1])
    assert stream.text == "a€"
    assert pieces == ["a", "€"]


@pytest.mark.parametrize(("text", "left"), [("a€", "a\N{REPLACEMENT CHARACTER}"), ("é", "\N{REPLACEMENT CHARACTER}")])
def test_bytes_that_never_become_a_character_are_replaced_at_the_end(text: str, left: str) -> None:
    stream, pieces = stream_of(TOKENIZER.encode(text)[:-1])
    assert stream.finish() == left
    assert stream.text == "".join(pieces) == left
    assert stream.finish() == left, "finishing again adds nothing"


def test_control_tokens_are_no_part_of_the_text() -> None:
    stream, _ = stream_of([*TOKENIZER.encode("yes"), TOKENIZER.convert_tokens_to_ids("<|im_end|>")])
    assert stream.finish() == "yes"
