"""Answers that follow a JSON schema: by random weights with a tokenizer of bytes, and by the embedded model."""

from __future__ import annotations

import builtins
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema
import pytest
import torch

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.snapshot import PatchGrid, StepFeatures
from fvs_ros.model.allowed_tokens import AllowedTokens
from fvs_ros.model.decoder import SuffixChunk
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.generation import Generation
from fvs_ros.model.json_schema import (
    DEEPEST_SCHEMA,
    LONGEST_SCHEMA,
    MOST_PATTERNS,
    MOST_REFERENCES,
    JsonSchemaError,
    JsonSchemas,
)
from fvs_ros.model.names import EMBEDDED
from fvs_ros.model.prefix_cache import PrefilledMemory, PrefixCache
from fvs_ros.model.question_graph import QuestionStep
from fvs_ros.model.tiny import byte_tokenizer, tiny_checkpoint

GRID = PatchGrid(4, 4)
LONGEST = 400

TEXT = {"type": "string", "maxLength": 12}
SCHEMAS: Mapping[str, dict[str, Any]] = {
    "enum": {"enum": ["kitchen", "hall", "not seen"]},
    "enum of any type": {"enum": [1, "two", None, [3], {"four": 4}]},
    "const": {"const": 'it is <|im_end|> and "so" on\n'},
    "not composed": {"const": "e\u0301te\u0301 <|im_start|>"},
    "boolean": {"type": "boolean"},
    "integer in a range": {"type": "integer", "minimum": -3, "maximum": 1200},
    "number in a range": {"type": "number", "minimum": 0.5, "maximum": 2.5},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 700},
    "text": TEXT,
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
    "date": {"type": "string", "format": "date"},
    "array": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2, "maxItems": 5},
    "tuple": {"type": "array", "prefixItems": [TEXT, {"type": "boolean"}], "items": False, "minItems": 2},
    "object": {
        "type": "object",
        "properties": {
            "room": TEXT,
            "seen": {"type": "boolean"},
            "count": {"type": "integer", "minimum": 0, "maximum": 9},
        },
        "required": ["room", "seen"],
        "additionalProperties": False,
    },
    "nested": {
        "type": "object",
        "properties": {
            "where": {
                "type": "object",
                "properties": {"x": {"type": "number", "minimum": 0, "maximum": 5}, "frame": {"enum": ["map", "odom"]}},
                "required": ["x", "frame"],
                "additionalProperties": False,
            },
            "what": {"type": "array", "items": TEXT, "maxItems": 2},
        },
        "required": ["where", "what"],
        "additionalProperties": False,
    },
    "any of": {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 1, "maximum": 9}]},
    "references": {
        "$ref": "#/$defs/thing",
        "$defs": {
            "colour": {"enum": ["red", "green"]},
            "thing": {
                "type": "object",
                "properties": {"colour": {"$ref": "#/$defs/colour"}},
                "required": ["colour"],
                "additionalProperties": False,
            },
        },
    },
    "keys of any language": {
        "type": "object",
        "properties": {"où est-ce ?": {"enum": ["là-bas", "台所", "e\u0301te\u0301"]}},
        "required": ["où est-ce ?"],
        "additionalProperties": False,
    },
}
OBJECT = json.dumps(SCHEMAS["object"])


@pytest.fixture(scope="module")
def model() -> FlashVStream:
    memory = FlashMemoryConfig(csm_slots=6, dam_slots=3, window_slots=2, time_code=0.1)
    return FlashVStream(tiny_checkpoint(memory=memory), "random")


@pytest.fixture
def cache(model: FlashVStream) -> Iterator[PrefixCache]:
    cache = model.new_prefix_cache()
    yield cache
    cache.close()


@pytest.fixture
def prefilled(model: FlashVStream, cache: PrefixCache) -> PrefilledMemory:
    return prefill(model, cache, 64)


def prefill(model: FlashVStream, cache: PrefixCache, width: int) -> PrefilledMemory:
    generator = torch.Generator().manual_seed(0)
    features = StepFeatures(
        torch.randn(9, GRID.patches, width, generator=generator),
        torch.randn(9, GRID.low_patches, width, generator=generator),
    )
    prefilled = cache.allocate(build_memory(features, GRID, model.memory_config, generator=generator))
    while not prefilled.prefill_chunk():
        pass
    return prefilled


def finish(prefilled: PrefilledMemory, *answers: Generation) -> list[str]:
    while not all(answer.done for answer in answers):
        prefilled.decode_step()
    for answer in answers:
        answer.close()
    return [answer.text for answer in answers]


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_an_answer_parses_and_follows_its_schema(
    model: FlashVStream, prefilled: PrefilledMemory, schema: dict[str, Any]
) -> None:
    for question in ("What?", "Where is the red box?", "é" * 70):
        answer = prefilled.start(question, LONGEST, constraint=model.json_constraint(json.dumps(schema)))
        finish(prefilled, answer)
        assert (answer.truncated, answer.problem) == (False, "")
        jsonschema.validate(json.loads(answer.text), schema, format_checker=jsonschema.FormatChecker())
        assert 0 <= answer.confidence <= 1
        assert (answer.calibrated, answer.not_seen) == (False, False)
        assert answer.relevance is not None
        assert math.isclose(sum(answer.relevance), 1, rel_tol=1e-4)


def test_answers_beside_one_that_follows_a_schema_are_what_they_were(
    model: FlashVStream, prefilled: PrefilledMemory
) -> None:
    alone = [prefilled.start(question, 30) for question in ("What?", "Who?")]
    finish(prefilled, *alone)
    held = [prefilled.start("Where?", LONGEST, constraint=model.json_constraint(OBJECT)) for _ in range(2)]
    beside = [prefilled.start(question, 30) for question in ("What?", "Who?")]
    texts = finish(prefilled, *held, *beside)
    assert [one.text for one in beside] == [one.text for one in alone]
    assert [one.confidence for one in beside] == pytest.approx([one.confidence for one in alone], rel=1e-3)
    assert texts[0] == texts[1]
    # In a row that was held to a schema before, too.
    again = prefilled.start("What?", 30)
    assert again.row == held[0].row
    finish(prefilled, again)
    assert again.text == alone[0].text


def test_an_answer_that_is_too_long_says_so(model: FlashVStream, prefilled: PrefilledMemory) -> None:
    whole = prefilled.start("What?", LONGEST, constraint=model.json_constraint(OBJECT))
    finish(prefilled, whole)
    tokens = len(whole.stream._tokens)
    short = prefilled.start("What?", tokens - 1, constraint=model.json_constraint(OBJECT))
    exact = prefilled.start("What?", tokens, constraint=model.json_constraint(OBJECT))
    finish(prefilled, short, exact)
    assert (short.text, short.truncated) == (whole.text[:-1], True)
    assert (exact.text, exact.truncated) == (whole.text, False)
    assert finish(prefilled, plain := prefilled.start("What?", 3))
    assert plain.truncated


def test_what_runs_as_a_graph_on_cuda_is_held_to_the_schema_as_well(model: FlashVStream, cache: PrefixCache) -> None:
    prefilled = prefill(model, cache, 64)
    held = prefilled.start("What?", LONGEST, constraint=model.json_constraint(OBJECT))
    free = prefilled.start("What?", LONGEST)
    step = QuestionStep(cache.decoder, prefilled._buffer.cache, cache.suffixes, 1, prefilled._buffer.slot_of_token)
    for _ in range(4):
        chunks = [
            SuffixChunk(one.row, [one.token], one.length, prefilled._position + one.length) for one in (held, free)
        ]
        for one in (held, free):
            cache.suffixes.allowed.set(one.row, one.constraint)
        cache.suffixes.allowed.upload()
        step.inputs.copy_(torch.tensor(step.inputs_of(prefilled._prefix.length, chunks)))
        with torch.no_grad():
            likely, chosen = step.logits(), step()
        prefilled.decode_step()
        assert chosen[[held.row, free.row]].tolist() == [held.token, free.token]
        assert int(likely[free.row].argmax()) == free.token
    assert held.text.startswith('{"roo')


def test_masked_logits_are_those_of_allowed_tokens_bit_for_bit() -> None:
    class Odd:
        complete, problem = False, ""

        def allowed(self) -> torch.Tensor:
            return torch.tensor([0x55555555 << 1 & 0xFFFFFFFF, 2], dtype=torch.int64).to(torch.int32)

        def take(self, token: int) -> None:
            pass

    allowed = AllowedTokens(2, 40, torch.device("cpu"))
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([0, 1, 0])
    assert not allowed.limited
    assert torch.equal(allowed.masked(rows, logits), logits)
    allowed.set(1, Odd())
    allowed.upload()
    for tokens in (allowed, allowed.grown(4)):
        tokens.upload()
        masked = tokens.masked(rows, logits)
        assert torch.equal(masked[[0, 2]], logits[[0, 2]])
        kept = [token for token in range(40) if (token % 2 and token < 32) or token == 33]
        assert torch.equal(masked[1, kept], logits[1, kept])
        assert torch.isneginf(masked[1]).sum() == 40 - len(kept)
        assert tokens.limited
        tokens.set(1, None)
        tokens.upload()
        assert torch.equal(tokens.masked(rows, logits), logits)


def references(count: int) -> dict[str, Any]:
    chain = {f"a{one}": {"items": {"$ref": f"#/$defs/a{one + 1}"}} for one in range(count)}
    return {"$defs": {**chain, f"a{count}": {"type": "integer"}}}


def nested(levels: int) -> dict[str, Any]:
    return {"type": "array", "items": nested(levels - 1)} if levels > 1 else {"type": "integer"}


def patterns(count: int) -> dict[str, Any]:
    return {"allOf": [{"type": "string", "pattern": f".*{chr(97 + one)}.{{{one}}}$"} for one in range(count)]}


@pytest.mark.parametrize(
    ("schema", "hint"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ('{"type": NaN}', "NaN is no number"),
        ("[" * 5000, "no JSON"),
        ("true", "no object"),
        ("[1]", "no object"),
        (json.dumps({"enum": ["a" * LONGEST_SCHEMA]}), f"shorten it to {LONGEST_SCHEMA}"),
        (json.dumps(nested(DEEPEST_SCHEMA + 1)), f"{DEEPEST_SCHEMA + 1} levels of nesting; make it at most"),
        (json.dumps(references(MOST_REFERENCES + 1)), f"{MOST_REFERENCES + 1} references"),
        (json.dumps(patterns(MOST_PATTERNS + 1)), f"{MOST_PATTERNS + 1} patterns"),
        ('{"type": "string", "x-guidance": {"lenient": true}}', "x-guidance"),
        ('{"type": "thing"}', "Invalid type: thing"),
        ('{"not": {"type": "string"}}', "Unimplemented keys"),
        ('{"type": "string", "pattern": "(?=a)b"}', "look-around"),
        ('{"type": "string", "pattern": "("}', "unclosed group"),
        ('{"const": "\\ud800"}', "hex escape"),
        ('{"allOf": [{"type": "string"}, {"type": "integer"}]}', "Unsatisfiable"),
        ('{"$ref": "#/$defs/nothing"}', "nothing"),
        ('{"$ref": "https://example.com/schema"}', "https://example.com/schema"),
        ('{"$ref": "#"}', "held to json_schema"),
        ('{"type": "array", "items": {"type": "integer", "multipleOf": 1000000007}}', "fuel"),
        (json.dumps({"allOf": [{"anyOf": [{"required": [f"{a}{b}"]} for b in "xy"]} for a in range(60)]}), "too large"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused_with_the_reason(
    model: FlashVStream, schema: str, hint: str
) -> None:
    with pytest.raises(JsonSchemaError, match="json_schema") as refused:
        model.json_constraint(schema)
    assert hint in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("schema", [nested(DEEPEST_SCHEMA), references(MOST_REFERENCES), {"type": "object"}, {}])
def test_what_is_within_the_bounds_is_taken(model: FlashVStream, schema: dict[str, Any]) -> None:
    model.json_constraint(json.dumps(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^(a?){500}a{500}$"},
        {"type": "string", "pattern": "^.*a.{500}$"},
        {"type": "string", "pattern": "^" + "(" * 40 + "ab" + "{2,9})" * 40 + "$"},
        {"type": "object", "properties": {f"p{one}": {"type": "integer"} for one in range(250)}},
        patterns(MOST_PATTERNS),
    ],
    ids=["alternatives", "look behind", "repetitions", "properties", "all patterns"],
)
def test_a_schema_that_explodes_ends_its_answer_alone(
    model: FlashVStream, prefilled: PrefilledMemory, schema: dict[str, Any]
) -> None:
    free = prefilled.start("What?", 20)
    try:
        constraint = model.json_constraint(json.dumps(schema))
    except JsonSchemaError:
        return
    held = prefilled.start("What?", 60, constraint=constraint)
    finish(prefilled, free, held)
    assert held.problem or held.truncated or json.loads(held.text) is not None
    assert (free.problem, len(free.stream._tokens)) == ("", 20)


def test_a_constraint_that_gives_up_ends_the_answer_with_why(prefilled: PrefilledMemory) -> None:
    class Spent:
        complete, problem = False, ""

        def allowed(self) -> torch.Tensor:
            return torch.zeros(math.ceil(len(byte_tokenizer()) / 32), dtype=torch.int32)

        def take(self, token: int) -> None:
            self.problem = "out of fuel"

    held = prefilled.start("What?", 60, constraint=Spent())
    assert (held.done, held.problem, held.truncated) == (True, "out of fuel", True)


def test_without_llguidance_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("llguidance"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return whole(name, *rest)

    schemas = JsonSchemas(byte_tokenizer(), len(byte_tokenizer()), [258])
    monkeypatch.setattr(builtins, "__import__", without)
    schemas.prepare()
    with pytest.raises(JsonSchemaError, match=r"pip install 'fvs_ros\[json\]'"):
        schemas.constraint("{}")


@pytest.mark.parametrize(
    ("end_tokens", "tokens", "hint"), [((), 264, "ends its answers"), ((258,), 3, "cannot use this model's tokenizer")]
)
def test_models_whose_tokens_do_not_do_are_refused(end_tokens: Sequence[int], tokens: int, hint: str) -> None:
    with pytest.raises(JsonSchemaError, match=hint):
        JsonSchemas(byte_tokenizer(), tokens, end_tokens).constraint("{}")


def test_the_embedded_model_answers_in_json_too() -> None:
    model = FlashVStream.load(EMBEDDED, device="cpu")
    cache = model.new_prefix_cache()
    prefilled = prefill(model, cache, model._backbone.tower.width)
    for name in ("object", "nested", "const", "keys of any language"):
        schema = SCHEMAS[name]
        answer = prefilled.start("Where is the green chair?", 400, constraint=model.json_constraint(json.dumps(schema)))
        finish(prefilled, answer)
        assert not answer.truncated
        jsonschema.validate(json.loads(answer.text), schema)
    prefilled.close()
    cache.close()
