"""Checkpoints with anything wrong in their JSON files or weights: a `Checkpoint`, or a `CheckpointError`."""

from __future__ import annotations

import functools
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import CUT, Edit, bounded_memory, broken, check_message, damaged, edits, fuzz, replaced
from hypothesis import example, given
from hypothesis import strategies as st
from transformers.utils.logging import disable_progress_bar

from fvs_ros.memory.geometry import LEAST_PIXELS
from fvs_ros.model.checkpoint_errors import CheckpointError
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.tiny import write_tiny_checkpoint

CONFIGS = ("config.json", "preprocessor_config.json", "generation_config.json", "tokenizer_config.json")
WEIGHTS = "model.safetensors"


@functools.cache
def files() -> dict[str, bytes]:
    """The files of the tiny checkpoint by their names."""
    with tempfile.TemporaryDirectory() as name:
        write_tiny_checkpoint(Path(name))
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


def answer(name: str, content: bytes) -> str | None:
    """What the model with this content of one file answers about one step; None if it was refused as documented."""
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as text, bounded_memory():
        for file, data in {**files(), name: content}.items():
            Path(text, file).write_bytes(data)
        try:
            model = FlashVStream.load(text, device="cpu")
        except CheckpointError as error:
            check_message(error)
            return None
        grid = model.frame_grid(56, 56, LEAST_PIXELS, 4 * LEAST_PIXELS)
        features = model.encode_steps([np.zeros((56, 56, 3), np.uint8)] * 2, grid)
        assert features.high.isfinite().all()
        memory = model.new_memory(grid)
        memory.append(features.high, features.low, [0], [1])
        return model.answer(memory.snapshot(), "What?", max_new_tokens=2)


def test_the_whole_checkpoint_answers() -> None:
    assert answer(WEIGHTS, files()[WEIGHTS]) is not None


@functools.cache
def cases() -> list[tuple[str, str, bytes]]:
    """Every value of every JSON file replaced: the file, what is wrong in it, and its content."""
    return [
        (name, f"{key}: {value!r:.40}", json.dumps(changed).encode())
        for name in CONFIGS
        for key, value, changed in replaced(json.loads(files()[name]))
    ]


@pytest.mark.slow
def test_every_value_replaced() -> None:
    for name, wrong, content in cases():
        try:
            answer(name, content)
        except Exception as error:
            raise AssertionError(f"{name} with {wrong}") from error


def with_value(name: str, *path: str | int, value: object) -> tuple[str, str, bytes]:
    """One JSON file with another value at the end of a path."""
    values = target = json.loads(files()[name])
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return name, "", json.dumps(values).encode()


REFUSED = [
    ("vision_config", "flash_memory_config", "flash_memory_spatial_length", 2**31),
    ("vision_config", "flash_memory_config", "flash_memory_temporal_length", 10**400),
    ("rope_theta", math.nan),
    ("rope_theta", math.inf),
    ("rms_norm_eps", math.nan),
    ("rms_norm_eps", 1e308),
]


@pytest.mark.parametrize("place", REFUSED, ids=str)
def test_a_config_that_would_fail_or_mean_nothing_is_refused(place: tuple[Any, ...]) -> None:
    name, _, content = with_value("config.json", *place[:-1], value=place[-1])
    assert answer(name, content) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_mean", [math.nan, 0, 0]),
        ("image_mean", [10**400, 0, 0]),
        ("image_mean", [0, 0]),
        ("image_std", [1, 0, 1]),
        ("image_std", [1, 1, math.inf]),
        ("image_std", "123"),
        ("min_pixels", 2**31),
        ("min_pixels", 10**400),
        ("max_pixels", 1),
        ("max_pixels", True),
    ],
    ids=lambda value: str(value)[:20],
)
def test_pixels_that_would_fail_or_mean_nothing_are_refused(key: str, value: object) -> None:
    name, _, content = with_value("preprocessor_config.json", key, value=value)
    assert answer(name, content) is None


@given(st.deferred(lambda: st.sampled_from(cases())))
@fuzz(60)
def test_a_value_replaced(case: tuple[str, str, bytes]) -> None:
    answer(case[0], case[2])


@given(st.sampled_from(CONFIGS), st.data())
@fuzz(60)
def test_other_values(name: str, data: st.DataObject) -> None:
    answer(name, json.dumps(data.draw(broken(json.loads(files()[name])))).encode())


@given(st.sampled_from([*CONFIGS, "tokenizer.json"]), edits)
@fuzz(60)
def test_damaged_json(name: str, places: list[Edit]) -> None:
    answer(name, damaged(files()[name], places))


def header() -> dict[str, Any]:
    """What the weights' file says of each tensor."""
    length = int.from_bytes(files()[WEIGHTS][:8], "little")
    return dict(json.loads(files()[WEIGHTS][8 : 8 + length]))


@given(st.deferred(lambda: broken(header())))
@fuzz(60)
def test_other_values_in_the_header_of_the_weights(values: Any) -> None:
    length = int.from_bytes(files()[WEIGHTS][:8], "little")
    text = json.dumps(values).encode()
    answer(WEIGHTS, len(text).to_bytes(8, "little") + text + files()[WEIGHTS][8 + length :])


@given(
    st.lists(st.builds(Edit, st.integers(0, 9_000), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=3)
)
@example([Edit(0, 8, b"\xff" * 8)])
@example([Edit(0, 8, b"\0" * 8)])
@example([Edit(100, CUT)])
@example([Edit(-1, CUT)])
@example([Edit(-1, 0, b"x")])
@fuzz(60)
def test_damaged_weights(places: list[Edit]) -> None:
    """In the header and at the end; a weight that is another number is as good as any."""
    answer(WEIGHTS, damaged(files()[WEIGHTS], places))
