"""Names that stand for a checkpoint, wherever a folder or a name on the hub may be given."""

from __future__ import annotations

from pathlib import Path

_ASSETS = Path(__file__).parent.parent / "assets"

EMBEDDED = "embedded"
"""The small model that ships with the package and knows simulated patrols; the default."""

TINY = "tiny"
"""Random weights, made at load time: everything is real but the answers, which are noise."""

EMBEDDED_FOLDER = _ASSETS / "patrol_model"
"""Its card, README.md, says what it can do, how it was made, and what it cannot do."""

EMBEDDED_RECORDING = _ASSETS / "patrol_bag"
"""A rosbag2 folder of a patrol with `questions.jsonl`. Its seed is for tests: the model was not trained on it."""


def is_tiny(name: str) -> bool:
    """Whether a name stands for random weights. A folder of that name comes first."""
    return name == TINY and not Path(name).is_dir()


def is_embedded(name: str) -> bool:
    """Whether a name stands for the model that ships. A folder of that name comes first."""
    return name == EMBEDDED and not Path(name).is_dir()


def example_question(name: str) -> str:
    """A question to try first, which the model of that name can answer."""
    return "Where is the green chair?" if is_embedded(name) else "What happened so far?"
