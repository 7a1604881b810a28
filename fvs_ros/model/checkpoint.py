"""Checkpoints: the published Flash-VStream layout and plain Qwen2-VL, from a folder or a hub name.

Only safetensors and JSON are read, and no code that comes with a checkpoint is run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    PreTrainedTokenizerBase,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.utils import cached_file

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.names import EMBEDDED_FOLDER, is_embedded
from fvs_ros.model.preprocess import PixelConfig

MODEL_TYPES = ("flash_vstream_qwen2_vl", "qwen2_vl")
PUBLISHED_MODEL_TYPE = MODEL_TYPES[0]


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, and why."""


@dataclass(frozen=True)
class ModelConfig:
    """A checkpoint's `config.json`.

    Attributes:
        network: the Qwen2-VL part, as transformers reads it.
        memory: the Flash Memory's sizes.
    """

    network: Qwen2VLConfig
    memory: FlashMemoryConfig

    @classmethod
    def from_json(cls, values: dict) -> ModelConfig:
        """Reads `config.json` in the published layout or that of Qwen2-VL.

        Raises:
            CheckpointError: another kind of model, or settings that are not supported.
        """
        model_type = values.get("model_type")
        if model_type not in MODEL_TYPES:
            raise CheckpointError(
                f"config.json has model_type {model_type!r}; supported are {' and '.join(MODEL_TYPES)}"
            )
        values = {key: value for key, value in values.items() if key not in ("model_type", "architectures", "auto_map")}
        vision = dict(values.get("vision_config") or {})
        published = vision.pop("flash_memory_config", None)
        vision["model_type"] = "qwen2_vl"
        values["vision_config"] = vision
        try:
            return cls(Qwen2VLConfig.from_dict(values), FlashMemoryConfig.from_published(published))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"config.json cannot be used: {error}") from error

    def to_json(self) -> dict:
        """`config.json` in the published layout of transformers 4: the language model's settings at the top."""
        values = self.network.to_dict()
        text = values.pop("text_config")
        rope = text.pop("rope_parameters")
        return {
            **text,
            **values,
            "rope_theta": rope["rope_theta"],
            "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
            "vision_config": {**values["vision_config"], "flash_memory_config": self.memory.to_published()},
            "model_type": PUBLISHED_MODEL_TYPE,
            "architectures": ["FlashVStreamQwen2VLModel"],
        }


@dataclass(frozen=True)
class Checkpoint:
    """All that a checkpoint holds."""

    config: ModelConfig
    network: Qwen2VLForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    pixels: PixelConfig
    end_tokens: tuple[int, ...]


def load_checkpoint(name: str, *, device: torch.device, dtype: torch.dtype, attention: str = "sdpa") -> Checkpoint:
    """Loads a checkpoint from a folder, by its name from the hub, or the one that ships with the package.

    Raises:
        CheckpointError: a file is missing or broken, or the weights do not fit the configuration.
    """
    folder = EMBEDDED_FOLDER if is_embedded(name) else Path(name).expanduser()
    name = str(folder) if folder.is_dir() else name
    config = ModelConfig.from_json(_read_json(name, "config.json"))
    pixels = PixelConfig.from_preprocessor(_read_json(name, "preprocessor_config.json", default={}))
    generation = _read_json(name, "generation_config.json", default={})
    network = load_network(config, name=name, device=device, dtype=dtype, attention=attention)
    tokenizer = _load_tokenizer(name)
    end = generation.get("eos_token_id", config.network.text_config.eos_token_id)
    end_tokens = {*(end if isinstance(end, list) else [end]), tokenizer.convert_tokens_to_ids("<|im_end|>")}
    return Checkpoint(config, network, tokenizer, pixels, tuple(sorted(end_tokens - {None})))


def _load_tokenizer(name: str) -> Qwen2Tokenizer:
    try:
        tokenizer = Qwen2Tokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the tokenizer of {name} cannot be loaded: {error}") from error
    # Where its files are missing, transformers makes an empty one.
    if "<|im_end|>" not in tokenizer.get_vocab():
        raise CheckpointError(f"the tokenizer of {name} has no <|im_end|>; it needs the tokenizer.json of a Qwen2-VL")
    return tokenizer


def load_network(
    config: ModelConfig,
    *,
    name: str | None = None,
    weights: dict[str, torch.Tensor] | None = None,
    device: torch.device,
    dtype: torch.dtype,
    attention: str = "sdpa",
) -> Qwen2VLForConditionalGeneration:
    """The network in evaluation mode, with weights from a folder or hub name, or given under the published names.

    Raises:
        CheckpointError: weights are missing, superfluous or of another shape than the configuration says.
    """
    try:
        network, report = Qwen2VLForConditionalGeneration.from_pretrained(
            name,
            config=config.network,
            state_dict=weights,
            use_safetensors=None if weights is not None else True,
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the weights of {name or 'the checkpoint'} cannot be loaded: {error}") from error
    for problem, keys in (
        ("lacks", report["missing_keys"]),
        ("has unknown", report["unexpected_keys"]),
        ("has misshapen", [key[0] for key in report["mismatched_keys"]]),
    ):
        if keys:
            some = ", ".join(sorted(keys)[:3])
            raise CheckpointError(f"{name or 'the checkpoint'} {problem} {len(keys)} weights, such as {some}")
    return network.to(device).eval()


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes a checkpoint in the published layout, so that `load_checkpoint` and the published code read it."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.network.save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)
    end_tokens = list(checkpoint.end_tokens)
    for file, values in (
        ("config.json", checkpoint.config.to_json()),
        ("preprocessor_config.json", checkpoint.pixels.to_preprocessor()),
        ("generation_config.json", {"do_sample": False, "eos_token_id": end_tokens}),
    ):
        (folder / file).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def _read_json(name: str, file: str, default: dict | None = None) -> dict:
    """A JSON file of the checkpoint; `default` where it has none."""
    try:
        path = cached_file(name, file, _raise_exceptions_for_missing_entries=default is None)
    except OSError as error:
        raise CheckpointError(f"{name} is no folder here, and the hub does not give its {file}: {error}") from error
    if path is None:
        if default is None:
            raise CheckpointError(f"{name} has no {file}; name a Qwen2-VL or Flash-VStream checkpoint")
        return default
    try:
        values = json.loads(Path(path).read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}; it must hold an object")
    return values
