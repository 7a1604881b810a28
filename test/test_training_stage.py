from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from training_videos import TINY

from fvs_ros.cli import main
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.checkpoint import CheckpointError, save_checkpoint
from fvs_ros.model.recall import RecallHead
from fvs_ros.model.tiny import tiny_checkpoint
from fvs_ros.training.config import TrainConfig
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.recipe import load_recipe
from fvs_ros.training.stage import prepare, starting_checkpoint, training_arguments
from fvs_ros.training.trainable import trained_weights

PATROL = {"episodes": 2, "lengths": [4]}


def recipe(folder: Path, model: dict[str, Any], **stage: Any) -> TrainConfig:
    values = {
        "output": str(folder / "run"),
        "model": model,
        "stages": [{"name": "one", "patrol": PATROL, **stage}],
        "seed": 3,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return load_recipe(folder / "recipe.yaml")


def scratch(**changes: Any) -> dict[str, Any]:
    return {"scratch": {**TINY, **changes}}


@pytest.mark.parametrize(("given", "expected"), [(None, 0.25), (0.5, 0.5), (0.0, 0.0)])
def test_a_clock_code_is_the_stages_or_stays_the_checkpoints(
    tmp_path: Path, given: float | None, expected: float
) -> None:
    memory = FlashMemoryConfig(csm_slots=6, dam_slots=3, clock_code=0.25)
    save_checkpoint(tiny_checkpoint(memory=memory), tmp_path / "tiny")
    config = recipe(tmp_path, {"checkpoint": str(tmp_path / "tiny")}, clock_code=given)
    found = starting_checkpoint(config, config.stages[0], None).config.memory
    assert found == dataclasses.replace(memory, clock_code=expected)


def test_a_clock_code_that_the_language_model_is_too_odd_for_is_refused(tmp_path: Path) -> None:
    config = recipe(tmp_path, scratch(text_width=96, rope_section=[8, 8, 8]), clock_code=0.1)
    message = r"one: clock_code is 0\.1: the language model's width is 96; a clock code needs a power of 2 from 32 up"
    with pytest.raises(TrainingError, match=message):
        starting_checkpoint(config, config.stages[0], None)
    none = recipe(tmp_path, scratch(text_width=96, rope_section=[8, 8, 8]), clock_code=0.0)
    assert starting_checkpoint(none, none.stages[0], None).config.memory.clock_code == 0


def test_recall_trains_a_new_head_of_the_recipes_seed_and_nothing_else(tmp_path: Path) -> None:
    config = recipe(tmp_path, scratch(), objective="recall")
    prepared = [prepare(config, config.stages[0], None) for _ in range(2)]
    first, again = (trained_weights(one.model) for one in prepared)
    assert set(first) == {f"recall.{name}" for name in RecallHead(TINY["text_width"]).state_dict()}
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())


def test_recall_goes_on_with_the_head_that_is_there(tmp_path: Path) -> None:
    """As stages go on with the weights of the one before."""
    head = RecallHead(64, keys=8)
    save_checkpoint(dataclasses.replace(tiny_checkpoint(), recall=head), tmp_path / "tiny")
    config = recipe(tmp_path, {"checkpoint": str(tmp_path / "tiny")}, objective="recall")
    found = starting_checkpoint(config, config.stages[0], None).recall
    assert found is not None
    assert all(torch.equal(weight, found.state_dict()[name]) for name, weight in head.state_dict().items())


def test_other_objectives_make_no_head_and_leave_one_as_it_is(tmp_path: Path) -> None:
    plain = recipe(tmp_path, scratch())
    assert starting_checkpoint(plain, plain.stages[0], None).recall is None
    save_checkpoint(dataclasses.replace(tiny_checkpoint(), recall=RecallHead(64)), tmp_path / "tiny")
    config = recipe(tmp_path, {"checkpoint": str(tmp_path / "tiny")})
    assert starting_checkpoint(config, config.stages[0], None).recall is not None
    names = trained_weights(prepare(config, config.stages[0], None).model)
    assert names
    assert not any(name.startswith("recall.") for name in names)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tiny_checkpoint(), tmp_path / "full")
    assert main(["quantize", str(tmp_path / "full"), str(tmp_path / "int8"), "--device", "cpu"]) == 0
    config = recipe(tmp_path, {"checkpoint": str(tmp_path / "int8")})
    with pytest.raises(CheckpointError, match="holds int8 weights, which cannot be trained"):
        starting_checkpoint(config, config.stages[0], None)


@pytest.mark.parametrize(("given", "expected"), [({}, 8e-4), ({"learning_rate": 2e-3}, 2e-3)])
def test_a_stage_may_have_a_learning_rate_of_its_own(tmp_path: Path, given: dict[str, Any], expected: float) -> None:
    config = recipe(tmp_path, scratch(), **given)
    assert training_arguments(config, config.stages[0], tmp_path / "stage", 1).learning_rate == expected
