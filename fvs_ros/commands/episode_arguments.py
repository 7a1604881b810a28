"""Arguments of commands that keep what a stream shows in an episode store."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fvs_ros.model.flash_vstream import FlashVStream
    from fvs_ros.stream.recording import Episodes

_RESUME = ("auto", "always", "never")


def add_episode_arguments(parser: argparse.ArgumentParser, resume: str, about: str) -> None:
    """Declares the store, its size, and whether the stream goes on in what it holds.

    Args:
        parser: of the command.
        resume: the default.
        about: what that means for this command.
    """
    parser.add_argument(
        "--memory-dir",
        metavar="DIR",
        type=Path,
        help="keep what is seen in an episode store in this folder, made where there is none (see fvs memory)",
    )
    parser.add_argument(
        "--memory-bytes", metavar="N", type=int, help="most bytes of the store (its own limit, 256 MiB for a new one)"
    )
    parser.add_argument("--resume", choices=_RESUME, default=resume, help=f"{about} (%(default)s)")


@contextmanager
def opened_episodes(
    arguments: argparse.Namespace,
    model: FlashVStream,
    camera: str,
    silence_s: float = math.inf,
    *,
    in_ram: bool = False,
    read_only: bool = False,
) -> Iterator[Episodes | None]:
    """The episode store that the arguments name, open; None without one.

    Args:
        arguments: of `add_episode_arguments`.
        model: that makes the features.
        camera: what the segments are called by.
        silence_s: see `Episodes`.
        in_ram: where the arguments name none, keep one in RAM.
        read_only: write nothing; the store must exist.

    Raises:
        StoreError: the store is held by another process, foreign, newer or damaged.
        ValueError: the limit is too small.
        OSError: the folder cannot be made or read.
    """
    folder = arguments.memory_dir
    if folder is None and not in_ram:
        yield None
        return
    from fvs_ros.episodic.information import Opener
    from fvs_ros.episodic.store import EpisodeStore, Resume
    from fvs_ros.stream.recording import Episodes

    resume = Resume(arguments.resume)
    opener = Opener(camera, fingerprint=model.fingerprint(), map_id="")
    limit_bytes = arguments.memory_bytes
    with EpisodeStore.open(folder, limit_bytes, opener=opener, resume=resume, read_only=read_only) as store:
        yield Episodes(store, camera, resume=resume, silence_s=silence_s)
