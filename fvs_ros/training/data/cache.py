"""A bounded cache of tensors on disk: a folder of safetensors files, of which the least recently used make room.

A process enforces the bound each time it has written a hundredth of it.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fvs_ros.hashing import config_hash
from fvs_ros.training.config import CacheConfig

Tensors = dict[str, Tensor]
SUFFIX = ".safetensors"


def key_of(*parts: object) -> str:
    """A file name for whatever the tensors depend on, as far as JSON can hold it."""
    return config_hash(parts, digits=64)


class TensorCache:
    """Tensors by key. Several processes may use one folder; each also keeps some of them in memory.

    A file that is cut off or has been deleted counts as absent.
    """

    def __init__(self, config: CacheConfig) -> None:
        self._folder = None if config.folder is None else Path(config.folder).expanduser()
        self._disk_bytes = round(config.disk_gb * 1e9)
        self._ram_bytes = config.ram_mb * 1_000_000
        self._ram: OrderedDict[str, Tensors] = OrderedDict()
        self._ram_used = 0
        # Looking through a folder of 40,000 files takes 0.1 s, too long to be done for each new one.
        self._unchecked = 0
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> Tensors | None:
        """The tensors of a key, on the CPU, not to be written to; None if they are not here."""
        if key in self._ram:
            self._ram.move_to_end(key)
            return self._ram[key]
        if self._folder is None:
            return None
        file = self._folder / (key + SUFFIX)
        try:
            tensors = load_file(file)
            os.utime(file)
        except (OSError, SafetensorError):
            return None
        self._remember(key, tensors)
        return tensors

    def put(self, key: str, tensors: Tensors) -> None:
        """Keeps contiguous CPU tensors."""
        self._remember(key, tensors)
        if self._folder is None:
            return
        partial = self._folder / f".{key}.{os.getpid()}"
        save_file(tensors, partial)
        partial.rename(self._folder / (key + SUFFIX))
        self._unchecked += _bytes(tensors)
        if self._unchecked > self._disk_bytes / 100:
            self._make_room(self._folder)
            self._unchecked = 0

    def _remember(self, key: str, tensors: Tensors) -> None:
        size = _bytes(tensors)
        if key in self._ram or size > self._ram_bytes:
            return
        self._ram[key] = tensors
        self._ram_used += size
        while self._ram_used > self._ram_bytes:
            _, dropped = self._ram.popitem(last=False)
            self._ram_used -= _bytes(dropped)

    def _make_room(self, folder: Path) -> None:
        files = []
        for file in folder.glob("*" + SUFFIX):
            with contextlib.suppress(FileNotFoundError):
                stat = file.stat()
                files.append((stat.st_mtime_ns, stat.st_size, file))
        excess = sum(size for _, size, _ in files) - self._disk_bytes
        for _, size, file in sorted(files):
            if excess <= 0:
                return
            file.unlink(missing_ok=True)
            excess -= size


def _bytes(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
