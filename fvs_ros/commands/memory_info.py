"""`fvs memory info`: what an episode store holds, episode by episode."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fvs_ros.episodic.information import EpisodeInformation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the store."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of the store (the node's memory_dir)")


def run(arguments: argparse.Namespace) -> int:
    """Prints the store's size, its episodes with their gaps, and what is wrong with it.

    Raises:
        StoreError: the store cannot be opened.
    """
    from rich.console import Console
    from rich.table import Table

    from fvs_ros.episodic.store import EpisodeStore

    console = Console(soft_wrap=True, markup=False, highlight=False)
    with EpisodeStore.open(arguments.folder, read_only=True) as store:
        information, notices = store.info(), store.notices()
    full = 100 * information.file_bytes / information.limit_bytes
    console.print(
        f"{information.path}: {information.segments} segments, {information.evicted} evicted, "
        f"{information.file_bytes} of {information.limit_bytes} bytes ({full:.0f} percent)"
    )
    if information.saved_memory_bytes:
        console.print(f"the Flash Memory is saved beside it: {information.saved_memory_bytes} bytes")
    for fingerprint, segments in information.models.items():
        console.print(f"features of {segments} segments for the model {fingerprint}")
    table = Table("episode", "segments", "from (s)", "to (s)", "gaps (s)", "began by")
    for episode in information.episodes:
        table.add_row(*_cells(episode))
    console.print(table)
    for notice in notices:
        console.print(f"{notice.problem.name}: {notice.message}")
    return 0


def _cells(episode: EpisodeInformation) -> tuple[str, ...]:
    from rich.markup import escape

    gaps = ", ".join(f"{_seconds(gap.start_ns)} to {_seconds(gap.end_ns)}" for gap in episode.gaps)
    stamps = (_seconds(episode.start_ns), _seconds(episode.end_ns))
    return str(episode.number), str(episode.segments), *stamps, gaps, escape(episode.reason)


def _seconds(stamp_ns: int | None) -> str:
    return "" if stamp_ns is None else f"{stamp_ns / 1e9:.1f}"
