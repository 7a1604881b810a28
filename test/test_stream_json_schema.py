"""Answers that follow a JSON schema, in the engine: what is refused, and what ends in an error."""

from __future__ import annotations

import json

import jsonschema
import pytest
from engines import failure, feed, result
from fakes import FakeModel, frame

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.tiny import tiny_checkpoint
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.types import AskOptions, ErrorCode

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "room": {"enum": ["kitchen", "hall"]},
            "count": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["room", "count"],
        "additionalProperties": False,
    }
)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (AskOptions(json_schema="{}", choices=("yes", "no")), "both choices and a json_schema; leave one out"),
        (AskOptions(json_schema='{"type": "\ud800"}'), "its character 11 is '\\ud800'"),
        (AskOptions(json_schema="{}"), "a type alone"),
    ],
)
def test_a_schema_that_cannot_be_taken_is_refused(engine: StreamEngine, options: AskOptions, hint: str) -> None:
    feed(engine, frame(1), frame(2))
    error = failure(engine.ask("What?", options))
    assert error.code == ErrorCode.INVALID_QUESTION
    assert hint in str(error)


def test_an_answer_that_could_not_follow_its_schema_is_none(engine: StreamEngine, model: FakeModel) -> None:
    feed(engine, frame(1), frame(2))
    error = failure(engine.ask("What?", AskOptions(json_schema='{"type": "broken"}')))
    assert error.code == ErrorCode.INVALID_QUESTION
    assert "it broke" in str(error)
    assert result(engine.ask("What?", AskOptions(json_schema='{"type": "object"}'))).text
    assert result(engine.ask("What?")).text


def test_answers_follow_their_schema_and_say_where_they_are_too_long() -> None:
    model = FlashVStream(tiny_checkpoint(memory=FlashMemoryConfig(csm_slots=6, dam_slots=3)), "random")
    with StreamEngine(model, StreamConfig()) as engine:
        for second in range(4):
            engine.submit(frame(second, size=(112, 112)))
        held = AskOptions(json_schema=SCHEMA, max_new_tokens=80, fresh=True)
        pieces: list[str] = []
        fresh = AskOptions(fresh=True)
        answers = [engine.ask("What?", held, pieces.append), engine.ask("What?", fresh), engine.ask("Where?", held)]
        first, plain, other = (result(answer) for answer in answers)
        for answer in (first, other):
            jsonschema.validate(json.loads(answer.text), json.loads(SCHEMA))
            assert not answer.truncated
        assert "".join(pieces) == first.text
        assert plain.text == result(engine.ask("What?", fresh)).text
        short = result(engine.ask("What?", AskOptions(json_schema=SCHEMA, max_new_tokens=5)))
        assert (short.text, short.truncated) == (first.text[:5], True)
