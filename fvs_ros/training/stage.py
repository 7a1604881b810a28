"""One stage of a run: its episodes, the checkpoint it starts from, its model, and the Trainer's settings."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainingArguments
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from fvs_ros.memory.time_code import check_clock_width
from fvs_ros.model.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from fvs_ros.model.recall import RecallHead
from fvs_ros.training.config import StageConfig, TrainConfig
from fvs_ros.training.data.cache import TensorCache
from fvs_ros.training.data.dataset import EpisodeDataset
from fvs_ros.training.data.episodes import EpisodeSource
from fvs_ros.training.data.frozen_encoder import FrozenEncoder
from fvs_ros.training.data.patrols import PatrolEpisodes
from fvs_ros.training.data.videos import VideoEpisodes
from fvs_ros.training.depth_expansion import expand_depth
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.model import EpisodeModel
from fvs_ros.training.objectives.memory_probe import MemoryProbe
from fvs_ros.training.objectives.patrol_probe import PROBE_GROUPS, PROBE_SETS
from fvs_ros.training.scratch import new_checkpoint, patrol_vocabulary
from fvs_ros.training.trainable import (
    apply_lora,
    set_activation_checkpointing,
    tower_fingerprint,
    train_everything,
    trained_in_float32,
)
from fvs_ros.training.vocabulary import with_words


@dataclass(frozen=True)
class PreparedStage:
    """A stage that is ready to be trained.

    Attributes:
        dataset: the stage's episodes.
        model: gives their loss.
        steps: optimiser steps.
    """

    dataset: EpisodeDataset
    model: EpisodeModel
    steps: int


def prepare(config: TrainConfig, stage: StageConfig, source: str | None) -> PreparedStage:
    """Loads what a stage needs.

    Args:
        config: the recipe.
        stage: one of its stages.
        source: the previous stage's checkpoint, None for the recipe's.

    Raises:
        TrainingError, CheckpointError: data or recipe cannot be used.
    """
    episodes = episodes_of(stage)
    checkpoint = starting_checkpoint(config, stage, source)
    network, trained = checkpoint.network, stage.tower == "trained"
    if stage.objective == "recall":
        network.requires_grad_(False)
    elif config.lora is not None:
        apply_lora(network, config.lora)
    else:
        train_everything(network, tower=trained, embeddings=stage.embeddings)
    if not _uses_deepspeed(config):  # which keeps float32 copies of its own
        trained_in_float32(network)
    if config.gradient_checkpointing:
        set_activation_checkpointing(network, True)
    cache = TensorCache(config.cache)
    # Under ZeRO-3 no process holds the whole tower to take a fingerprint of.
    keeps_features = not trained and not is_deepspeed_zero3_enabled()
    tower = tower_fingerprint(checkpoint.backbone.tower) if keeps_features else None
    encoder = None
    if config.encode_in_workers and not trained:
        # A copy: the Trainer moves the network to a GPU, which forked processes cannot use.
        tower_copy = copy.deepcopy(checkpoint.backbone.tower)
        encoder = FrozenEncoder(tower_copy, checkpoint.pixels, checkpoint.config.memory)
    probe = None
    if stage.memory_probe:
        probe = MemoryProbe(network.config.text_config.hidden_size, PROBE_GROUPS, PROBE_SETS)
    dataset = EpisodeDataset(episodes, checkpoint.pixels, cache, tower, encoder)
    model = EpisodeModel(
        checkpoint,
        tower_trained=trained,
        max_tokens=config.max_tokens,
        cache=cache,
        objective=stage.objective,
        probe=probe,
        probe_weight=stage.memory_probe,
        proof_weight=stage.proof_attention,
    )
    return PreparedStage(dataset, model, total_steps(stage, len(dataset)))


def episodes_of(stage: StageConfig) -> EpisodeSource:
    """The stage's data."""
    if stage.patrol is not None:
        return PatrolEpisodes(stage.patrol, objective=stage.objective, memory_probe=stage.memory_probe > 0)
    assert stage.videos is not None
    return VideoEpisodes(stage.videos)


def starting_checkpoint(config: TrainConfig, stage: StageConfig, source: str | None) -> Checkpoint:
    """What a stage starts from, on the CPU; the arguments are those of `prepare`."""
    if source is None and config.model.scratch is not None:
        checkpoint = new_checkpoint(config.model.scratch, config.seed)
    else:
        name = source or config.model.checkpoint
        assert name is not None
        # With LoRA most weights never change, so they can stay in half the memory.
        half = config.lora is not None and _use_bfloat16(config)
        dtype = torch.bfloat16 if half else torch.float32
        checkpoint = load_checkpoint(name, device=torch.device("cpu"), dtype=dtype, attention=config.attention)
        if checkpoint.config.quantised_as is not None:
            raise CheckpointError(
                f"{name} holds {checkpoint.config.quantised_as} weights, which cannot be trained; name the "
                "checkpoint in full precision"
            )
        if source is None and config.model.vocabulary == "patrol":
            checkpoint = with_words(checkpoint, patrol_vocabulary(), config.seed)
    if stage.clock_code is not None:
        if stage.clock_code:
            _check_clock_width(checkpoint, stage)
        memory = dataclasses.replace(checkpoint.config.memory, clock_code=stage.clock_code)
        checkpoint = dataclasses.replace(checkpoint, config=dataclasses.replace(checkpoint.config, memory=memory))
    if stage.objective == "recall" and checkpoint.recall is None:
        torch.manual_seed(config.seed)
        head = RecallHead(checkpoint.network.config.text_config.hidden_size)
        checkpoint = dataclasses.replace(checkpoint, recall=head)
    return checkpoint if stage.depth_expansion is None else expand_depth(checkpoint, stage.depth_expansion)


def _check_clock_width(checkpoint: Checkpoint, stage: StageConfig) -> None:
    try:
        check_clock_width(checkpoint.network.config.text_config.hidden_size)
    except ValueError as error:
        raise TrainingError(f"{stage.name}: clock_code is {stage.clock_code}: {error}") from error


def total_steps(stage: StageConfig, episodes: int) -> int:
    """Optimiser steps of a stage with this number of episodes."""
    if stage.steps is not None:
        return stage.steps
    batches = math.ceil(episodes / (stage.batch * process_count()))
    return max(1, math.ceil(stage.epochs * math.ceil(batches / stage.accumulation)))


def process_count() -> int:
    """Processes that torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def training_arguments(config: TrainConfig, stage: StageConfig, folder: Path, steps: int) -> TrainingArguments:
    """The Trainer's settings for a stage."""
    optimiser = config.optimiser
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=stage.batch,
        gradient_accumulation_steps=stage.accumulation,
        learning_rate=stage.learning_rate or optimiser.learning_rate,
        lr_scheduler_type=stage.schedule or optimiser.schedule,
        warmup_steps=math.ceil((optimiser.warmup if stage.warmup is None else stage.warmup) * steps),
        weight_decay=optimiser.weight_decay,
        adam_beta1=optimiser.adam_beta1,
        adam_beta2=optimiser.adam_beta2,
        max_grad_norm=optimiser.gradient_clip,
        optim="adamw_torch_fused",
        seed=config.seed,
        bf16=_use_bfloat16(config),
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


def _use_bfloat16(config: TrainConfig) -> bool:
    if config.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return config.precision == "bfloat16"


def _uses_deepspeed(config: TrainConfig) -> bool:
    """Whether DeepSpeed runs: it needs the processes of torchrun."""
    return config.deepspeed is not None and "WORLD_SIZE" in os.environ
