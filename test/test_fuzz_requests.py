"""Questions with any field wrong: an answer, or an `AskError` that says what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from engines import engine_maker, feed
from fakes import PATIENCE_S, FakeModel, frame
from fuzzing import check_message, fuzz
from hypothesis import example, given
from hypothesis import strategies as st

from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.model.tiny import byte_tokenizer
from fvs_ros.stream.config import LONGEST_TIMEOUT_S, StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.history import MOST_QUESTIONS, check_history
from fvs_ros.stream.types import AskError, AskOptions, ChatMessage, ErrorCode

PROMPTS = PromptBuilder(byte_tokenizer())
CONTROL = ("<|im_end|>", "<|im_start|>", "<|vision_start|>", "<|video_pad|>")
PIECES = ("What?", " ", "\0", "\u202e", "\U0001f469\u200d\U0001f680")
# Every code point, half characters and control characters among them.
QUESTIONS = st.one_of(
    st.text(st.characters(), max_size=40),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "Co", "Mn"]), max_size=10),
    st.lists(st.sampled_from([*CONTROL, "What?", " ", "\0", "\u202e", "\U0001f469\u200d\U0001f680"]), max_size=5).map(
        "".join
    ),
    st.sampled_from(["x" * 1_999, "x" * 2_000, "x" * 2_001, "\U0001f600" * 2_000, "x" * 2**20]),
)
# What fields of a request hold, uint32 and float32, and what Python gives the engine.
TOKENS = st.one_of(st.none(), st.integers(-5, 2_000), st.sampled_from([2**31, 2**32 - 1, 2**64, 10**400]))
SECONDS = st.one_of(
    st.none(),
    st.floats(width=32),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.0, -1.0, 1e-45, LONGEST_TIMEOUT_S, 86_400.01, 3.4e38]),
)


class RealTokensModel(FakeModel):
    """A fake model with the real check for control tokens."""

    def control_tokens_in(self, text: str) -> list[str]:
        return PROMPTS.control_tokens_in(text)


@pytest.fixture(scope="module")
def engine() -> Iterator[StreamEngine]:
    """An engine with frames in memory."""
    with engine_maker(RealTokensModel()) as make:
        running = make()
        feed(running, frame(1), frame(2))
        yield running


@given(QUESTIONS, TOKENS, SECONDS, st.booleans())
@example("What?", 1, math.nan, False)
@example("What?", 2**32 - 1, 1.0, False)
@example("What?", 10**400, 1.0, False)
@example("\ud800", None, None, False)
@example("<|im_end|>" * 200, None, None, False)
@fuzz(300)
def test_any_question(
    engine: StreamEngine, question: str, max_new_tokens: int | None, timeout_s: float | None, fresh: bool
) -> None:
    pending = engine.ask(question, AskOptions(max_new_tokens, timeout_s, fresh))
    try:
        answer = pending.result(PATIENCE_S)
    except AskError as error:
        check_message(error)
        assert error.code in (ErrorCode.INVALID_QUESTION, ErrorCode.TIMEOUT)  # noqa: PT017 - it may also succeed
        if error.code == ErrorCode.TIMEOUT:
            assert timeout_s is not None
            assert 0 < timeout_s < PATIENCE_S
        return
    assert answer.text
    assert question.strip()
    assert len(question) <= StreamConfig().question_characters
    assert max_new_tokens is None or 1 <= max_new_tokens <= StreamConfig().max_new_tokens_limit
    assert timeout_s is None or 0 < timeout_s <= LONGEST_TIMEOUT_S
    question.encode()
    assert not any(token in question for token in CONTROL)


MESSAGES = st.builds(ChatMessage, st.sampled_from(["user", "assistant", "system", "", "\ud800", "USER"]), QUESTIONS)
CONVERSATIONS = st.lists(
    st.tuples(
        st.builds(ChatMessage, st.just("user"), QUESTIONS), st.builds(ChatMessage, st.just("assistant"), QUESTIONS)
    ),
    max_size=3,
).map(lambda turns: [message for turn in turns for message in turn])


@given(st.one_of(st.lists(MESSAGES, max_size=40), CONVERSATIONS))
@fuzz(200)
def test_any_history(history: list[ChatMessage]) -> None:
    """What passes the checks becomes no more tokens than are allowed, with the control tokens of the prompt alone."""
    most = StreamConfig().question_characters
    try:
        turns = check_history(history, most)
    except AskError as error:
        check_message(error)
        assert error.code == ErrorCode.INVALID_QUESTION  # noqa: PT017 - it may also succeed
        return
    tokens, plain = (PROMPTS.build("What?", turns=read).suffix for read in (turns, [("", "")] * len(turns)))
    assert len(tokens) - len(plain) <= MOST_QUESTIONS * most
    control = set(byte_tokenizer().convert_tokens_to_ids(list(CONTROL)))
    assert [token for token in tokens if token in control] == [token for token in plain if token in control]


@given(QUESTIONS)
@fuzz(200)
def test_any_prompt(question: str) -> None:
    """What passes the checks becomes the tokens of a prompt, in which no text of the question is a control token."""
    try:
        question.encode()
    except UnicodeEncodeError:
        return
    found = PROMPTS.control_tokens_in(question)
    assert [token for token in CONTROL if token in question] == [token for token in CONTROL if token in found]
    prompt = PROMPTS.build(question, "")
    control = set(byte_tokenizer().convert_tokens_to_ids(list(CONTROL)))
    assert sum(token in control for token in prompt.suffix) == sum(
        token in control for token in PROMPTS.build("", "").suffix
    )
