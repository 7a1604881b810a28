"""A training run: its stages one after the other, each resumable, and the checkpoint that comes out."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from transformers import PrinterCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled, unset_hf_deepspeed_config

from fvs_ros.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fvs_ros.training.config import TOKEN_NAMING, StageConfig, TrainConfig
from fvs_ros.training.data.cache import TensorCache
from fvs_ros.training.data.dataset import EpisodeDataset, collate
from fvs_ros.training.data.episodes import EpisodeSource
from fvs_ros.training.data.frozen_encoder import FrozenEncoder
from fvs_ros.training.data.patrols import PatrolEpisodes
from fvs_ros.training.data.videos import VideoEpisodes
from fvs_ros.training.depth_expansion import expand_depth
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.model import EpisodeModel
from fvs_ros.training.objectives.memory_probe import MemoryProbe
from fvs_ros.training.objectives.patrol_probe import PROBE_GROUPS, PROBE_SETS
from fvs_ros.training.scratch import new_checkpoint
from fvs_ros.training.trainable import (
    ADAPTER_FOLDER,
    apply_lora,
    load_trained_weights,
    rescale_embeddings,
    tower_fingerprint,
    train_everything,
    trained_in_float32,
)
from fvs_ros.training.trainer import WEIGHTS_FILE, EpisodeTrainer, Progress, StopWhenDue

FINAL = "final"
TRAINED = "trained"
TENSORBOARD = "tensorboard"
RECIPE_FILE = "recipe.json"
# What may change between two parts of one run without changing what is learnt.
FREE = (
    "output",
    "cache",
    "workers",
    "log_steps",
    "save_steps",
    "keep",
    "encode_in_workers",
    "deepspeed",
    "gradient_checkpointing",
)


@dataclass(frozen=True)
class Prepared:
    """A stage that is ready to be trained.

    Attributes:
        checkpoint: what it starts from; its network is trained in place.
        dataset: the stage's episodes.
        model: gives their loss.
        steps: optimiser steps.
    """

    checkpoint: Checkpoint
    dataset: EpisodeDataset
    model: EpisodeModel
    steps: int


def run(config: TrainConfig, console: Console, *, resume: bool = True, minutes: float | None = None) -> bool:
    """Trains all stages that are not done yet.

    Args:
        config: the recipe.
        console: gets the lines of progress.
        resume: go on where an earlier run into the same folder was interrupted; else begin anew, which deletes it.
        minutes: stop with a checkpoint after so long.

    Returns:
        Whether the run is finished; False if `minutes` ended it.

    Raises:
        TrainingError, CheckpointError: data, recipe or folder cannot be used.
    """
    # Tokenizers warn when worker processes are forked after they were used.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    deadline_s = math.inf if minutes is None else time.monotonic() + 60 * minutes
    output = Path(config.output).expanduser()
    first = int(os.environ.get("RANK", "0")) == 0
    if first:
        _open_run(config, output, resume)
    for index, stage in enumerate(config.stages):
        last = index == len(config.stages) - 1
        target = output / FINAL if last else output / stage.name / FINAL
        if target.exists():
            continue
        source = None if index == 0 else str(output / config.stages[index - 1].name / FINAL)
        if not _train_stage(config, index, source, target, console, deadline_s):
            if first:
                console.print("time is up; the same command goes on from here", highlight=False)
            return False
    if first:
        console.print(f"the checkpoint is in {output / FINAL}", highlight=False)
    return True


def dry_run(config: TrainConfig, console: Console) -> None:
    """Prepares every stage, computes the loss and gradient of its first episode, and prints what it would train.

    Raises:
        TrainingError, CheckpointError: data or recipe cannot be used.
    """
    for index, stage in enumerate(config.stages):
        prepared = prepare(config, index, None)
        begin = time.monotonic()
        prepared.model.train()
        output = prepared.model([prepared.dataset[0]])
        output.loss.backward()
        seconds = time.monotonic() - begin
        parameters = list(prepared.model.parameters())
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        world = int(os.environ.get("WORLD_SIZE", "1"))
        console.print(
            f"{stage.name}: {len(prepared.dataset)} episodes, {prepared.steps} steps of "
            f"{world} x {stage.batch} x {stage.accumulation} episodes; "
            f"{sum(p.numel() for p in trained):,} of {sum(p.numel() for p in parameters):,} parameters are trained, in "
            f"{len(trained)} tensors; first episode: {output.tokens} tokens, {len(output.families)} answers, loss "
            f"{output.loss.item():.4f}, forward and backward {seconds:.2f} s",
            highlight=False,
            soft_wrap=True,
        )


def prepare(config: TrainConfig, index: int, source: str | None) -> Prepared:
    """Loads what a stage needs.

    Args:
        config: the recipe.
        index: of the stage.
        source: checkpoint that the stage before left, None for the recipe's.
    """
    stage = config.stages[index]
    episodes = _episodes(stage)
    checkpoint = start(config, stage, source)
    network = checkpoint.network
    if config.lora is not None:
        apply_lora(network, config.lora)
    else:
        train_everything(network, tower=stage.tower == "trained", embeddings=stage.embeddings == "trained")
    if not _uses_deepspeed(config):  # which keeps float32 copies of its own
        trained_in_float32(network)
    if config.gradient_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    trained = stage.tower == "trained"
    cache = TensorCache(config.cache)
    # ZeRO-3 leaves no process the whole tower to take a fingerprint of.
    keeps_features = not trained and not is_deepspeed_zero3_enabled()
    tower = tower_fingerprint(checkpoint.backbone.tower) if keeps_features else None
    encoder = None
    if config.encode_in_workers and not trained:
        encoder = FrozenEncoder(checkpoint.backbone.tower, checkpoint.pixels, checkpoint.config.memory)
    dataset = EpisodeDataset(episodes, checkpoint.pixels, cache, tower, encoder)
    probe = None
    if stage.memory_probe:
        probe = MemoryProbe(network.config.text_config.hidden_size, PROBE_GROUPS, PROBE_SETS)
    model = EpisodeModel(
        checkpoint,
        tower_trained=trained,
        max_tokens=config.max_tokens,
        cache=cache,
        objective=stage.objective,
        probe=probe,
        probe_weight=stage.memory_probe,
    )
    return Prepared(checkpoint, dataset, model, total_steps(stage, len(dataset)))


def start(config: TrainConfig, stage: StageConfig, source: str | None) -> Checkpoint:
    """What a stage starts from, on the CPU."""
    if source is None and config.model.scratch is not None:
        checkpoint = new_checkpoint(config.model.scratch, config.seed)
    else:
        name = source or config.model.checkpoint
        assert name is not None
        # With LoRA most weights are never changed, so that they may stay in half the memory.
        half = config.lora is not None and use_bfloat16(config)
        dtype = torch.bfloat16 if half else torch.float32
        checkpoint = load_checkpoint(name, device=torch.device("cpu"), dtype=dtype, attention=config.attention)
    if stage.depth_expansion is not None:
        checkpoint = expand_depth(checkpoint, stage.depth_expansion)
    return checkpoint


def use_bfloat16(config: TrainConfig) -> bool:
    """Whether products are computed in bfloat16."""
    if config.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return config.precision == "bfloat16"


def _uses_deepspeed(config: TrainConfig) -> bool:
    """Whether DeepSpeed runs: it needs the processes of torchrun."""
    return config.deepspeed is not None and "WORLD_SIZE" in os.environ


def total_steps(stage: StageConfig, episodes: int) -> int:
    """Optimiser steps of a stage."""
    if stage.steps is not None:
        return stage.steps
    world = int(os.environ.get("WORLD_SIZE", "1"))
    batches = math.ceil(episodes / (stage.batch * world))
    return max(1, math.ceil(stage.epochs * math.ceil(batches / stage.accumulation)))


def training_arguments(config: TrainConfig, stage: StageConfig, folder: Path, steps: int) -> TrainingArguments:
    """The Trainer's settings for a stage."""
    optimiser = config.optimiser
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=stage.batch,
        gradient_accumulation_steps=stage.accumulation,
        learning_rate=optimiser.learning_rate,
        lr_scheduler_type=stage.schedule or optimiser.schedule,
        warmup_steps=math.ceil((optimiser.warmup if stage.warmup is None else stage.warmup) * steps),
        weight_decay=optimiser.weight_decay,
        adam_beta1=optimiser.adam_beta1,
        adam_beta2=optimiser.adam_beta2,
        max_grad_norm=optimiser.gradient_clip,
        optim="adamw_torch_fused",
        seed=config.seed,
        bf16=use_bfloat16(config),
        use_cpu=not torch.cuda.is_available(),
        deepspeed=config.deepspeed if _uses_deepspeed(config) else None,
        dataloader_num_workers=config.workers,
        dataloader_persistent_workers=config.workers > 0,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        logging_steps=config.log_steps,
        save_steps=config.save_steps,
        save_total_limit=config.keep,
        report_to="none",
        disable_tqdm=True,
    )
    # Without torchrun the Trainer would split batches over all GPUs by DataParallel, which cannot split episodes.
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of the Trainer in a folder that was written to its end.

    A process that was killed while it wrote leaves one without its state, which comes last; that is removed.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for checkpoint in found:
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, ValueError):
            shutil.rmtree(checkpoint)
            continue
        return checkpoint
    return None


def _open_run(config: TrainConfig, output: Path, resume: bool) -> None:
    """Makes the run's folder, or checks that the run in it was begun with the same recipe."""
    recipe = json.loads(json.dumps({key: value for key, value in asdict(config).items() if key not in FREE}))
    file = output / RECIPE_FILE
    if file.exists() and not resume:
        for folder in (FINAL, TENSORBOARD, *(stage["name"] for stage in json.loads(file.read_text())["stages"])):
            shutil.rmtree(output / folder, ignore_errors=True)
        file.unlink()
    elif not file.exists() and output.exists() and any(output.iterdir()):
        raise TrainingError(f"{output} is not empty and holds no run of fvs train; name another output")
    if file.exists():
        begun = json.loads(file.read_text())
        changed = sorted(key for key in recipe if recipe[key] != begun.get(key))
        if changed:
            raise TrainingError(
                f"{output} holds a run with other settings of {', '.join(changed)}; name another output, or begin anew "
                "with --no-resume, which deletes it"
            )
        return
    output.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")


def _train_stage(
    config: TrainConfig, index: int, source: str | None, target: Path, console: Console, deadline_s: float
) -> bool:
    stage = config.stages[index]
    output = Path(config.output).expanduser()
    folder = output / stage.name
    trained = folder / TRAINED
    if not (trained / WEIGHTS_FILE).exists():
        # The arguments come before the weights: with DeepSpeed's ZeRO-3 they decide how these are loaded.
        arguments = training_arguments(config, stage, folder, total_steps(stage, len(_episodes(stage))))
        torch.manual_seed(config.seed)
        prepared = prepare(config, index, source)
        due = StopWhenDue(deadline_s)
        trainer = EpisodeTrainer(
            prepared.model,
            arguments,
            prepared.dataset,
            data_collator=collate,
            method=stage.method or config.optimiser.method,
            callbacks=[Progress(console, stage.name), _tensorboard(output / TENSORBOARD / stage.name), due],
        )
        trainer.remove_callback(PrinterCallback)
        resumed = last_checkpoint(folder)
        if resumed is not None and arguments.should_save:
            console.print(f"{stage.name} goes on from {resumed.name}", highlight=False)
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
        if due.due:
            return False
        trainer.save_model(str(folder / f"{TRAINED}.partial"))
        if arguments.should_save:
            shutil.rmtree(trained, ignore_errors=True)
            (folder / f"{TRAINED}.partial").rename(trained)
        trainer.accelerator.wait_for_everyone()
    if int(os.environ.get("RANK", "0")) == 0:
        _finish(config, stage, source, trained / WEIGHTS_FILE, target)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    return True


def _tensorboard(folder: Path) -> TensorBoardCallback:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("training writes for TensorBoard: pip install 'fvs_ros[train]'") from error
    return TensorBoardCallback(SummaryWriter(str(folder)))


def _finish(config: TrainConfig, stage: StageConfig, source: str | None, weights: Path, target: Path) -> None:
    """Writes a stage's checkpoint: the weights that it started from with the trained ones, LoRA merged.

    They are loaded anew, so that it does not matter over how many processes the training had spread them.
    """
    unset_hf_deepspeed_config()
    checkpoint = start(config, stage, source)
    dtype = checkpoint.network.dtype
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    if config.lora is None:
        train_everything(checkpoint.network, tower=stage.tower == "trained", embeddings=stage.embeddings == "trained")
        load_trained_weights(_Wrapped(checkpoint.network), weights)
        rescale_embeddings(checkpoint.backbone, stage.rescale_embeddings)
    else:
        adapters = apply_lora(checkpoint.network, config.lora)
        trained_in_float32(checkpoint.network)
        load_trained_weights(_Wrapped(checkpoint.network), weights)
        adapters.save_pretrained(str(partial / ADAPTER_FOLDER))
        checkpoint = replace(checkpoint, network=adapters.merge_and_unload().to(dtype))
    save_checkpoint(checkpoint, partial)
    partial.rename(target)


class _Wrapped(torch.nn.Module):
    """Gives a network's weights the names that they had in `EpisodeModel`."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network


def _episodes(stage: StageConfig) -> EpisodeSource:
    if stage.videos is not None:
        return VideoEpisodes(stage.videos)
    assert stage.patrol is not None
    return PatrolEpisodes(
        stage.patrol, token_naming=stage.objective == TOKEN_NAMING, memory_probe=stage.memory_probe > 0
    )
