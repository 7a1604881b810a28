"""Every setting of a training run, with its one default and its check. A recipe is a YAML file of these names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from fvs_ros.memory.geometry import LEAST_PIXELS
from fvs_ros.patrol.config import PatrolConfig
from fvs_ros.training.checks import fraction, one_of, positive
from fvs_ros.training.scratch_config import ScratchConfig

PRECISIONS = ("auto", "float32", "bfloat16")
ATTENTIONS = ("sdpa", "flash_attention_2", "eager")
ANSWERS, TOKEN_NAMING = "answers", "token_naming"
OBJECTIVES = (ANSWERS, TOKEN_NAMING)
METHODS = (ADAMW, MUON) = ("adamw", "muon")
SCHEDULES = ("cosine", "linear", "constant_with_warmup")


@dataclass(frozen=True)
class ModelSource:
    """What training starts from: exactly one of the two.

    Attributes:
        checkpoint: a folder, or a name on the hub.
        scratch: sizes of a new model.
    """

    checkpoint: str | None = None
    scratch: ScratchConfig | None = None

    def __post_init__(self) -> None:
        if (self.checkpoint is None) == (self.scratch is None):
            raise ValueError("give one of checkpoint and scratch, not both and not neither")


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank updates (LoRA) of the language model's linear layers and of the merger's; the ViT stays as it is.

    Attributes:
        rank, alpha, dropout: of every update.
        language_targets: names of the linear layers in each block of the language model.
        merger_targets: names of the linear layers in the vision tower's merger.
        fully_trained: modules whose weights are trained as they are, beside the updates.
    """

    rank: int = 64
    alpha: int = 32
    dropout: float = 0.05
    language_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    merger_targets: tuple[str, ...] = ("mlp.0", "mlp.2")
    fully_trained: tuple[str, ...] = ("lm_head",)

    def __post_init__(self) -> None:
        positive(self, "rank", "alpha")
        fraction(self, "dropout")


@dataclass(frozen=True)
class OptimiserConfig:
    """How weights are updated.

    Attributes:
        method: `adamw`, or `muon`: Muon for the matrices of layers and AdamW for the rest, see `fvs_ros.training.muon`.
        learning_rate: the highest, after the warmup.
        schedule: how the rate falls after the warmup.
        warmup: fraction of the steps over which the rate rises.
        weight_decay: of matrices; norms and biases have none.
        gradient_clip: largest norm of the gradient.
    """

    method: str = "adamw"
    learning_rate: float = 8e-4
    schedule: str = "cosine"
    warmup: float = 0.01
    weight_decay: float = 0.1
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        one_of("method", self.method, METHODS)
        one_of("schedule", self.schedule, SCHEDULES)
        positive(self, "learning_rate", "gradient_clip")
        fraction(self, "warmup", "weight_decay", "adam_beta1", "adam_beta2")


@dataclass(frozen=True)
class VideoData:
    """Videos and conversations about them, in the JSON of LLaVA-Video-178K.

    Attributes:
        annotations: JSON or JSON Lines files.
        root: folder that the videos' paths are relative to.
        fps: frames per second taken of a video file; folders of frames are taken to hold one a second.
        max_frames: longer videos are sampled uniformly down to this number of frames.
        min_pixels, max_pixels: bounds on a processed frame's area.
    """

    annotations: tuple[str, ...]
    root: str
    fps: float = 1.0
    max_frames: int = 240
    min_pixels: int = 100_352
    max_pixels: int = 200_704

    def __post_init__(self) -> None:
        positive(self, "fps")
        if self.max_frames < 2 or self.max_frames % 2:
            raise ValueError(f"max_frames is {self.max_frames}; it must be even, at least 2")
        if not LEAST_PIXELS <= self.min_pixels <= self.max_pixels:
            raise ValueError(
                f"min_pixels is {self.min_pixels}, max_pixels {self.max_pixels}; from {LEAST_PIXELS} up, in order"
            )
        if not self.annotations:
            raise ValueError("annotations names no file")


@dataclass(frozen=True)
class PatrolData:
    """Robot patrols, made while training from seeds.

    Attributes:
        episodes: number of different ones.
        first_seed: seed of the first; the others count on from it. Seeds from 900000 up are reserved for tests.
        lengths: in grid steps; episodes take them in turn.
        rooms, views, drive, dwell_s: of every episode, see `PatrolConfig`.
        moments: number of times in an episode at which questions are asked; the last is its end.
        questions: number asked at each of these moments.
        families: families of questions, or single templates such as `order.after`, each asked equally often; empty for
            all families.
        captions: number of enumerations of all objects seen, in random order, learnt at each moment. Of the words for
            an object's colour, kind and room, all but the first follow from the previous ones and the memory, so
            that every word teaches to look something up.
    """

    episodes: int
    lengths: tuple[int, ...]
    first_seed: int = 0
    rooms: int = PatrolConfig.rooms
    views: int = PatrolConfig.views
    drive: bool = PatrolConfig.drive
    dwell_s: tuple[int, ...] = PatrolConfig.dwell_s
    moments: int = 4
    questions: int = 16
    families: tuple[str, ...] = ()
    captions: int = 0

    def __post_init__(self) -> None:
        positive(self, "episodes", "moments")
        if min(self.questions, self.captions) < 0 or self.questions + self.captions == 0:
            raise ValueError(
                f"questions is {self.questions}, captions {self.captions}; both must be 0 or above, and one above 0"
            )
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(f"lengths is {list(self.lengths)}; give lengths of at least 1 grid step")
        if self.first_seed < 0:
            raise ValueError(f"first_seed is {self.first_seed}; it must be 0 or above")
        if len(self.dwell_s) != 2:
            raise ValueError(f"dwell_s is {list(self.dwell_s)}; it must hold the shortest and the longest stay")


@dataclass(frozen=True)
class StageConfig:
    """One part of a run: its data, its length, and what is trained.

    Attributes:
        name: of its folder.
        videos, patrol: exactly one of the two.
        objective: `answers` to questions, or `token_naming`: each visual token names what it shows, see
            `fvs_ros.training.objectives.token_naming`; that needs a patrol and a trained tower.
        tower: `frozen` or `trained`; the merger is trained in both.
        embeddings: `frozen` keeps the merger and the words' embeddings as token naming has left them. Trained at a
            full learning rate, a language model that cannot read yet undoes it: 95 percent of the visual tokens of
            objects named the right kind before, 45 percent after 1,000 steps.
        epochs: passes over the data.
        steps: optimiser steps, in place of `epochs`.
        batch: episodes on one device at a time.
        accumulation: batches of one optimiser step.
        rescale_embeddings: at the end of the stage the words' embeddings grow by this factor, while the merger's
            output and the output's norm shrink by it. What visual tokens name stays the same. Token naming leaves
            them a hundred times as long as words, so that layers trained on both would hardly see the words.
        depth_expansion: grows the language model to this number of layers before the stage; new layers begin idle, see
            `fvs_ros.training.depth_expansion`.
        memory_probe: weight, beside the loss of the answers, of what the memory's tokens should know before they are
            asked, see `fvs_ros.training.objectives.memory_probe`; only for patrols.
        method, schedule, warmup: in place of the run's.
    """

    name: str
    videos: VideoData | None = None
    patrol: PatrolData | None = None
    objective: str = ANSWERS
    tower: str = "frozen"
    embeddings: str = "trained"
    epochs: float = 1.0
    steps: int | None = None
    batch: int = 1
    accumulation: int = 1
    rescale_embeddings: float = 1.0
    depth_expansion: int | None = None
    memory_probe: float = 0.0
    method: str | None = None
    schedule: str | None = None
    warmup: float | None = None

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name or self.name.startswith("."):
            raise ValueError(f"name is {self.name!r}; it must be the name of a folder")
        if (self.videos is None) == (self.patrol is None):
            raise ValueError("give one of videos and patrol, not both and not neither")
        one_of("objective", self.objective, OBJECTIVES)
        one_of("tower", self.tower, ("frozen", "trained"))
        one_of("embeddings", self.embeddings, ("frozen", "trained"))
        if self.objective == TOKEN_NAMING and (self.patrol is None or self.tower == "frozen"):
            raise ValueError(
                "objective is token_naming, which trains the tower on patrols; give patrol and tower: trained"
            )
        if self.method is not None:
            one_of("method", self.method, METHODS)
        if self.schedule is not None:
            one_of("schedule", self.schedule, SCHEDULES)
        if self.warmup is not None:
            fraction(self, "warmup")
        if not 0 <= self.memory_probe < math.inf:
            raise ValueError(f"memory_probe is {self.memory_probe}; it must be a finite number of 0 or above")
        if self.memory_probe and (self.patrol is None or self.objective == TOKEN_NAMING):
            raise ValueError("memory_probe goes with answers about patrols; drop it, or give patrol and no objective")
        positive(self, "epochs", "batch", "accumulation", "rescale_embeddings")
        for name in ("steps", "depth_expansion"):
            if getattr(self, name) is not None:
                positive(self, name)


@dataclass(frozen=True)
class CacheConfig:
    """What is cached of episodes: features under a frozen tower, otherwise frames of patrols.

    Attributes:
        folder: on disk, None for no cache there.
        disk_gb: bound on the folder's size; the least recently used files make room.
        ram_mb: bound on what each data process also keeps in memory.
    """

    folder: str | None = None
    disk_gb: float = 10.0
    ram_mb: int = 256

    def __post_init__(self) -> None:
        positive(self, "disk_gb")
        if self.ram_mb < 0:
            raise ValueError(f"ram_mb is {self.ram_mb}; it must be 0 or above")


@dataclass(frozen=True)
class TrainConfig:
    """A training run: stages one after the other, each starting from the previous one's weights.

    Attributes:
        output: folder of the run; the final checkpoint is its subfolder `final`.
        model: what it starts from.
        stages: at least one.
        lora: None trains all weights (those of the ViT where a stage says so).
        seed: of new weights, the order of the data, and dropout.
        precision: `auto` is bfloat16 where the GPU computes with it. Trained weights are always float32.
        attention: of the language model. flash_attention_2 cannot take patrols, whose questions share a memory.
        max_tokens: longer sequences lose their end, as published.
        gradient_checkpointing: recomputes the layers in the backward pass instead of keeping their results.
        deepspeed: a JSON file of DeepSpeed, for runs under torchrun.
        workers: processes that read and draw data, beside the one that trains.
        encode_in_workers: whether those processes also run the frozen tower and the memory, on the CPU: for training
            without a GPU, where the tower would hold up the language model.
        log_steps: optimiser steps between two lines of progress.
        save_steps: optimiser steps between two checkpoints to resume from.
        keep: number of these that are kept.
    """

    output: str
    model: ModelSource
    stages: tuple[StageConfig, ...]
    lora: LoraSettings | None = None
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    seed: int = 0
    precision: str = "auto"
    attention: str = "sdpa"
    max_tokens: int = 14_000
    gradient_checkpointing: bool = False
    deepspeed: str | None = None
    workers: int = 1
    encode_in_workers: bool = False
    log_steps: int = 10
    save_steps: int = 100
    keep: int = 2

    def __post_init__(self) -> None:
        one_of("precision", self.precision, PRECISIONS)
        one_of("attention", self.attention, ATTENTIONS)
        positive(self, "max_tokens", "log_steps", "save_steps", "keep")
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names) or "final" in names:
            raise ValueError(f"stages are named {names}; give at least one, each a name of its own other than final")
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}; it must be 0 or above")
        if self.lora is not None and any(stage.tower == "trained" for stage in self.stages):
            raise ValueError("a stage has tower: trained, but with lora the ViT stays as it is; drop one of the two")
        methods = {self.optimiser.method, *(stage.method for stage in self.stages)}
        if self.deepspeed is not None and MUON in methods:
            raise ValueError("method is muon, which needs whole matrices, but deepspeed splits them; drop one")
        if self.attention == "flash_attention_2" and any(stage.patrol is not None for stage in self.stages):
            raise ValueError("attention is flash_attention_2, which cannot take patrols; use sdpa")
