"""Answers that follow a JSON schema: which tokens may come next, by llguidance.

llguidance walks a grammar beside the answer and says, before each token, with which tokens the answer can still end as
JSON that the schema allows (Willard and Louf, 2023, https://arxiv.org/abs/2307.09702). One wheel, which needs neither
torch nor a GPU, serves every Python from 3.9 on.

Compiling and walking are bounded by llguidance's own counters, so that a schema with an explosive pattern fails instead
of holding up other answers: a step took at most 22 ms with the worst schemas that were tried, 0.05 ms with usual ones
(beside other work). Three things are not bounded there, and so are here: chains of references (beyond about a thousand
they overflow the stack, which ends the process), nesting, and how many patterns may have to hold of one text, whose
common strings it looks for in 2^n steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

if TYPE_CHECKING:
    import llguidance
    from llguidance._lib import JsonCompileOptions

LONGEST_SCHEMA = 8192
DEEPEST_SCHEMA = 32
MOST_REFERENCES = 64
MOST_PATTERNS = 8

# As models have read it most, and the shortest that an answer can be held to: free whitespace may never end.
_LAYOUT: JsonCompileOptions = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# Keys of llguidance's own, with which a schema could switch off that its answers follow it.
_OWN_KEYS = "x-guidance"


class JsonSchemaError(ValueError):
    """A schema that no answer can be held to. The message says why, and what to do."""


class JsonConstraint:
    """Which tokens may come next in one answer.

    Args:
        matcher: of llguidance, at the beginning of the answer.
    """

    def __init__(self, matcher: llguidance.LLMatcher) -> None:
        self._matcher = matcher

    @property
    def complete(self) -> bool:
        """Whether nothing but the answer's end can follow."""
        return bool(self._matcher.is_stopped()) and not self.problem

    @property
    def problem(self) -> str:
        """Why it cannot say any more what may follow; empty while it can."""
        return str(self._matcher.get_error()) if self._matcher.is_error() else ""

    def allowed(self) -> Tensor:
        """A bit for each token of the vocabulary, int32 [V / 32] on the CPU, the lowest first; see also `problem`."""
        return torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.int32)

    def take(self, token: int) -> None:
        """Goes on by the token that was chosen."""
        self._matcher.consume_token(token)


class JsonSchemas:
    """Makes constraints for one model's answers. For any thread.

    Args:
        tokenizer: of the model.
        tokens: V, as many as it gives logits for.
        end_tokens: end an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tokens: int, end_tokens: Sequence[int]) -> None:
        self._given = tokenizer
        self._tokens = tokens
        self._end_tokens = sorted(end_tokens)

    def prepare(self) -> None:
        """Sorts the vocabulary, 1 s for 150,000 tokens, unless llguidance is missing; else the first schema waits."""
        try:
            _ = self._tokenizer
        except JsonSchemaError:
            return

    def constraint(self, schema: str) -> JsonConstraint:
        """Holds an answer to a schema.

        Raises:
            JsonSchemaError: it cannot be held to it.
        """
        _check(schema)
        tokenizer = self._tokenizer
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(
            initial_lexer_fuel=200_000,
            step_lexer_fuel=100_000,
            step_max_items=20_000,
            max_lexer_states=50_000,
            max_grammar_size=50_000,
            verbose_errors=False,
        )
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_LAYOUT)
            constraint = JsonConstraint(LLMatcher(tokenizer, grammar, log_level=0, limits=limits))
        except ValueError as error:
            _refuse(str(error))
        # What comes first is found only now.
        if not constraint.problem:
            constraint.allowed()
        if constraint.problem:
            _refuse(constraint.problem)
        return constraint

    @cached_property
    def _tokenizer(self) -> llguidance.LLTokenizer:
        try:
            from llguidance import LLTokenizer
        except ImportError as error:
            raise JsonSchemaError(
                f"json_schema needs llguidance ({error}); pip install 'fvs_ros[json]' where the model runs"
            ) from error
        if not self._end_tokens:
            raise JsonSchemaError("json_schema needs a model that ends its answers, and this one has no token for it")
        try:
            return LLTokenizer(_without_control_tokens(self._given), n_vocab=self._tokens, eos_token=self._end_tokens)
        except ValueError as error:
            raise JsonSchemaError(f"llguidance cannot use this model's tokenizer: {error}") from error


def _without_control_tokens(tokenizer: PreTrainedTokenizerBase) -> str:
    """A tokenizer as JSON, whose control tokens are spelled as no JSON is, which escapes zeros.

    llguidance writes what a schema leaves no choice in as the tokenizer would read it: ``<|im_end|>`` as the token that
    ends an answer, and other characters where the tokenizer composes them.
    """
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in described["added_tokens"]:
        token.update(content=f"\0{token['id']}\0", special=True)
    return json.dumps({**described, "normalizer": None, "padding": None, "truncation": None})


def _refuse(reason: str) -> NoReturn:
    # The rest repeats what was asked, or is for llguidance's authors.
    first = reason.strip().splitlines()
    told = next((line for line in reversed(first) if line.startswith("error:")), first[0] if first else "unknown")
    raise JsonSchemaError(f"no answer can be held to json_schema: {told[:300]}")


def _check(schema: str) -> None:
    """Raises JsonSchemaError for what is no schema, or too large to be compiled in bounded time."""
    if len(schema) > LONGEST_SCHEMA:
        raise JsonSchemaError(f"json_schema has {len(schema)} characters; shorten it to {LONGEST_SCHEMA}")
    try:
        parsed = json.loads(schema, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise JsonSchemaError(f"json_schema is no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise JsonSchemaError('json_schema is JSON, but no object; write one such as {"type": "object"}')
    depth = 0
    references = patterns = 0
    for level, value in _objects(parsed):
        depth = max(depth, level)
        references += "$ref" in value
        patterns += "pattern" in value
        named = value.get("patternProperties")
        patterns += len(named) if isinstance(named, dict) else 0
        if _OWN_KEYS in value:
            raise JsonSchemaError(f"json_schema holds {_OWN_KEYS}, which is no keyword of JSON Schema; leave it out")
    for what, count, most in (
        ("levels of nesting", depth, DEEPEST_SCHEMA),
        ("references ($ref)", references, MOST_REFERENCES),
        ("patterns", patterns, MOST_PATTERNS),
    ):
        if count > most:
            raise JsonSchemaError(f"json_schema has {count} {what}; make it at most {most}")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _objects(value: Any, level: int = 1) -> Iterator[tuple[int, dict[str, Any]]]:
    """All objects in some JSON, with how deep they lie; lists count as a level, too."""
    if isinstance(value, dict):
        yield level, value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _objects(one, level + 1)
