"""What the fuzz tests share: how much they try, what they break inputs with, and what an error may look like.

Each test gives one door of the package wrong input and allows two outcomes: a result, or the door's documented error.
The corpus is in the tests: what once failed stays beside its test as an `@example` and is tried in each run, first.
"""

from __future__ import annotations

import copy
import math
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

Test = TypeVar("Test", bound=Callable[..., None])

FACTOR = int(os.environ.get("FVS_FUZZ_EXAMPLES", "1"))
"""How many times as many examples as usual to try; above `CI_FACTOR` they differ from run to run."""

CI_FACTOR = 13
"""What `.ci/run` sets: five minutes of them, and the same examples in each run."""

# Far above what any door needs for the small inputs here, so that only a size taken from the input can reach them.
_MEMORY_BYTES = 2**31
_SECONDS = 20
_LONGEST_MESSAGE = 1_000


def fuzz(examples: int) -> Callable[[Test], Test]:
    """Tries this number of examples, times `FACTOR`."""
    return settings(
        max_examples=examples * FACTOR,
        derandomize=FACTOR <= CI_FACTOR,
        deadline=_SECONDS * 1000,
        suppress_health_check=list(HealthCheck),
    )


def check_message(error: BaseException, *named: str) -> None:
    """Requires one line for people, which contains each of `named`."""
    text = str(error)
    assert text.strip(), f"{type(error).__name__} says nothing"
    assert text.isprintable(), f"{text!r} is more than one line, or moves a terminal's cursor"
    assert len(text) <= _LONGEST_MESSAGE, f"{len(text)} characters: {text[:200]}"
    assert "Traceback" not in text, text
    assert "object at 0x" not in text, text
    for part in named:
        assert part in text, f"{text!r} does not name {part!r}"


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Lets the process take 2 GiB more than it has; what asks for more gets a MemoryError."""
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# Where sizes, types and signs change, besides what hypothesis itself likes to try.
NUMBERS = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([-1, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, -(10**30), 10**400]),
    st.floats(),
)
TEXTS = st.one_of(st.text(max_size=20), st.sampled_from(["", "\n", "\x1b[2J", "\0", "x" * 5_000]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
"""Anything that JSON or YAML can hold."""


STRANGE: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    1.5,
    2**31,
    2**63,
    10**400,
    1e308,
    math.inf,
    math.nan,
    "",
    "1",
    "a\x1b[2J\nb",
    "x" * 5_000,
    "../..",
    [],
    [[]],
    {},
    {"a": 1},
]
"""One of each kind of wrong value, for `replaced`."""


def replaced(document: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each place of a document with each of `STRANGE` in turn: the place, the value, and the document that has it."""
    for number, (_, key) in enumerate(_places(document)):
        for value in STRANGE:
            changed = copy.deepcopy(document)
            container, key = list(_places(changed))[number]
            container[key] = value
            yield str(key), value, changed


@st.composite
def broken(draw: st.DrawFn, document: Any, values: st.SearchStrategy[Any] = VALUES) -> Any:
    """A copy of a document of JSON or YAML in which up to three places are replaced, removed, doubled or added to."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        if not places or draw(st.integers(0, 40)) == 0:
            return draw(values)
        container, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "replace", "remove", "add", "double"])):
            case "replace":
                container[key] = draw(values)
            case "remove":
                del container[key]
            case "add" if isinstance(container, dict):
                container[draw(st.text(max_size=8))] = draw(values)
            case "double" if isinstance(container, list):
                container.append(copy.deepcopy(container[key]))
            case _:
                container[key] = [container[key]]
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    entries: Sequence[Any] = ()
    if isinstance(document, dict):
        entries = list(document)
    elif isinstance(document, list):
        entries = range(len(document))
    for key in entries:
        yield document, key
        yield from _places(document[key])


@dataclass(frozen=True)
class Edit:
    """One place of a file that is wrong.

    Attributes:
        offset: where; below 0 it counts from the end.
        removed: bytes taken out there.
        piece: bytes put in their place.
    """

    offset: int
    removed: int = 0
    piece: bytes = b""


CUT = 2**40
"""As `Edit.removed`: all to the end."""
PIECES = st.one_of(st.binary(max_size=8), st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff"]))
# Half of them at the beginning or the end, where headers and indexes are.
edits = st.lists(
    st.one_of(
        st.builds(lambda offset, piece: Edit(offset, len(piece), piece), st.integers(-300, 300), PIECES),
        st.builds(lambda offset, piece: Edit(offset, len(piece), piece), st.integers(-20_000, 20_000), PIECES),
        st.builds(Edit, st.integers(-20_000, 300), st.sampled_from([0, 1, 4, 64]), PIECES),
        st.builds(Edit, st.integers(-20_000, 20_000), st.just(CUT)),
    ),
    min_size=1,
    max_size=3,
)
"""Up to three places that are wrong in a file of about 20 kB."""


def damaged(data: bytes, places: Sequence[Edit]) -> bytes:
    """A file's bytes with these places wrong; offsets beyond its size wrap around."""
    for place in places:
        start = place.offset % (len(data) + 1)
        data = data[:start] + place.piece + data[start + place.removed :]
    return data
