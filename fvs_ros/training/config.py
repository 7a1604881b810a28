"""Every setting of a training run, with its one default and its check. A recipe is a YAML file of these names."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.geometry import LEAST_PIXELS
from fvs_ros.patrol.config import FRAME_SIZE, PatrolConfig

Method = Literal["adamw", "muon"]
Schedule = Literal["cosine", "linear", "constant_with_warmup"]
Objective = Literal["answers", "token_naming", "recall"]
Training = Literal["frozen", "trained"]
EmbeddingTraining = Literal["frozen", "words", "trained"]


def _require(record: object, *names: str, allows: Callable[[Any], bool], what: str) -> None:
    """Refuses values other than None that are not allowed; names the setting, its value and what it must be."""
    for name in names:
        value = getattr(record, name)
        if value is not None and not allows(value):
            raise ValueError(f"{name} is {value}; it must be {what}")


_positive = partial(_require, allows=lambda value: value > 0, what="above 0")
_not_negative = partial(_require, allows=lambda value: value >= 0, what="0 or above")
_finite = partial(_require, allows=lambda value: 0 <= value < math.inf, what="a finite number of 0 or above")
_fraction = partial(_require, allows=lambda value: 0 <= value < 1, what="from 0 to below 1")


@dataclass(frozen=True)
class ScratchConfig:
    """A new Qwen2-VL with random weights and a tokenizer of its own.

    The defaults are 5.4 M parameters, 21 MB: a ViT of 1.4 M, its merger 0.8 M, a language model of 3.2 M.

    Attributes:
        vision_depth, vision_width, vision_heads: layers, width and heads of the ViT.
        text_depth, text_width, text_mlp, text_heads, text_kv_heads: of the language model.
        rope_section: how many of the rotary frequencies turn with time, row and column; time comes first and gets the
            fastest ones. With 12 of 32 and a base of 10,000, the slowest one of time turns once in 150 steps, which
            the memory's slots fit in.
        frame_pixels: area of a processed frame.
        csm_slots, dam_slots: of the Flash Memory, in grid steps.
        window_slots: newest grid steps that the memory also keeps as they are, in high resolution.
        time_code: length of the time code on the memory's tokens, see `FlashMemoryConfig`; words have a length of 0.19.
        time_weight: how time counts in joining steps, see `FlashMemoryConfig`. Two frames of one view are about 100
            apart within a stay and 2,000 between stays, frames of different views 17,000.
        tied_embeddings: whether the output shares its weights with the words' embeddings, as in Qwen2-VL-2B. Token
            naming needs it.
        vocabulary: where the words come from: `patrol`, or `bytes` for one token a byte.
    """

    vision_depth: int = 4
    vision_width: int = 192
    vision_heads: int = 6
    text_depth: int = 5
    text_width: int = 256
    text_mlp: int = 512
    text_heads: int = 4
    text_kv_heads: int = 2
    rope_section: tuple[int, ...] = (12, 10, 10)
    frame_pixels: int = FRAME_SIZE**2
    csm_slots: int = 120
    dam_slots: int = 8
    window_slots: int = 1
    time_code: float = 0.0
    time_weight: float = 0.0
    tied_embeddings: bool = True
    vocabulary: Literal["patrol", "bytes"] = "patrol"

    def __post_init__(self) -> None:
        for width, heads in (("vision_width", "vision_heads"), ("text_width", "text_heads")):
            _positive(self, width, heads)
            if getattr(self, width) % (4 * getattr(self, heads)):
                raise ValueError(
                    f"{width} is {getattr(self, width)}, {heads} {getattr(self, heads)}; it must be a multiple of "
                    f"4 * {heads}"
                )
        _positive(self, "vision_depth", "text_depth", "text_mlp", "text_kv_heads", "csm_slots")
        if self.text_heads % self.text_kv_heads:
            raise ValueError(f"text_heads is {self.text_heads}; it must be a multiple of {self.text_kv_heads} kv heads")
        half = self.text_width // self.text_heads // 2
        if len(self.rope_section) != 3 or sum(self.rope_section) != half:
            raise ValueError(
                f"rope_section is {list(self.rope_section)}; it must hold three numbers that make {half}, half a head"
            )
        FlashMemoryConfig(time_code=self.time_code, time_weight=self.time_weight)  # refuses what no memory can have
        _require(self, "frame_pixels", allows=lambda value: value >= LEAST_PIXELS, what=f"at least {LEAST_PIXELS}")


@dataclass(frozen=True)
class ModelSource:
    """What training starts from: exactly one of the two.

    Attributes:
        checkpoint: a folder, or a name on the hub.
        scratch: sizes of a new model.
        vocabulary: `kept`, or `patrol`: a checkpoint with a word tokenizer gets a new one with the words of patrols as
            they are today, see `fvs_ros.training.vocabulary`.
    """

    checkpoint: str | None = None
    scratch: ScratchConfig | None = None
    vocabulary: Literal["kept", "patrol"] = "kept"

    def __post_init__(self) -> None:
        if (self.checkpoint is None) == (self.scratch is None):
            raise ValueError("give one of checkpoint and scratch, not both and not neither")
        if self.scratch is not None and self.vocabulary != "kept":
            raise ValueError(f"vocabulary is {self.vocabulary}, but with scratch it is a setting of the new model")


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank updates (LoRA) of the language model's linear layers and of the merger's; the ViT stays as it is.

    Attributes:
        rank, alpha, dropout: of every update.
        language_targets: names of the linear layers in each block of the language model.
        merger_targets: names of the linear layers in the mergers, of which Qwen3-VL has several; None takes them all.
        fully_trained: modules whose weights are trained as they are, beside the updates.
    """

    rank: int = 64
    alpha: int = 32
    dropout: float = 0.05
    language_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    merger_targets: tuple[str, ...] | None = None
    fully_trained: tuple[str, ...] = ("lm_head",)

    def __post_init__(self) -> None:
        _positive(self, "rank", "alpha")
        _fraction(self, "dropout")


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

    method: Method = "adamw"
    learning_rate: float = 8e-4
    schedule: Schedule = "cosine"
    warmup: float = 0.01
    weight_decay: float = 0.1
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "learning_rate", "gradient_clip")
        _fraction(self, "warmup", "weight_decay", "adam_beta1", "adam_beta2")


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
        _positive(self, "fps")
        _require(self, "max_frames", allows=lambda value: value >= 2 and value % 2 == 0, what="even, at least 2")
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
        rooms, views, drive, dwell_s: of these episodes, see `PatrolConfig`.
        day_lengths: of further episodes, with a clock, see `patrol.config.day_config`.
        recalled_lengths: the same, whose memories show what the questions recall instead of all, see
            `fvs_ros.training.data.recall`; only that is drawn. They have the later half of the moments.
        moments: number of times in an episode at which questions are asked; the last is its end.
        questions: number asked at each of these moments.
        families: families of questions, or single templates such as `order.after`, each asked equally often; empty for
            all families. Patrols with a clock are also asked each of what a clock tells, the family `range`.
        wording: whose words the questions are in: `original`, or `trained`, see `fvs_ros.patrol.phrasings`.
        captions: number of enumerations of all objects seen, in random order, learnt at each moment. Of the words for
            an object's colour, kind and room, all but the first follow from the previous ones and the memory, so
            that every word teaches to look something up.
    """

    episodes: int
    lengths: tuple[int, ...]
    day_lengths: tuple[int, ...] = ()
    recalled_lengths: tuple[int, ...] = ()
    first_seed: int = 0
    rooms: int = PatrolConfig.rooms
    views: int = PatrolConfig.views
    drive: bool = PatrolConfig.drive
    dwell_s: tuple[int, ...] = PatrolConfig.dwell_s
    moments: int = 4
    questions: int = 16
    families: tuple[str, ...] = ()
    captions: int = 0
    wording: Literal["original", "trained"] = "original"

    def __post_init__(self) -> None:
        _positive(self, "episodes", "moments")
        _not_negative(self, "questions", "captions", "first_seed")
        if self.questions + self.captions == 0:
            raise ValueError("questions and captions are both 0; one must be above 0")
        lengths = (*self.lengths, *self.day_lengths, *self.recalled_lengths)
        if not lengths or min(lengths) < 1:
            raise ValueError(f"lengths are {list(lengths)}; give one or more, of at least 1 grid step")
        if self.recalled_lengths and not self.questions:
            raise ValueError("recalled_lengths goes with questions, which recall; set questions above 0")
        if len(self.dwell_s) != 2:
            raise ValueError(f"dwell_s is {list(self.dwell_s)}; it must hold the shortest and the longest stay")


@dataclass(frozen=True)
class StageConfig:
    """One part of a run: its data, its length, and what is trained.

    Attributes:
        name: of its folder.
        videos, patrol: exactly one of the two.
        objective: `answers` to questions, or `token_naming`: each visual token names what it shows, see
            `fvs_ros.training.objectives.token_naming`; that needs a patrol and a trained tower; or `recall`: the head
            that finds the segments a question is about, see `fvs_ros.model.recall`, and nothing else.
        tower: `frozen` or `trained`; the merger is trained in both.
        embeddings: `frozen` keeps the merger and the words' embeddings as token naming has left them. Trained at a
            full learning rate, a language model that cannot read yet undoes it: 95 percent of the visual tokens of
            objects named the right kind before, 45 percent after 1,000 steps. `words` trains the words' embeddings
            alone: for new words in a model that can read.
        epochs: passes over the data.
        steps: optimiser steps, in place of `epochs`.
        batch: episodes on one device at a time.
        accumulation: batches of one optimiser step.
        rescale_embeddings: at the end of the stage the words' embeddings grow by this factor, while the merger's
            output and the output's norm shrink by it. What visual tokens name stays the same. Token naming leaves
            them a hundred times as long as words, so that layers trained on both would hardly see the words.
        depth_expansion: layers that the language model grows to before the stage, see `training.depth_expansion`.
        clock_code: length of the memory's code of the time of day, see `FlashMemoryConfig`; None leaves it as it is.
        memory_probe: weight of what the memory's tokens should know, see `objectives.memory_probe`; only for patrols.
        proof_attention: weight of drawing attention to proofs, see `objectives.proof_attention`; only for patrols.
        method, schedule, warmup, learning_rate: in place of the run's.
    """

    name: str
    videos: VideoData | None = None
    patrol: PatrolData | None = None
    objective: Objective = "answers"
    tower: Training = "frozen"
    embeddings: EmbeddingTraining = "trained"
    epochs: float = 1.0
    steps: int | None = None
    batch: int = 1
    accumulation: int = 1
    rescale_embeddings: float = 1.0
    depth_expansion: int | None = None
    clock_code: float | None = None
    memory_probe: float = 0.0
    proof_attention: float = 0.0
    method: Method | None = None
    schedule: Schedule | None = None
    warmup: float | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name or self.name.startswith("."):
            raise ValueError(f"name is {self.name!r}; it must be the name of a folder")
        if (self.videos is None) == (self.patrol is None):
            raise ValueError("give one of videos and patrol, not both and not neither")
        self._check_objective()
        _fraction(self, "warmup")
        _finite(self, "memory_probe", "proof_attention", "clock_code")
        for name in ("memory_probe", "proof_attention"):
            if getattr(self, name) and (self.patrol is None or self.objective != "answers"):
                raise ValueError(f"{name} goes with answers about patrols; drop it, or give patrol and no objective")
        _positive(
            self, "epochs", "steps", "batch", "accumulation", "rescale_embeddings", "depth_expansion", "learning_rate"
        )

    def _check_objective(self) -> None:
        patrol = self.patrol
        if self.objective == "token_naming" and (patrol is None or self.tower == "frozen" or patrol.recalled_lengths):
            raise ValueError(
                "objective is token_naming, of whole patrols; give patrol and tower: trained, and no recalled_lengths"
            )
        frozen = self.tower == "frozen" and self.rescale_embeddings == 1
        if self.objective == "recall" and (patrol is None or not patrol.questions or not frozen):
            raise ValueError(
                "objective is recall; give patrol, with questions, and neither tower: trained nor rescale_embeddings"
            )


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
        _positive(self, "disk_gb")
        _not_negative(self, "ram_mb")


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
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    attention: Literal["sdpa", "flash_attention_2", "eager"] = "sdpa"
    max_tokens: int = 14_000
    gradient_checkpointing: bool = False
    deepspeed: str | None = None
    workers: int = 1
    encode_in_workers: bool = False
    log_steps: int = 10
    save_steps: int = 100
    keep: int = 2

    def __post_init__(self) -> None:
        _positive(self, "max_tokens", "log_steps", "save_steps", "keep")
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names) or "final" in names:
            raise ValueError(f"stages are named {names}; give at least one, each a name of its own other than final")
        _not_negative(self, "workers")
        if self.lora is not None and any(stage.tower == "trained" for stage in self.stages):
            raise ValueError("a stage has tower: trained, but with lora the ViT stays as it is; drop one of the two")
        methods = {self.optimiser.method, *(stage.method for stage in self.stages)}
        if self.deepspeed is not None and "muon" in methods:
            raise ValueError("method is muon, which needs whole matrices, but deepspeed splits them; drop one")
        if self.attention == "flash_attention_2" and any(stage.patrol is not None for stage in self.stages):
            raise ValueError("attention is flash_attention_2, which cannot take patrols; use sdpa")
