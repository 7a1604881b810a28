"""The file of watches that start with the node."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from fvs_ros.files import read_bounded
from fvs_ros.stream.watch import WatchOptions
from fvs_ros.stream.watches import MOST_WATCHES

MOST_BYTES = 2**20
_DEFAULTS = {option.name: option.default for option in fields(WatchOptions)}


@dataclass(frozen=True)
class FileWatch:
    """A watch of the file; `options.name` is its own among them."""

    condition: str
    options: WatchOptions


def read_watches(path: Path) -> list[FileWatch]:
    """The watches of a YAML file: a list `watches`, each with `name`, `condition`, and options of a goal of `watch`.

    Raises:
        ValueError: it cannot be read or makes no sense; the message says what to do.
    """
    try:
        content = yaml.safe_load(read_bounded(path, MOST_BYTES))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"watches_file {path} cannot be read: {reason}") from error
    entries = content.get("watches") if isinstance(content, dict) else None
    if not isinstance(entries, list) or len(entries) > MOST_WATCHES or set(content) != {"watches"}:
        raise ValueError(f"watches_file {path} must hold `watches:` with a list of at most {MOST_WATCHES}, and no more")
    watches: list[FileWatch] = []
    for number, entry in enumerate(entries, start=1):
        try:
            watches.append(_watch(entry))
            if watches[-1].options.name in {one.options.name for one in watches[:-1]}:
                raise ValueError(f"the name {watches[-1].options.name!r} is taken; give each its own")
        except ValueError as error:
            raise ValueError(f"watches_file {path}, watch {number} of {len(entries)}: {error}") from error
    return watches


def _watch(entry: Any) -> FileWatch:
    if not isinstance(entry, dict):
        raise ValueError(f"it is {entry!r:.60}; write `name: ...` and `condition: ...`")
    known = {"condition", *_DEFAULTS}
    unknown = [str(key) for key in entry if key not in known]
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is unknown; it may have {', '.join(sorted(known))}")
    for name in ("name", "condition"):
        if not isinstance(entry.get(name), str) or not entry[name].strip():
            raise ValueError(f"{name} is {entry.get(name)!r:.60}; give a text, in quotes")
    options: dict[str, Any] = {"name": entry["name"]}
    for name, default in _DEFAULTS.items():
        if name == "name" or name not in entry:
            continue
        value = entry[name]
        if isinstance(default, bool) != isinstance(value, bool) or not isinstance(value, bool | int | float):
            raise ValueError(
                f"{name} is {value!r:.60}; give {'true or false' if isinstance(default, bool) else 'seconds'}"
            )
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}; give seconds")
        options[name] = value if isinstance(value, bool) else float(value)
    return FileWatch(entry["condition"], WatchOptions(**options))
