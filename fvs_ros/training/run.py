"""A training run: its stages one after the other, each resumable, and the checkpoint that comes out."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from transformers import PrinterCallback
from transformers.integrations import TensorBoardCallback
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from fvs_ros.model.checkpoint import save_checkpoint
from fvs_ros.training.config import StageConfig, TrainConfig
from fvs_ros.training.data.dataset import collate
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.stage import (
    episodes_of,
    prepare,
    process_count,
    starting_checkpoint,
    total_steps,
    training_arguments,
)
from fvs_ros.training.trainable import (
    ADAPTER_FOLDER,
    apply_lora,
    load_trained_weights,
    rescale_embeddings,
    train_everything,
    trained_in_float32,
)
from fvs_ros.training.trainer import WEIGHTS_FILE, EpisodeTrainer, Progress, StopWhenDue

FINAL = "final"
TRAINED = "trained"
TENSORBOARD = "tensorboard"
RECIPE_FILE = "recipe.json"
# Settings that may change when a run resumes, as they do not change what is learnt.
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


def train(
    config: TrainConfig, report: Callable[[str], None], *, resume: bool = True, minutes: float | None = None
) -> bool:
    """Trains all stages that are not finished yet.

    Args:
        config: the recipe.
        report: receives each line of progress.
        resume: continue an interrupted run in the same folder; otherwise delete it and start over.
        minutes: stop after this time, with a checkpoint to resume from.

    Returns:
        Whether the run is finished; False if `minutes` ended it.

    Raises:
        TrainingError, CheckpointError: data, recipe or folder cannot be used.
    """
    # Tokenizers warn when worker processes are forked after they were used.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    deadline_s = math.inf if minutes is None else time.monotonic() + 60 * minutes
    output = Path(config.output).expanduser()
    if _is_first_process():
        _open_run(config, output, resume)
    for index, stage in enumerate(config.stages):
        last = index == len(config.stages) - 1
        target = output / FINAL if last else output / stage.name / FINAL
        if target.exists():
            continue
        source = None if index == 0 else str(output / config.stages[index - 1].name / FINAL)
        if not _train_stage(config, stage, source, target, report, deadline_s):
            if _is_first_process():
                report("time is up; the same command resumes from here")
            return False
    if _is_first_process():
        report(f"the checkpoint is in {output / FINAL}")
    return True


def dry_run(config: TrainConfig, report: Callable[[str], None]) -> None:
    """Prepares every stage, computes the loss and gradient of its first episode, and reports what it would train.

    Raises:
        TrainingError, CheckpointError: data or recipe cannot be used.
    """
    for stage in config.stages:
        prepared = prepare(config, stage, None)
        begin = time.monotonic()
        prepared.model.train()
        output = prepared.model([prepared.dataset[0]])
        output.loss.backward()
        seconds = time.monotonic() - begin
        parameters = list(prepared.model.parameters())
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        report(
            f"{stage.name}: {len(prepared.dataset)} episodes, {prepared.steps} steps of "
            f"{process_count()} x {stage.batch} x {stage.accumulation} episodes; "
            f"{sum(p.numel() for p in trained):,} of {sum(p.numel() for p in parameters):,} parameters are trained, in "
            f"{len(trained)} tensors; first episode: {output.tokens} tokens, {len(output.families)} answers, loss "
            f"{output.loss.item():.4f}, forward and backward {seconds:.2f} s"
        )


def last_checkpoint(folder: Path) -> Path | None:
    """The Trainer's newest complete checkpoint in a folder.

    A process killed while writing leaves one without its state, which is written last; such a one is deleted.
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
                f"{output} holds a run with other settings of {', '.join(changed)}; name another output, or start over "
                "with --no-resume, which deletes it"
            )
        return
    output.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")


def _train_stage(
    config: TrainConfig,
    stage: StageConfig,
    source: str | None,
    target: Path,
    report: Callable[[str], None],
    deadline_s: float,
) -> bool:
    """Trains one stage and writes its checkpoint to `target`; False if the deadline came first."""
    output = Path(config.output).expanduser()
    folder = output / stage.name
    trained = folder / TRAINED
    if not (trained / WEIGHTS_FILE).exists():
        # The arguments come before the weights: with DeepSpeed's ZeRO-3 they decide how these are loaded.
        arguments = training_arguments(config, stage, folder, total_steps(stage, len(episodes_of(stage))))
        torch.manual_seed(config.seed)
        prepared = prepare(config, stage, source)
        due = StopWhenDue(deadline_s)
        trainer = EpisodeTrainer(
            prepared.model,
            arguments,
            prepared.dataset,
            data_collator=collate,
            method=stage.method or config.optimiser.method,
            callbacks=[Progress(report, stage.name), _tensorboard(output / TENSORBOARD / stage.name), due],
        )
        trainer.remove_callback(PrinterCallback)
        resumed = last_checkpoint(folder)
        if resumed is not None and arguments.should_save:
            report(f"{stage.name} resumes from {resumed.name}")
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
        if due.due:
            return False
        trainer.save_model(str(folder / f"{TRAINED}.partial"))
        if arguments.should_save:
            shutil.rmtree(trained, ignore_errors=True)
            (folder / f"{TRAINED}.partial").rename(trained)
        trainer.accelerator.wait_for_everyone()
    if _is_first_process():
        _finish(config, stage, source, trained / WEIGHTS_FILE, target)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    return True


def _is_first_process() -> bool:
    """Whether this is the one of torchrun's processes that reports and writes the result."""
    return int(os.environ.get("RANK", "0")) == 0


def _tensorboard(folder: Path) -> TensorBoardCallback:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("training writes for TensorBoard: pip install 'fvs_ros[train]'") from error
    return TensorBoardCallback(SummaryWriter(str(folder)))


def _finish(config: TrainConfig, stage: StageConfig, source: str | None, weights: Path, target: Path) -> None:
    """Writes a stage's checkpoint: the weights that it started from, replaced by the trained ones, LoRA merged.

    Both are loaded again, so that it does not matter how training had spread them over processes.
    """
    unset_hf_deepspeed_config()
    checkpoint = starting_checkpoint(config, stage, source)
    # The names that weights had in `EpisodeModel`.
    named = torch.nn.ModuleDict({"network": checkpoint.network})
    if stage.objective == "recall" and checkpoint.recall is not None:
        checkpoint.network.requires_grad_(False)
        named["recall"] = checkpoint.recall
    dtype = checkpoint.network.dtype
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    if stage.objective == "recall":
        load_trained_weights(named, weights)
    elif config.lora is None:
        train_everything(checkpoint.network, tower=stage.tower == "trained", embeddings=stage.embeddings)
        load_trained_weights(named, weights)
        rescale_embeddings(checkpoint.backbone, stage.rescale_embeddings)
    else:
        adapters = apply_lora(checkpoint.network, config.lora)
        trained_in_float32(checkpoint.network)
        load_trained_weights(named, weights)
        adapters.save_pretrained(str(partial / ADAPTER_FOLDER))
        checkpoint = replace(checkpoint, network=adapters.merge_and_unload().to(dtype))
    save_checkpoint(checkpoint, partial)
    partial.rename(target)
