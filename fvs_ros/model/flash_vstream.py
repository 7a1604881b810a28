"""Flash-VStream: frames to features, features to memory, memory and question to answer."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fvs_ros.memory.clustered_steps import micro_cluster_count
from fvs_ros.memory.config import AUTO, KEEP_SLOTS, FlashMemoryConfig
from fvs_ros.memory.slot_reduction import prepare
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.model.backbone import Backbone
from fvs_ros.model.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from fvs_ros.model.conditions import ConditionCheck, ConditionRules, PlacedCheck
from fvs_ros.model.confidence import AnswerRules
from fvs_ros.model.frame_encoder import FrameEncoder
from fvs_ros.model.hub import Progress
from fvs_ros.model.json_schema import JsonConstraint, JsonSchemas
from fvs_ros.model.names import is_tiny
from fvs_ros.model.prefix_cache import PrefixCache
from fvs_ros.model.preprocess import PixelConfig, frame_grid
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.model.quantization import QUANTIZATIONS, Quantization
from fvs_ros.model.quantized_weights import parts_of, quantize_layers
from fvs_ros.model.recall import Recaller
from fvs_ros.model.reference import ReferenceDecoder
from fvs_ros.model.relevance import RelevanceWeights
from fvs_ros.model.text_stream import TextStream
from fvs_ros.model.tiny import tiny_checkpoint

# Of each weight; training changes them all, so that a few tell two models apart.
FINGERPRINT_VALUES = 64
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def fingerprint(weights: Iterable[tuple[str, Tensor]], values: int | None = None) -> str:
    """A short hash of weights.

    Args:
        weights: with their names, in any order.
        values: how many of each count, with its name and shape; None for all.
    """
    hashed = hashlib.sha256()
    for name, weight in sorted(weights, key=lambda named: named[0]):
        counted = weight.detach().flatten()[:values].float().cpu().numpy()
        hashed.update(f"{name} {tuple(weight.shape)} ".encode() + counted.tobytes())
    return hashed.hexdigest()[:16]


class FlashVStream:
    """A Flash-VStream model, as the streaming engine uses it.

    One thread may call `encode_steps` while another uses a prefix cache or `answer`. Neither is thread-safe by itself.

    Attributes:
        name: what it was loaded from.
        memory_config: sizes of its Flash Memory.
        relevance: trained weights of what an answer rests on; None takes the rule that needs none.
        answers: what its confidence is worth, and which of its answers say "not seen".
        conditions: how it is asked whether something is true now.
        tokenizer: of questions and answers.
        device: where the weights, and so the memory, are.
        dtype: of the weights and of the features in memory.
        recaller: finds segments for questions; None where the checkpoint has no head for it.
        prompt_style: in which it is asked.
    """

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self.name = name
        self.memory_config: FlashMemoryConfig = checkpoint.config.memory
        self.relevance: RelevanceWeights | None = checkpoint.config.relevance
        self.answers: AnswerRules = checkpoint.config.answers
        self.conditions: ConditionRules = checkpoint.config.conditions
        self._pixels = checkpoint.pixels
        self.tokenizer = checkpoint.tokenizer
        self.device, self.dtype = checkpoint.network.device, checkpoint.network.dtype
        self._network = checkpoint.network
        self._backbone = checkpoint.backbone
        self._encoder = FrameEncoder(self._backbone.tower, self._pixels)
        self.prompt_style = self._backbone.prompt_style
        self._prompts = PromptBuilder(self.tokenizer, self.prompt_style)
        self._end_tokens = checkpoint.end_tokens
        self._schemas = JsonSchemas(self.tokenizer, self._backbone.text_config.vocab_size, self._end_tokens)
        head = checkpoint.recall
        self.recaller = None if head is None else Recaller(self._backbone, self._prompts, head)
        self._reference = ReferenceDecoder(self._backbone, self.memory_config, self._end_tokens, self._prompts.words)

    @classmethod
    def load(
        cls,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        temporal_method: str = AUTO,
        spatial_method: str = AUTO,
        csm_slots: int = KEEP_SLOTS,
        dam_slots: int = KEEP_SLOTS,
        window_slots: int = KEEP_SLOTS,
        deepstack: bool = True,
        quantization: str = Quantization.NONE.value,
        on_progress: Progress = lambda line: None,
    ) -> FlashVStream:
        """Loads a checkpoint from a folder, by its name from the hub, or the one that ships with the package.

        Args:
            model: a folder, a name such as `zhang9302002/Flash-VStream-Qwen-7b` or `Qwen/Qwen2-VL-7B-Instruct`,
                `embedded` for the small model that ships with the package, or `tiny` for random weights, whose answers
                are noise.
            device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`.
            dtype: `auto` (bfloat16 on a GPU that has it, float32 otherwise), `float32`, `bfloat16` or `float16`.
            temporal_method: of the memory, see `FlashMemoryConfig`; `auto` takes the checkpoint's.
            spatial_method: likewise.
            csm_slots: size of the memory, see `FlashMemoryConfig`; -1 takes the checkpoint's.
            dam_slots: likewise.
            window_slots: likewise.
            deepstack: of Qwen3-VL; False does without it, so that features take a quarter of the memory and the
                language model sees less detail. All others have none that could be dropped.
            quantization: of the language model's linear layers: `none`, `int8` or `int4`, see `Quantization`.
            on_progress: called with a line on what is being done, about once a second while something is downloaded.

        Raises:
            CheckpointError: the checkpoint, the device, the dtype, a method, a size or the quantization cannot be used.
            HubError: the hub does not give what the local cache lacks; another try may succeed.
        """
        target = pick_device(device)
        precision = pick_dtype(dtype, target)
        checkpoint = _checkpoint(model, target, precision, pick_quantization(quantization), on_progress)
        try:
            sized = checkpoint.config.memory.with_slots(csm_slots, dam_slots, window_slots)
            memory = sized.with_methods(temporal_method, spatial_method)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        if not deepstack:
            _drop_deepstack(checkpoint.backbone)
        if memory.clusters:
            # Now, not when the first frame has come.
            prepare(target, micro_cluster_count(memory), memory.csm_slots)
        loaded = cls(replace(checkpoint, config=replace(checkpoint.config, memory=memory)), model)
        loaded._schemas.prepare()
        return loaded

    def fingerprint(self) -> str:
        """A short hash of the weights, those for recall too: of the name, the shape and the first 64 values of each.

        And of how pixels are normalised, where that is not as published.
        """
        weights = {
            f"{name}.{part}" if part else name: value
            for name, weight in self._network.state_dict().items()
            for part, value in parts_of(weight).items()
        }
        if self.recaller is not None:
            weights |= {f"recall.{name}": value for name, value in self.recaller.head.state_dict().items()}
        published = PixelConfig()
        if (self._pixels.mean, self._pixels.std) != (published.mean, published.std):
            weights["pixels"] = torch.tensor([self._pixels.mean, self._pixels.std])
        return fingerprint(weights.items(), FINGERPRINT_VALUES)

    def frame_grid(self, height: int, width: int, min_pixels: int, max_pixels: int) -> PatchGrid:
        """The patch grid that frames of `height` x `width` pixels are resized to, its area within the bounds."""
        return frame_grid(height, width, min_pixels, max_pixels, self._pixels)

    def new_memory(self, grid: PatchGrid) -> StreamingFlashMemory:
        """An empty memory for steps of that grid."""
        width = self._backbone.tower.width
        return StreamingFlashMemory(self.memory_config, grid, width, device=self.device, dtype=self.dtype)

    @torch.no_grad()
    def encode_steps(self, frames: Sequence[np.ndarray], grid: PatchGrid) -> StepFeatures:
        """Features of n grid steps.

        Args:
            frames: 2n RGB frames, uint8 [height, width, 3], of any size; frames 2i and 2i + 1 make step i.
            grid: what they are resized to.
        """
        if len(frames) % 2 or not frames:
            raise ValueError(f"got {len(frames)} frames; a grid step is two frames, so give an even number of them")
        return self._encoder.encode(frames, grid)

    @torch.no_grad()
    def encode_pixels(self, frames: Tensor) -> StepFeatures:
        """Features of n grid steps from normalised frames [2n, 3, H, W] of a patch grid, on the model's device."""
        return self._backbone.tower.encode(frames)

    def new_prefix_cache(self) -> PrefixCache:
        """Prefills memories and answers several questions at once, with buffers of its own."""
        return PrefixCache(
            self._backbone,
            self.tokenizer,
            self._prompts,
            self.memory_config,
            self._end_tokens,
            self.relevance,
            self.answers,
        )

    def control_tokens_in(self, text: str) -> list[str]:
        """The control tokens, such as `<|im_end|>`, that a text spells out."""
        return self._prompts.control_tokens_in(text)

    def condition_check(self, text: str) -> ConditionCheck | PlacedCheck:
        """How to ask whether something is true now: a statement, or a question with its question mark."""
        return self.conditions.check(text)

    def json_constraint(self, schema: str) -> JsonConstraint:
        """Holds one answer to a JSON schema; any thread may call it.

        Raises:
            JsonSchemaError: no answer of this model can be held to it; the message says why, and what to do.
        """
        return self._schemas.constraint(schema)

    def answer(
        self,
        snapshot: MemorySnapshot,
        question: str,
        *,
        max_new_tokens: int,
        on_token: Callable[[str], None] = lambda piece: None,
        should_stop: Callable[[], bool] = lambda: False,
        answer_prefix: str = "",
        turns: Sequence[tuple[str, str]] = (),
    ) -> str:
        """The greedy answer to a question about a memory; shorter if `should_stop` turns true on the way.

        The reference path, through transformers and one question at a time; answers from the prefix cache equal it.

        Args:
            snapshot: the memory.
            question: user text; control tokens that it spells out are read letter by letter.
            max_new_tokens: the answer's longest length.
            on_token: called with each piece of text as it is decoded; the pieces joined are the answer.
            should_stop: asked before every token and between chunks of the prefill.
            answer_prefix: what the answer is made to begin with, `Best option: (` in the published evaluation; it is
                no part of the text that comes back.
            turns: earlier questions of the conversation with their answers.
        """
        prompt = self._prompts.build(question, answer_prefix, turns)
        prefix = self._reference.prefix(snapshot, prompt.head, should_stop)
        if prefix is None:
            return ""
        text = TextStream(self.tokenizer, on_token)
        with contextlib.closing(self._reference.generate(prefix, prompt.suffix, should_stop)) as tokens:
            for _, token in zip(range(max_new_tokens), tokens, strict=False):
                text.add(token)
        return text.finish()


def _drop_deepstack(backbone: Backbone) -> None:
    try:
        backbone.drop_deepstack()
    except ValueError as error:
        raise CheckpointError(f"deepstack is false, and {error}; leave it true") from error


def _checkpoint(
    model: str, device: torch.device, dtype: torch.dtype, quantization: Quantization, on_progress: Progress
) -> Checkpoint:
    """The checkpoint of that name, `tiny` too."""
    if not is_tiny(model):
        return load_checkpoint(
            model,
            device=device,
            dtype=dtype,
            attention=pick_attention(device, dtype),
            quantization=quantization,
            on_progress=on_progress,
        )
    tiny = tiny_checkpoint()
    config = replace(tiny.config, quantization=quantization)
    checkpoint = replace(tiny, config=config, network=tiny.network.to(device, dtype))
    quantize_layers(checkpoint.backbone, quantization)
    return checkpoint


def pick_device(device: str) -> torch.device:
    """The device of that name; `auto` is CUDA where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError as error:
        raise CheckpointError(f"device is {device!r}; it must be auto, cpu, cuda or cuda:N") from error
    if picked.type == "cuda" and (picked.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(f"device is {device!r}, but {torch.cuda.device_count()} CUDA devices are here; use cpu")
    return picked


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The dtype of that name; `auto` is bfloat16 on a GPU that computes with it, float32 otherwise."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype is {dtype!r}; it must be auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def pick_quantization(quantization: str) -> Quantization:
    """The quantization of that name."""
    try:
        return Quantization(quantization)
    except ValueError as error:
        raise CheckpointError(
            f"quantization is {quantization!r}; it must be {', '.join(QUANTIZATIONS[:-1])} or {QUANTIZATIONS[-1]}"
        ) from error


def pick_attention(device: torch.device, dtype: torch.dtype) -> str:
    """flash-attn where it is installed and the GPU (Ampere or newer) and dtype suit it, torch's SDPA otherwise."""
    if device.type != "cuda" or dtype == torch.float32 or importlib.util.find_spec("flash_attn") is None:
        return "sdpa"
    return "flash_attention_2" if torch.cuda.get_device_capability(device)[0] >= 8 else "sdpa"
