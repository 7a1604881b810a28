"""Checks that settings share; each names the setting, its value and what it may be."""

from __future__ import annotations

from collections.abc import Sequence


def positive(record: object, *names: str) -> None:
    """Refuses values of 0 and below."""
    for name in names:
        if not getattr(record, name) > 0:
            raise ValueError(f"{name} is {getattr(record, name)}; it must be above 0")


def fraction(record: object, *names: str) -> None:
    """Refuses values below 0 and from 1 up."""
    for name in names:
        if not 0 <= getattr(record, name) < 1:
            raise ValueError(f"{name} is {getattr(record, name)}; it must be from 0 to below 1")


def one_of(name: str, value: str, options: Sequence[str]) -> None:
    """Refuses a value that is not among the options."""
    if value not in options:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(options)}")
