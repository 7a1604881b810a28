import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_networks import SmallShape, write_qwen3_vl
from training_videos import TINY, draw_frames, entry, write_recipe

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.checkpoint import load_checkpoint
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.tiny import write_tiny_checkpoint
from fvs_ros.training.data.dataset import collate
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.recipe import load_recipe
from fvs_ros.training.run import dry_run, last_checkpoint, train
from fvs_ros.training.stage import prepare, total_steps, training_arguments
from fvs_ros.training.trainer import EpisodeTrainer

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "config/train/flash_vstream_qwen_7b.yaml"


def quiet(line: str) -> None:
    """Progress that nobody reads."""


def drawn(folder: Path, *, steps: int = 6, **changes: Any) -> Path:
    """A recipe for three short videos of different lengths, with dropout-free and shuffled training."""
    for number, colours in enumerate((("red",), ("blue", "green"), ("yellow", "red"))):
        draw_frames(folder / f"video{number}", colours)
    entries = [entry(f"video{number}", ("which?", f"answer {number}")) for number in range(3)]
    return write_recipe(folder, entries, steps=steps, **changes)


def losses(folder: Path) -> list[float]:
    """The loss of each step, from the newest checkpoint."""
    newest = last_checkpoint(folder)
    assert newest is not None
    state = json.loads((newest / "trainer_state.json").read_text())
    return [row["loss"] for row in state["log_history"] if "loss" in row]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.fixture
def published(tmp_path: Path) -> list[str]:
    """The published recipe on a tiny checkpoint of the same module names and three drawn videos."""
    for number, colours in enumerate((("red",), ("blue", "green"), ("yellow",))):
        draw_frames(tmp_path / f"video{number}", colours)
    entries = [entry(f"video{number}", ("which?", f"answer {number}"), ("sure?", "yes")) for number in range(3)]
    (tmp_path / "data.json").write_text(json.dumps(entries))
    write_tiny_checkpoint(tmp_path / "tiny", memory=FlashMemoryConfig(csm_slots=4, dam_slots=2))
    return [
        f"output={tmp_path / 'run'}",
        f"model.checkpoint={tmp_path / 'tiny'}",
        f"stages.0.videos.annotations=[{tmp_path / 'data.json'}]",
        f"stages.0.videos.root={tmp_path}",
        "precision=float32",
        "workers=0",
    ]


def test_the_published_recipe_attaches_to_exactly_the_published_weights(published: list[str]) -> None:
    config = load_recipe(PUBLISHED, published)
    prepared = prepare(config, config.stages[0], None)
    language = {
        f"model.language_model.layers.{layer}.{block}.{name}_proj"
        for layer in range(2)
        for block, names in (("self_attn", "qkvo"), ("mlp", ("gate", "up", "down")))
        for name in names
    }
    merger = {"model.visual.merger.mlp.0", "model.visual.merger.mlp.2"}
    updates = {f"{name}.lora_{side}.default.weight" for name in language | merger for side in "AB"}
    trained = {name for name, weight in prepared.model.network.named_parameters() if weight.requires_grad}
    assert trained == updates | {"lm_head.modules_to_save.default.weight"}
    module = prepared.model.network.get_submodule("model.visual.merger.mlp.0")
    assert (module.r["default"], module.lora_alpha["default"]) == (64, 32)
    assert module.lora_dropout["default"].p == 0.05


def test_the_published_recipe_optimises_as_published(published: list[str], tmp_path: Path) -> None:
    config = load_recipe(PUBLISHED, published)
    stage = config.stages[0]
    prepared = prepare(config, stage, None)
    arguments = training_arguments(config, stage, tmp_path / "x", steps=140)
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * 8 == 64
    assert total_steps(stage, 9_000) == math.ceil(9_000 / 8)
    assert (arguments.save_steps, arguments.save_total_limit) == (10, 30)
    trainer = EpisodeTrainer(prepared.model, arguments, prepared.dataset, data_collator=collate)
    trainer.create_optimizer_and_scheduler(140)
    assert type(trainer.optimizer) is torch.optim.AdamW
    assert {group["betas"] for group in trainer.optimizer.param_groups} == {(0.9, 0.95)}
    weights = {group["weight_decay"]: len(group["params"]) for group in trainer.optimizer.param_groups}
    assert weights == {0.1: 2 * (2 * 7 + 2) + 1, 0.0: 0}
    rates = []
    for _ in range(140):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    warmup = 2  # 1 percent of 140, rounded up
    expected = [8e-4 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (140 - warmup))) for step in range(warmup, 140)]
    assert rates[:warmup] == pytest.approx([0.0, 4e-4])
    assert rates[warmup:] == pytest.approx(expected)


def test_eight_processes_share_the_published_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert total_steps(load_recipe(PUBLISHED).stages[0], 9_000) == 141


def test_a_dry_run_of_the_published_recipe_prints_what_is_trained(published: list[str], tmp_path: Path) -> None:
    lines: list[str] = []
    dry_run(load_recipe(PUBLISHED, published), lines.append)
    (printed,) = lines
    assert "tuning: 3 episodes, 1 steps of 1 x 1 x 8 episodes" in printed
    assert "1 answers, loss" in printed
    assert not (tmp_path / "run").exists()


def test_lora_is_merged_into_a_checkpoint_and_kept_beside_it(published: list[str], tmp_path: Path) -> None:
    overrides = [*published, "stages.0.steps=2", "stages.0.accumulation=2", "lora.rank=4"]
    assert train(load_recipe(PUBLISHED, overrides), quiet)
    final = tmp_path / "run/final"
    settings = json.loads((final / "lora_model/adapter_config.json").read_text())
    assert (settings["r"], settings["modules_to_save"]) == (4, ["lm_head"])
    assert (final / "lora_model/adapter_model.safetensors").exists()
    before, after = tensors(tmp_path / "tiny"), tensors(final)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in changed} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "0", "2", "lm_head",
    }  # fmt: skip
    assert "visual.merger.mlp.0.weight" in changed
    assert FlashVStream.load(str(final), device="cpu").memory_config == FlashMemoryConfig(csm_slots=4, dam_slots=2)


def test_lora_trains_a_qwen3_vl_with_all_of_its_mergers(published: list[str], tmp_path: Path) -> None:
    # What DeepStack adds after the last of two layers would reach no question.
    memory = FlashMemoryConfig(csm_slots=4, dam_slots=2, window_slots=2)
    write_qwen3_vl(tmp_path / "tiny", memory, SmallShape(layers=3))
    overrides = [*published, "stages.0.steps=2", "stages.0.accumulation=2", "lora.rank=4", "lora.merger_targets=null"]
    assert train(load_recipe(PUBLISHED, overrides), quiet)
    before, after = tensors(tmp_path / "tiny"), tensors(tmp_path / "run/final")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    mergers = ("merger", "deepstack_merger_list.0", "deepstack_merger_list.1")
    visual = {f"model.visual.{merger}.linear_fc{number}.weight" for merger in mergers for number in (1, 2)}
    assert {name for name in changed if "visual" in name} == visual
    assert any("q_proj" in name for name in changed)
    model = FlashVStream.load(str(tmp_path / "run/final"), device="cpu")
    assert model.memory_config == memory


def test_full_training_leaves_a_frozen_tower_as_it_was(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "tiny")
    changes = {"model": {"checkpoint": str(tmp_path / "tiny")}, "cache": {"folder": str(tmp_path / "cache")}}
    recipe = drawn(tmp_path, steps=2, stage={"tower": "frozen"}, **changes)
    assert train(load_recipe(recipe), quiet)
    before, after = tensors(tmp_path / "tiny"), tensors(tmp_path / "run/final")
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith("visual.") and ".merger." not in name}
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 3


def test_cached_features_train_the_same_weights(tmp_path: Path) -> None:
    """The second run reads what the first kept; frames are gone by then."""
    write_tiny_checkpoint(tmp_path / "tiny")
    changes = {"model": {"checkpoint": str(tmp_path / "tiny")}, "stage": {"tower": "frozen"}}
    cache = {"folder": str(tmp_path / "cache"), "ram_mb": 0}
    recipe = drawn(tmp_path, steps=3, cache=cache, **changes)
    assert train(load_recipe(recipe), quiet)
    for frame in (tmp_path / "video1").glob("*.jpg"):
        stat = frame.stat()
        frame.write_bytes(b"\0" * stat.st_size)
        os.utime(frame, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert train(load_recipe(recipe, [f"output={tmp_path / 'again'}"]), quiet)
    assert_same_weights(tensors(tmp_path / "run/final"), tensors(tmp_path / "again/final"))


def test_stages_follow_on_each_other(tmp_path: Path) -> None:
    recipe = drawn(tmp_path, steps=2, model={"scratch": {**TINY, "time_code": 0.5, "time_weight": 30.0}})
    values = yaml.safe_load(recipe.read_text())
    later = {"name": "second", "tower": "frozen", "depth_expansion": 3}
    values["stages"].append({**values["stages"][0], **later})
    recipe.write_text(yaml.safe_dump(values))
    assert train(load_recipe(recipe), quiet)
    first, second = tensors(tmp_path / "run/drawn/final"), tensors(tmp_path / "run/final")
    block = "visual.blocks.0.attn.qkv.weight"
    assert torch.equal(first[block], second[block])
    assert not torch.equal(first["lm_head.weight"], second["lm_head.weight"])
    assert "model.layers.2.mlp.up_proj.weight" in second.keys() - first.keys()
    memories = [
        FlashVStream.load(str(tmp_path / folder), device="cpu").memory_config
        for folder in ("run/drawn/final", "run/final")
    ]
    assert [(memory.time_code, memory.time_weight) for memory in memories] == [(0.5, 30)] * 2


@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_a_run_in_pieces_is_the_run_in_one_go(tmp_path: Path, method: str) -> None:
    """`--minutes` over after every step; the pieces see the same data in the same order, with the same dropout."""
    recipe = drawn(tmp_path, steps=5)
    sets = [f"optimiser.method={method}"]
    whole = load_recipe(recipe, sets)
    pieces = load_recipe(recipe, [*sets, f"output={tmp_path / 'pieces'}", "save_steps=100"])
    assert train(whole, quiet)
    results = [train(pieces, quiet, minutes=1e-9) for _ in range(5)]
    assert results == [False, False, False, False, True]
    assert losses(tmp_path / "pieces/drawn") == pytest.approx(losses(tmp_path / "run/drawn"), rel=1e-4)
    assert_same_weights(tensors(tmp_path / "run/final"), tensors(tmp_path / "pieces/final"))


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    recipe = drawn(tmp_path, steps=60, save_steps=5)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = (
        "import sys; from fvs_ros.training.run import train; from fvs_ros.training.recipe import load_recipe; "
        "from pathlib import Path; train(load_recipe(Path(sys.argv[1])), print)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(recipe)], env=environment, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/drawn/checkpoint-10").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    assert not (tmp_path / "run/final").exists()
    assert train(load_recipe(recipe), quiet)
    assert train(load_recipe(recipe, [f"output={tmp_path / 'whole'}"]), quiet)
    assert losses(tmp_path / "run/drawn")[-1] == pytest.approx(losses(tmp_path / "whole/drawn")[-1], rel=1e-3)
    assert_same_weights(tensors(tmp_path / "run/final"), tensors(tmp_path / "whole/final"))


@pytest.mark.slow
def test_two_processes_of_torchrun_train_one_model(tmp_path: Path) -> None:
    """Both see the same number of tokens, so that their mean is that of one process with both episodes in its batch."""
    for number, colour in enumerate(("red", "blue")):
        draw_frames(tmp_path / f"video{number}", (colour,))
    entries = [entry(f"video{number}", ("which?", f"answer {number}")) for number in range(2)]
    recipe = write_recipe(tmp_path, entries, steps=3, stage={"batch": 2})
    assert train(load_recipe(recipe), quiet)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = ["-m", "fvs_ros.cli", "train", str(recipe), "--set", f"output={tmp_path / 'both'}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*launch, *command, "--set", "stages.0.batch=1"], env=environment, cwd=tmp_path, start_new_session=True
    )
    try:
        assert process.wait(150) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert losses(tmp_path / "both/drawn") == pytest.approx(losses(tmp_path / "run/drawn"), rel=1e-4)
    assert_same_weights(tensors(tmp_path / "run/final"), tensors(tmp_path / "both/final"))


def test_only_one_process_writes_weights(published: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_recipe(PUBLISHED, published)
    stage = config.stages[0]
    prepared = prepare(config, stage, None)
    arguments = training_arguments(config, stage, tmp_path / "x", steps=1)
    trainer = EpisodeTrainer(prepared.model, arguments, prepared.dataset, data_collator=collate)
    monkeypatch.setattr(type(arguments), "should_save", False)
    trainer.save_model(str(tmp_path / "second"))
    assert not (tmp_path / "second").exists()
    monkeypatch.setattr(type(arguments), "should_save", True)
    trainer.save_model(str(tmp_path / "first"))
    assert [file.name for file in (tmp_path / "first").iterdir()] == ["model.safetensors"]


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    for step, text in ((5, '{"global_step": 5}'), (10, '{"global'), (100, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if text is not None:
            (tmp_path / f"checkpoint-{step}/trainer_state.json").write_text(text)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-5"]


def test_another_recipe_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    recipe = drawn(tmp_path, steps=2)
    assert train(load_recipe(recipe), quiet)
    other = load_recipe(recipe, ["optimiser.learning_rate=1e-5", "log_steps=7"])
    with pytest.raises(TrainingError, match=r"other settings of optimiser; .* --no-resume"):
        train(other, quiet)
    before = tensors(tmp_path / "run/final")["lm_head.weight"]
    assert train(other, quiet, resume=False)
    assert not torch.equal(before, tensors(tmp_path / "run/final")["lm_head.weight"])


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    recipe = drawn(tmp_path, steps=2)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.txt").write_text("years of work")
    for resume in (True, False):
        with pytest.raises(TrainingError, match="is not empty"):
            train(load_recipe(recipe), quiet, resume=resume)
    assert (tmp_path / "run/thesis.txt").exists()


def test_progress_and_tensorboard_report_accuracy_and_rates(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = drawn(tmp_path, steps=3)
    reported: list[str] = []
    assert train(load_recipe(recipe), reported.append)
    lines = [line for line in reported if line.startswith("drawn ")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert "answers/s" in lines[0]
    assert lines[-1].endswith("0:00:00 left")
    events = EventAccumulator(str(tmp_path / "run/tensorboard/drawn")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss", "train/accuracy", "train/answers_per_second", "train/learning_rate"} <= tags
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]


def test_a_run_with_data_processes_is_the_same(tmp_path: Path) -> None:
    recipe = drawn(tmp_path, steps=2)
    assert train(load_recipe(recipe), quiet)
    assert train(load_recipe(recipe, [f"output={tmp_path / 'other'}", "workers=1"]), quiet)
    assert_same_weights(tensors(tmp_path / "run/final"), tensors(tmp_path / "other/final"))


def test_a_video_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    recipe = drawn(tmp_path, steps=3)
    (tmp_path / "video1/000002.jpg").write_bytes(b"not a picture")
    with pytest.raises(TrainingError, match=r"data\.json\[1\]: .*000002\.jpg is no image"):
        train(load_recipe(recipe), quiet)


def test_the_final_checkpoint_is_in_the_published_layout(tmp_path: Path) -> None:
    recipe = drawn(tmp_path, steps=1)
    assert train(load_recipe(recipe), quiet)
    final = tmp_path / "run/final"
    config = json.loads((final / "config.json").read_text())
    assert config["model_type"] == "flash_vstream_qwen2_vl"
    assert config["vision_config"]["flash_memory_config"]["flash_memory_temporal_length"] == 16
    assert {name.split(".")[0] for name in tensors(final)} == {"visual", "model", "lm_head"}
    loaded = load_checkpoint(str(final), device=torch.device("cpu"), dtype=torch.float32)
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("a red ball")) == "a red ball"
