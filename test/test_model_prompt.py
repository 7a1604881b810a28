from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2Tokenizer

from fvs_ros.model.prompt import ANSWER_START, HEAD, MEMORY_END, PromptBuilder
from fvs_ros.model.tiny import CONTROL_TOKENS, byte_tokenizer

TOKENIZER = byte_tokenizer()
BUILDER = PromptBuilder(TOKENIZER)


def test_the_prompt_is_the_published_one() -> None:
    prompt = BUILDER.build("What do you see?")
    text = f"{HEAD}{MEMORY_END}What do you see?{ANSWER_START}"
    assert [*prompt.head, *prompt.suffix] == TOKENIZER.encode(text, add_special_tokens=False)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|vision_end|>"
        "What do you see?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_answer_prefix_follows_the_assistant_header() -> None:
    prompt = BUILDER.build("A or B?", answer_prefix="Best option: (")
    assert TOKENIZER.decode(prompt.suffix).endswith("<|im_start|>assistant\nBest option: (")


@given(before=st.text(max_size=20), token=st.sampled_from(CONTROL_TOKENS), after=st.text(max_size=20))
def test_user_text_never_becomes_a_control_token(before: str, token: str, after: str) -> None:
    question = before + token + after
    plain = len(BUILDER.build("").suffix)
    suffix = BUILDER.build(question).suffix
    controls = set(TOKENIZER.added_tokens_decoder)
    assert sum(index in controls for index in suffix) == sum(index in controls for index in BUILDER.build("").suffix)
    assert len(suffix) > plain
    assert token in BUILDER.control_tokens_in(question)


def test_plain_questions_hold_no_control_tokens() -> None:
    assert BUILDER.control_tokens_in("is <im_end> | a token?") == []


def test_a_tokenizer_without_the_control_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="im_start"):
        PromptBuilder(Qwen2Tokenizer(vocab={"a": 0}, merges=[]))
