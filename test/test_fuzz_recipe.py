"""Recipes with anything wrong: settings of the documented types, or a `TrainingError` that names the file."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import TEXTS, VALUES, Edit, bounded_memory, broken, check_message, damaged, edits, fuzz, replaced
from hypothesis import given
from hypothesis import strategies as st

from fvs_ros.training.config import TrainConfig
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.recipe import load_recipe

FOLDER = Path(__file__).resolve().parents[1] / "config" / "train"
RECIPES = {path.name: path.read_bytes() for path in sorted(FOLDER.glob("*.yaml"))}
PARTS = ["0", "1", "-1", "\u00b2", "", "9" * 30, "9" * 5_000, "steps"]
KEYS = [field.name for field in dataclasses.fields(TrainConfig)]


def load(content: bytes, *overrides: str) -> TrainConfig | None:
    """The settings, or None if they were refused as documented."""
    with tempfile.TemporaryDirectory() as name, bounded_memory():
        path = Path(name, "recipe.yaml")
        path.write_bytes(content)
        try:
            config = load_recipe(path, overrides)
        except TrainingError as error:
            check_message(error, "--set" if "--set" in str(error) else str(path))
            return None
    assert isinstance(config, TrainConfig)
    for number in floats(dataclasses.asdict(config)):
        assert math.isfinite(number)
    return config


def floats(values: Any) -> Iterator[float]:
    """All floating-point numbers in these."""
    if isinstance(values, float):
        yield values
    elif isinstance(values, dict | list | tuple):
        for value in values.values() if isinstance(values, dict) else values:
            yield from floats(value)


@pytest.mark.parametrize("name", RECIPES)
def test_the_whole_recipes_are_read(name: str) -> None:
    assert load(RECIPES[name]) is not None


@given(st.sampled_from(sorted(RECIPES)).flatmap(lambda name: broken(yaml.safe_load(RECIPES[name]))))
@fuzz(300)
def test_other_values(values: Any) -> None:
    load(yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "surrogatepass"))


# A value of every kind that a recipe may have, in few stages.
EVERY_KIND = {
    "output": "run",
    "model": {"scratch": {"vision_width": 192, "rope_section": [12, 10, 10], "time_code": 0.1, "vocabulary": "bytes"}},
    "optimiser": {"method": "muon", "learning_rate": "1e-3", "warmup": 0.03},
    "cache": {"folder": None, "disk_gb": 10, "ram_mb": 256},
    "stages": [
        {
            "name": "a",
            "tower": "trained",
            "epochs": 1.0,
            "steps": 10,
            "memory_probe": 0.5,
            "patrol": {"episodes": 9, "lengths": [2], "dwell_s": [2, 2], "families": ["order"], "drive": False},
        },
        {"name": "b", "videos": {"annotations": ["a.json"], "root": "b", "fps": 1.0, "max_frames": 240}},
    ],
    "workers": 1,
}


def test_every_value_replaced() -> None:
    assert load(yaml.safe_dump(EVERY_KIND).encode()) is not None
    for _, _, values in replaced(EVERY_KIND):
        load(yaml.safe_dump(values).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 20_000,
        b"output: 2023-99-99",
        b"a: &a [*a]",
        b"? [a]\n: b",
        b"",
        b"\xff\xfe",
        b"a: !!python/object:os.system b",
        b"seed: " + b"1" * 5_000,
    ],
)
def test_yaml_that_cannot_be_read(content: bytes) -> None:
    assert load(content) is None
    assert load(RECIPES[sorted(RECIPES)[0]], f"model={content.decode(errors='replace')}") is None


@given(st.sampled_from(sorted(RECIPES)), edits)
@fuzz(100)
def test_damaged_bytes(name: str, places: list[Edit]) -> None:
    load(damaged(RECIPES[name], places))


@given(
    st.one_of(
        st.builds(
            "{}={}".format,
            st.lists(st.sampled_from([*KEYS, "0", "1", "-1", "\u00b2", "", "9" * 30, "steps"]), max_size=4).map(
                ".".join
            ),
            st.one_of(TEXTS, VALUES.map(lambda value: yaml.safe_dump(value, default_flow_style=True))),
        ),
        TEXTS,
    )
)
@fuzz(300)
def test_overrides(override: str) -> None:
    load(RECIPES[sorted(RECIPES)[0]], override)
