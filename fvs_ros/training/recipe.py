"""Reads a recipe: YAML into `TrainConfig`. An unknown key or a value of another type is an error with its place."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from fvs_ros.training.config import TrainConfig
from fvs_ros.training.errors import TrainingError

Settings = TypeVar("Settings")


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """The settings of a YAML file.

    Args:
        path: the file.
        overrides: `key=value` each, the key dotted (`stages.0.steps`), the value in YAML.

    Raises:
        TrainingError: the file cannot be read, or a key or value does not fit; names the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is not valid YAML: {error}") from error
    values = _parsed(text, str(path))
    for override in overrides:
        _override(values, override)
    return _from_mapping(TrainConfig, values, str(path))


def _parsed(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Besides its own errors: those of dates and numbers that Python cannot hold, and of endless nesting.
        raise TrainingError(f"{where} is not valid YAML: {error}") from error


def _from_mapping(settings: type[Settings], values: object, where: str) -> Settings:
    """A dataclass of numbers, texts, booleans, dataclasses and tuples of one of these, or None where allowed."""
    if not isinstance(values, Mapping):
        raise TrainingError(f"{where} holds {_show(values)}; keys and values are expected")
    fields = {field.name: field for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise TrainingError(f"{where}: unknown key {key!r}; known are {', '.join(fields)}")
    hints = get_type_hints(settings)
    found = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in values.items()}
    for name, field in fields.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in found:
            raise TrainingError(f"{where}: the key {name!r} is missing")
    try:
        return settings(**found)
    except ValueError as error:
        raise TrainingError(f"{where}: {error}") from error


def _convert(hint: Any, value: object, where: str) -> object:
    if get_origin(hint) in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        (hint,) = (option for option in get_args(hint) if option is not type(None))
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise TrainingError(f"{where} is {value!r}; it must be one of {', '.join(get_args(hint))}")
        return value
    if dataclasses.is_dataclass(hint):
        return _from_mapping(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise TrainingError(f"{where} is {_show(value)}; it must be a list")
        return tuple(_convert(get_args(hint)[0], item, f"{where}.{index}") for index, item in enumerate(value))
    # YAML 1.1 reads 8e-4 as a text; as a number it means what it says.
    if hint is float and isinstance(value, str | int) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            value = float(value)
    if type(value) is not hint:
        raise TrainingError(f"{where} is {_show(value)}; it must be of type {hint.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise TrainingError(f"{where} is {value}; it must be a finite number")
    return value


def _override(values: object, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise TrainingError(f"--set {override}: give key=value, for instance stages.0.steps=10")
    value = _parsed(text, f"--set {override}")
    *path, last = key.split(".")
    target: Any = values
    for part in path:
        place = _place(target, part, override)
        target = target.setdefault(place, {}) if isinstance(target, dict) else target[place]
    target[_place(target, last, override)] = value


def _place(target: Any, part: str, override: str) -> Any:
    """The key of a mapping or the index of a list that a part of a dotted key stands for."""
    if isinstance(target, dict):
        return part
    # Not by int(), which raises for more than 4,300 digits.
    indices = [str(index) for index in range(len(target))] if isinstance(target, list) else []
    if part in indices:
        return indices.index(part)
    why = "" if isinstance(target, list) else ", which has no keys"
    raise TrainingError(f"--set {override}: there is no {part} in {_show(target)}{why}")


def _show(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a list of {len(value)}"
    return f"{value!r} ({type(value).__name__})"
