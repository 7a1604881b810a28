"""The Flash Memory as a file beside the episode store: written whole or not at all, believed only if all of it fits.

Safetensors, whose header holds as JSON what the memory belongs to, and a hash of all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fvs_ros.episodic.folder import PARTIAL, delete, sync_folder
from fvs_ros.errors import ReadableError
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.sources.frame import Pose
from fvs_ros.stream.episode_memory import MemoryState
from fvs_ros.stream.origins import StepOrigin

MOST_BYTES = 2**29
"""Largest memory that is saved: 64 MB with the embedded model. One of a 7B, 2 to 3.5 GB, is rebuilt from segments."""

FORMAT = 1
_DESCRIPTION, _HASH = "fvs_memory", "fvs_hash"


class SavedMemoryError(ReadableError):
    """A saved memory that is damaged, or of something else. The memory is rebuilt without it."""


@dataclass(frozen=True)
class Description:
    """What a saved memory belongs to.

    Attributes:
        fingerprint: of the model.
        episode: the store's number.
        map_id: of the map in which the poses of its origins hold.
        last_segment: id of the newest segment that was stored then.
        open_steps: its newest steps that were in no stored segment yet; the next segments begin with them.
    """

    fingerprint: str
    episode: int
    map_id: str
    last_segment: int
    open_steps: int


def write(path: Path, state: MemoryState, description: Description) -> int:
    """Writes a memory in the place of the one before, and returns its bytes. Durable when it returns.

    Raises:
        OSError: the disk does not take it. The one before is still there.
    """
    if state.ready is not None:
        state.ready.synchronize()
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state.tensors.items()}
    header = {
        "format": FORMAT,
        **asdict(description),
        "grid": [state.grid.height, state.grid.width, state.grid.patch],
        "stamps_ns": [state.start_ns, state.end_ns],
        "frame_id": state.frame_id,
        "origins": [[step, one.frame_id, *_numbers(one.pose)] for step, one in state.origins.items()],
    }
    # A folder: safetensors writes a temporary file of its own beside the one it is told, and a kill leaves that behind.
    partial = path.with_name(path.name + PARTIAL)
    try:
        delete(partial)
        partial.mkdir()
        written = partial / path.name
        save_file(tensors, written, metadata={_DESCRIPTION: json.dumps(header), _HASH: _hash(header, tensors)})
        with written.open("rb") as file:
            os.fsync(file.fileno())
        written.replace(path)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync_folder(path.parent)
    return path.stat().st_size


def read(path: Path) -> tuple[MemoryState, Description]:
    """The memory in a file, on the host.

    Raises:
        SavedMemoryError: it cannot be read, or is not as it was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            header = json.loads(metadata[_DESCRIPTION])
            if header["format"] != FORMAT:
                raise SavedMemoryError(f"{path} has format {header['format']}, and this version reads {FORMAT}")
            if path.stat().st_size > 2 * MOST_BYTES:
                raise SavedMemoryError(f"{path} has {path.stat().st_size} bytes, more than any saved memory")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if _hash(header, tensors) != metadata[_HASH]:
            raise SavedMemoryError(f"{path} is damaged: its hash is wrong")
        names = ("fingerprint", "episode", "map_id", "last_segment", "open_steps")
        return _state(header, tensors), Description(**{name: header[name] for name in names})
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise SavedMemoryError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


def _state(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MemoryState:
    grid = PatchGrid(*map(int, header["grid"]))
    start_ns, end_ns = map(int, header["stamps_ns"])
    origins = {int(step): StepOrigin(str(frame_id), _pose(numbers)) for step, frame_id, *numbers in header["origins"]}
    return MemoryState(grid, tensors, origins, start_ns, end_ns, str(header["frame_id"]))


def _numbers(pose: Pose | None) -> list[object]:
    return [] if pose is None else [pose.frame_id, *map(float, (*pose.position, *pose.orientation))]


def _pose(numbers: list[Any]) -> Pose | None:
    if not numbers:
        return None
    frame_id, x, y, z, qx, qy, qz, qw = numbers
    return Pose(str(frame_id), (float(x), float(y), float(z)), (float(qx), float(qy), float(qz), float(qw)))


def _hash(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
