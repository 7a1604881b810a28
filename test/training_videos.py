"""Drawn videos, with questions that only their frames answer, and recipes of a minute-size model for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (30, 60, 230), "yellow": (240, 220, 40)}
SIZE = 112
TINY: dict[str, Any] = {
    "vision_depth": 1,
    "vision_width": 64,
    "vision_heads": 2,
    "text_depth": 2,
    "text_width": 64,
    "text_mlp": 128,
    "text_heads": 2,
    "text_kv_heads": 1,
    "csm_slots": 8,
    "dam_slots": 4,
    "rope_section": [6, 5, 5],
    "window_slots": 0,
    "vocabulary": "bytes",
    "tied_embeddings": False,
}


def draw_frames(folder: Path, colours: Sequence[str]) -> Path:
    """A folder of frames, two for each colour: a square of that colour on grey."""
    folder.mkdir(parents=True)
    for index, colour in enumerate(colours):
        for half in range(2):
            frame = np.full((SIZE, SIZE, 3), 110 + 5 * half, np.uint8)
            cv2.rectangle(frame, (24 + 4 * index, 24), (84 + 4 * index, 84), COLOURS[colour], -1)
            cv2.imwrite(str(folder / f"{2 * index + half + 1:06d}.jpg"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return folder


def entry(video: str, *turns: tuple[str, str]) -> dict[str, Any]:
    """An entry in the format of LLaVA-Video-178K."""
    conversations = []
    for number, (question, answer) in enumerate(turns):
        placeholder = "<image>\n" if number == 0 else ""
        conversations += [{"from": "human", "value": placeholder + question}, {"from": "gpt", "value": answer}]
    return {"id": video, "data_source": "drawn", "video": video, "conversations": conversations}


def write_recipe(folder: Path, entries: Sequence[dict[str, Any]], *, steps: int, **changes: Any) -> Path:
    """Writes annotations and a recipe for the videos in `folder`; returns the recipe's path."""
    (folder / "data.json").write_text(json.dumps(entries))
    stage = {
        "name": "drawn",
        "videos": {
            "annotations": [str(folder / "data.json")],
            "root": str(folder),
            "min_pixels": SIZE * SIZE,
            "max_pixels": SIZE * SIZE,
        },
        "tower": "trained",
        "batch": 2,
        "steps": steps,
        **changes.pop("stage", {}),
    }
    values = {
        "output": str(folder / "run"),
        "model": {"scratch": TINY},
        "stages": [stage],
        "optimiser": {"learning_rate": 3e-3, "weight_decay": 0.0, "warmup": 0.1},
        "workers": 0,
        "log_steps": 1,
        **changes,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder / "recipe.yaml"
