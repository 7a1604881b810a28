"""The made-up samples of the benchmarks' files, and broken copies of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).parent / "data" / "benchmarks"


def changed(tmp_path: Path, name: str, change: Callable[[Any], None]) -> Path:
    """A copy of a sample's JSON after `change` has worked on what is in it."""
    content = json.loads((SAMPLES / name).read_text(encoding="utf-8"))
    change(content)
    path = tmp_path / Path(name).name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A JSON-lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
