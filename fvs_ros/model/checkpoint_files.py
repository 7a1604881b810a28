"""The files of a checkpoint: where they are, and whether they are what their names say, before any weight is read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import safe_open

from fvs_ros.files import read_bounded
from fvs_ros.model.checkpoint_errors import CheckpointError
from fvs_ros.model.hub import Progress, cached_snapshot, download
from fvs_ros.model.names import EMBEDDED, EMBEDDED_FOLDER, TINY, is_embedded

CONFIG, WEIGHTS, INDEX, ADAPTER = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_config.json",
)
TOKENIZER, VOCABULARY = "tokenizer.json", ("vocab.json", "merges.txt")
MOST_TEXT_BYTES = 2**27
"""Of one JSON or text file. The tokenizer.json of Qwen2-VL has 7 MB, its index 0.1 MB."""
QUANTIZED_SUFFIXES = (
    ".qweight",
    ".qzeros",
    ".g_idx",
    ".SCB",
    ".absmax",
    ".quant_map",
    ".weight_packed",
    ".weight_scale",
    ".weight_scale_inv",
)
FULL_PRECISION = ("F64", "F32", "F16", "BF16")
FULL_PRECISION_HINT = "load the full-precision checkpoint that it was made from, such as Qwen/Qwen2-VL-7B-Instruct"
# What files turn out to be that were saved under another file's name.
_DISGUISES = (
    (b"version https://git-lfs", "a pointer of git-LFS instead of the file itself: run `git lfs pull` in its folder"),
    (b"<", "a page of HTML or XML, as a failed download leaves it: download it again"),
    (b"PK\x03\x04", "a pickle of PyTorch under another name: pickles are never read, so convert it to safetensors"),
    (b"\x80\x02\x8a", "a pickle under another name: pickles are never read, so convert it to safetensors"),
    (b"\x80\x04\x95", "a pickle under another name: pickles are never read, so convert it to safetensors"),
    (b"GGUF", "a GGUF file: " + FULL_PRECISION_HINT),
)


@dataclass(frozen=True)
class TensorHeader:
    """What a weights file says of a tensor without its values: `dtype` as safetensors spells it, such as BF16."""

    dtype: str
    shape: tuple[int, ...]


def checkpoint_folder(name: str, on_progress: Progress) -> Path:
    """The folder that holds a checkpoint's files.

    Args:
        name: a folder, a name on the hub (OWNER/MODEL) or `embedded`. Of a name on the hub the local cache is taken as
            it is where it is whole, without asking the hub; else what it lacks is downloaded.
        on_progress: called while something is downloaded.

    Raises:
        HubError: the hub does not give what the cache lacks; another try may succeed.
        CheckpointError: there is no such folder or model.
    """
    if is_embedded(name):
        return EMBEDDED_FOLDER
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        return Path(path)
    if os.path.exists(path):
        raise CheckpointError(f"{name} is a file; set model to the folder that holds the checkpoint")
    owner, slash, model = name.partition("/")
    if owner in ("", ".", "..") or owner.startswith("~") or "/" in model:
        raise CheckpointError(f"{name} is no folder here; set model to a folder, or to a name on the hub (OWNER/MODEL)")
    try:
        validate_repo_id(name)
    except HFValidationError:
        slash = ""
    if not slash:
        raise CheckpointError(
            f"{name!r} is no folder here and no name on the hub (OWNER/MODEL); {EMBEDDED} and {TINY} need neither"
        )
    return _hub_folder(name, on_progress)


def _hub_folder(name: str, on_progress: Progress) -> Path:
    folder = cached_snapshot(name)
    missing = [CONFIG, TOKENIZER, "the weights"] if folder is None else missing_files(folder)
    if missing:
        some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        download(name, some, on_progress)
        folder = cached_snapshot(name)
    if folder is None:
        raise CheckpointError(f"{name} has no {CONFIG}; name a Qwen2-VL or Flash-VStream checkpoint")
    return folder


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks of what every checkpoint has."""
    missing = [] if (folder / CONFIG).is_file() else [CONFIG]
    if not (folder / TOKENIZER).is_file() and not all((folder / file).is_file() for file in VOCABULARY):
        missing.append(TOKENIZER)
    shards = _shards(folder)
    if shards is None:
        return missing if (folder / WEIGHTS).is_file() else [*missing, f"{WEIGHTS} or {INDEX}"]
    return missing + [shard for shard in shards if not (folder / shard).is_file()]


def read_json(folder: Path, file: str, default: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A JSON object of the checkpoint; `default` where it has no such file.

    Raises:
        CheckpointError: it is missing without a default, or holds something else.
    """
    path = folder / file
    if default is not None and not os.path.lexists(path):
        return dict(default)
    try:
        values = json.loads(read_bounded(path, MOST_TEXT_BYTES))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} has no {file}; name a Qwen2-VL or Flash-VStream checkpoint") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is {_disguise(path) or f'not valid JSON: {error}'}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}; it must hold an object")
    return values


def check_text_files(folder: Path) -> None:
    """Refuses what transformers would read whole, or wait for, whatever it is.

    Raises:
        CheckpointError: a JSON or text file is larger than `MOST_TEXT_BYTES`, or is a pipe or a device.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".txt", ".jinja") or path.is_dir() or not path.exists():
            continue
        if not path.is_file():
            raise CheckpointError(f"{path} is a pipe or a device; a file is needed")
        if (size := path.stat().st_size) > MOST_TEXT_BYTES:
            raise CheckpointError(f"{path} is {size} bytes long; at most {MOST_TEXT_BYTES} make sense")


def read_weight_headers(folder: Path, quantised_parts: tuple[str, ...] = ()) -> dict[str, TensorHeader]:
    """Every tensor of a checkpoint's safetensors, by its name, after each file was found to be whole.

    Args:
        folder: of the checkpoint.
        quantised_parts: how names of tensors may end that are no plain weights, as its configuration says.

    Raises:
        CheckpointError: a file is missing, cut or something else than its name says, or the weights are not plain
            floating-point numbers.
    """
    if (folder / ADAPTER).exists():
        raise CheckpointError(
            f"{folder} holds {ADAPTER}: an adapter (LoRA) that its weights may or may not contain already. Merge it "
            "with peft (PeftModel.from_pretrained(BASE, FOLDER).merge_and_unload().save_pretrained(NEW_FOLDER)) and "
            f"name the new folder; if it is merged already, remove {ADAPTER}"
        )
    shards = _shards(folder) or [WEIGHTS]
    headers: dict[str, TensorHeader] = {}
    for shard in shards:
        path = folder / shard
        if not path.is_file():
            raise CheckpointError(_without(folder, shard, len(shards)))
        headers.update(_headers(path))
    for name, header in headers.items():
        if name.endswith(quantised_parts):
            continue
        if name.endswith(QUANTIZED_SUFFIXES) or header.dtype not in FULL_PRECISION:
            raise CheckpointError(
                f"{folder} holds quantised weights, such as {name} ({header.dtype}), which this library does not "
                f"compute with; {FULL_PRECISION_HINT}"
            )
    return headers


def weight_paths(folder: Path) -> dict[str, Path]:
    """The file of each tensor, by its name, of a checkpoint whose files are whole."""
    paths: dict[str, Path] = {}
    for shard in _shards(folder) or [WEIGHTS]:
        with safe_open(folder / shard, framework="pt") as file:
            paths |= dict.fromkeys(file.keys(), folder / shard)
    return paths


def stored_bytes(folder: Path) -> int:
    """Bytes of all files of weights, which are there."""
    return sum((folder / shard).stat().st_size for shard in _shards(folder) or [WEIGHTS])


def _shards(folder: Path) -> list[str] | None:
    """The files that the index names; None where there is no index."""
    if not os.path.lexists(folder / INDEX):
        return None
    shards = read_json(folder, INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{folder / INDEX} has no weight_map; download it again")
    names = set(shards.values())
    if strange := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise CheckpointError(f"{folder / INDEX} names {strange[0]!r}, which is no file beside it; download it again")
    return sorted(names)


def _without(folder: Path, shard: str, count: int) -> str:
    """What to say of a folder that lacks a weights file."""
    if count > 1:
        return f"{folder} has no {shard}, one of the {count} files of weights that {INDEX} names; download it again"
    files = sorted(path.name for path in folder.iterdir())
    if pickles := [file for file in files if file.endswith((".bin", ".pt", ".pth"))]:
        return (
            f"{folder} has its weights as pickles ({pickles[0]}) and none as safetensors. Pickles are never read, "
            "since they can run code; convert them with save_pretrained of transformers"
        )
    if parts := [file for file in files if file.endswith(".safetensors")]:
        return f"{folder} has {parts[0]} but neither {WEIGHTS} nor {INDEX}; download the whole checkpoint"
    if others := [file for file in files if file.endswith((".gguf", ".onnx", ".msgpack", ".h5"))]:
        return f"{folder} has its weights as {others[0]}; only safetensors are read, so {FULL_PRECISION_HINT}"
    return f"{folder} has no weights ({shard}); download the whole checkpoint"


def _headers(path: Path) -> dict[str, TensorHeader]:
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            return {name: TensorHeader(part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except Exception as error:
        # safetensors raises an exception of its own, whose only base is Exception, or OSError.
        raise CheckpointError(f"{path} is {_disguise(path) or _damage(path, error)}") from error


def _disguise(path: Path) -> str:
    """What a file is instead of what its name says; empty where that cannot be told."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "empty: download it again"
    return next((words for start, words in _DISGUISES if head.lstrip().startswith(start)), "")


def _damage(path: Path, error: Exception) -> str:
    """What is wrong with a safetensors file that its own header can tell."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, size)))
            whole = 8 + length + max(part["data_offsets"][1] for part in header.values() if "data_offsets" in part)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return f"damaged, {size} bytes long ({error}): download it again"
    what = "cut" if size < whole else "too long"
    return f"{what}: it has {size} bytes, and its header says {whole}: download it again"
