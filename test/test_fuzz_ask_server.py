"""Requests with any field wrong, over DDS: a response with an answer, or with an error code and one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import require_ros
from engines import engine_maker, feed
from fakes import PATIENCE_S, frame
from fuzzing import check_message, fuzz
from hypothesis import example, given
from hypothesis import strategies as st

require_ros()
from ask_servers import ask_server
from test_fuzz_requests import QUESTIONS, RealTokensModel

from fvs_ros.ros_tools.client import FlashVStreamClient
from fvs_ros.stream.types import AskError, AskOptions, ErrorCode


@pytest.fixture(scope="module")
def client() -> Iterator[FlashVStreamClient]:
    """A client of an ask server that takes requests as the node does, on a model with frames in memory."""

    def options(request: Any) -> AskOptions:
        return AskOptions(request.max_new_tokens or None, request.timeout_s or None, request.fresh)

    with engine_maker(RealTokensModel()) as make:
        engine = make(timeout_s=PATIENCE_S)
        feed(engine, frame(1), frame(2))
        with ask_server(lambda: engine, options=options) as made:
            yield made


@given(
    QUESTIONS,
    st.one_of(st.integers(-1, 2_000), st.sampled_from([2**31, 2**32 - 1, 2**32, 10**400])),
    st.one_of(st.floats(), st.integers(-1, 2**17), st.just(10**400)),
    st.booleans(),
    st.booleans(),
)
@example("What\0?", 0, 0.0, False, False)
@example("\ud800", 0, 0.0, False, False)
@example("What?", 0, float("nan"), False, True)
@fuzz(60)
def test_any_request(
    client: FlashVStreamClient, question: str, max_new_tokens: int, timeout_s: float, fresh: bool, streamed: bool
) -> None:
    limits: dict[str, Any] = {"max_new_tokens": max_new_tokens, "timeout_s": timeout_s, "fresh": fresh}
    try:
        result = client.ask_stream(question, **limits).result() if streamed else client.ask(question, **limits)
    except AskError as error:
        check_message(error)
        assert error.code in (ErrorCode.INVALID_QUESTION, ErrorCode.TIMEOUT)  # noqa: PT017 - it may also succeed
        return
    assert result.success
    assert result.answer
    assert "\0" not in question
