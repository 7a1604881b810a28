import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from fvs_ros.training.config import LoraSettings
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.recipe import load_recipe

RECIPES = Path(__file__).resolve().parents[1] / "config/train"
ONLY_CAPTIONS = {"episodes": 4, "lengths": [1], "questions": 0, "captions": 1}
RECALLED = {"episodes": 4, "lengths": [1], "recalled_lengths": [9]}


def write(folder: Path, **changes: Any) -> Path:
    stage = {"name": "one", "patrol": {"episodes": 4, "lengths": [1]}, **changes.pop("stage", {})}
    values = {"output": "run", "model": {"checkpoint": "somewhere"}, "stages": [stage], **changes}
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def test_the_published_recipe_holds_the_published_values() -> None:
    config = load_recipe(RECIPES / "flash_vstream_qwen_7b.yaml")
    assert config.lora == LoraSettings(
        rank=64,
        alpha=32,
        dropout=0.05,
        language_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        merger_targets=("mlp.0", "mlp.2"),
        fully_trained=("lm_head",),
    )
    optimiser = config.optimiser
    assert (optimiser.learning_rate, optimiser.schedule, optimiser.warmup) == (8e-4, "cosine", 0.01)
    assert (optimiser.weight_decay, optimiser.adam_beta1, optimiser.adam_beta2) == (0.1, 0.9, 0.95)
    (stage,) = config.stages
    assert stage.videos is not None
    assert config.deepspeed is not None
    assert (stage.epochs, stage.steps, stage.batch, stage.accumulation, stage.tower) == (1, None, 1, 8, "frozen")
    assert (stage.videos.fps, stage.videos.max_frames, stage.videos.max_pixels) == (1.0, 240, 4 * 224 * 224)
    assert (config.max_tokens, config.gradient_checkpointing, config.precision) == (14_000, True, "bfloat16")
    assert Path(config.deepspeed).name == "deepspeed_zero2.json"


def test_the_patrol_recipe_grows_the_stream_and_leaves_the_test_seeds_alone() -> None:
    config = load_recipe(RECIPES / "patrol.yaml")
    patrols = {stage.name: stage.patrol for stage in config.stages if stage.patrol is not None}
    longest = {name: max(patrol.lengths) for name, patrol in patrols.items()}
    assert longest["token_naming"] <= 4
    assert longest["driven_patrols"] == 600
    shorter = [after for before, after in itertools.pairwise(longest) if longest[after] < longest[before]]
    assert shorter == ["comparisons_2_rooms"]  # new kinds of questions begin on short streams
    taken = sorted((data.first_seed, data.first_seed + data.episodes) for data in patrols.values())
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(taken))
    assert taken[-1][1] <= 900_000
    assert config.model.scratch is not None
    slots = config.model.scratch.csm_slots
    assert all(longest[stage.name] <= slots for stage in config.stages if stage.tower == "trained")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, r"recipe\.yaml: unknown key 'colour'; known are output"),
        ({"stage": {"patrol": {"episodes": 4, "lengths": [1], "size": 2}}}, r"stages\.0: patrol: unknown key 'size'"),
        ({"seed": "one"}, r"seed is 'one' \(str\); it must be of type int"),
        ({"seed": 1.5}, r"seed is 1\.5 \(float\); it must be of type int"),
        ({"workers": True}, r"workers is True \(bool\); it must be of type int"),
        ({"gradient_checkpointing": 1}, "it must be of type bool"),
        ({"stages": {"name": "one"}}, "stages is a mapping; it must be a list"),
        ({"stages": []}, "stages are named"),
        ({"stage": {"tower": "melted"}}, "tower is 'melted'; it must be one of frozen, trained"),
        ({"stage": {"patrol": None}}, "give one of videos and patrol"),
        ({"model": {"scratch": {"time_code": float("inf")}}}, "time_code is inf; it must be a finite number"),
        ({"model": {"scratch": {"time_weight": -1.0}}}, r"time_weight is -1\.0; it must be a finite number"),
        ({"stage": {"depth_expansion": 0}}, "depth_expansion is 0"),
        ({"stage": {"memory_probe": -0.5}}, r"stages\.0: memory_probe is -0\.5; it must be a finite number"),
        ({"stage": {"memory_probe": 0.5, "objective": "token_naming", "tower": "trained"}}, "memory_probe goes with"),
        ({"stage": {"clock_code": -0.1}}, r"stages\.0: clock_code is -0\.1; it must be a finite number of 0 or above"),
        ({"stage": {"clock_code": float("inf")}}, "clock_code is inf; it must be a finite number"),
        ({"stage": {"memory_probe": 0.5, "objective": "recall"}}, "memory_probe goes with"),
        ({"stage": {"proof_attention": -0.5}}, r"stages\.0: proof_attention is -0\.5; it must be a finite number"),
        ({"stage": {"proof_attention": 0.5, "objective": "recall"}}, "proof_attention goes with answers about patrols"),
        (
            {"stage": {"objective": "recall", "tower": "trained"}},
            "give patrol, with questions, and neither tower: trained",
        ),
        ({"stage": {"objective": "recall", "rescale_embeddings": 0.01}}, "nor rescale_embeddings"),
        (
            {"stage": {"objective": "recall", "patrol": ONLY_CAPTIONS}},
            "objective is recall; give patrol, with questions",
        ),
        ({"stage": {"objective": "token_naming", "tower": "trained", "patrol": RECALLED}}, "no recalled_lengths"),
        ({"stage": {"patrol": {**ONLY_CAPTIONS, "recalled_lengths": [9]}}}, "recalled_lengths goes with questions"),
        ({"stage": {"patrol": {**RECALLED, "day_lengths": [0]}}}, r"lengths are \[1, 0, 9\]; .* at least 1 grid step"),
        ({"stage": {"patrol": {"episodes": 4, "lengths": []}}}, r"lengths are \[\]; give one or more"),
        ({"stage": {"name": "../up"}}, "must be the name of a folder"),
        ({"stage": {"patrol": {"episodes": 4}}}, "the key 'lengths' is missing"),
        ({"model": {}}, "give one of checkpoint and scratch"),
        ({"model": {"scratch": {"text_width": 250}}}, r"text_width is 250, text_heads 4; .* multiple"),
        ({"optimiser": {"learning_rate": "fast"}}, "learning_rate is 'fast'"),
        ({"optimiser": {"warmup": 1.0}}, "from 0 to below 1"),
        ({"lora": {}, "stage": {"tower": "trained"}}, "with lora the ViT stays as it is"),
        ({"attention": "flash_attention_2"}, "cannot take patrols"),
        ({"max_tokens": 0}, "above 0"),
        ({"optimiser": {"method": "sgd"}}, "method is 'sgd'; it must be one of adamw, muon"),
        ({"stage": {"method": "muon"}, "deepspeed": "zero.json"}, "deepspeed splits them"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = write(tmp_path, **changes)
    with pytest.raises(TrainingError, match=message) as caught:
        load_recipe(file)
    assert str(file) in str(caught.value)


def test_a_stage_can_recall_and_set_the_clock_code(tmp_path: Path) -> None:
    days = {"episodes": 4, "lengths": [], "day_lengths": [900], "recalled_lengths": [1800, 3600]}
    changes = {"objective": "recall", "patrol": days, "clock_code": 0.1, "depth_expansion": 4}
    (stage,) = load_recipe(write(tmp_path, stage=changes)).stages
    assert (stage.objective, stage.clock_code) == ("recall", 0.1)
    assert stage.patrol is not None
    assert (stage.patrol.lengths, stage.patrol.day_lengths, stage.patrol.recalled_lengths) == ((), (900,), (1800, 3600))
    assert load_recipe(write(tmp_path)).stages[0].clock_code is None


def test_a_number_with_an_exponent_is_a_number(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_text(file.read_text() + "optimiser: {learning_rate: 8e-4}\n")
    assert load_recipe(file).optimiser.learning_rate == 8e-4


def test_values_can_be_set_from_outside(tmp_path: Path) -> None:
    sets = ["seed=7", "stages.0.steps=10", "optimiser.schedule=linear", "stages.0.patrol.lengths=[2, 3]"]
    config = load_recipe(write(tmp_path), sets)
    assert (config.seed, config.stages[0].steps, config.optimiser.schedule) == (7, 10, "linear")
    patrol = config.stages[0].patrol
    assert patrol is not None
    assert patrol.lengths == (2, 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "give key=value"),
        ("stages.3.steps=1", "there is no 3 in a list"),
        ("seeds=1", "unknown key 'seeds'"),
        ("seed=[", "not valid YAML"),
        ("output.folder=x", "has no keys"),
    ],
)
def test_a_value_that_cannot_be_set_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        load_recipe(write(tmp_path), [override])


def test_a_file_that_is_no_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"absent\.yaml cannot be read"):
        load_recipe(tmp_path / "absent.yaml")
    for text, message in (("a: [", "not valid YAML"), ("- 1", "keys and values are expected"), ("", "expected")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(TrainingError, match=message):
            load_recipe(tmp_path / "bad.yaml")
