"""`fvs memory forget`: removes segments from an episode store, so that none of their bytes stay."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.sources.stamps import parse_stamp

if TYPE_CHECKING:
    from fvs_ros.episodic.store import EpisodeStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the store and what is to go."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of the store (the node's memory_dir)")
    parser.add_argument("--episode", metavar="N", type=int, help="only of this episode")
    parser.add_argument("--since", metavar="T", type=_stamp, help="only what was seen at or after this stamp, seconds")
    parser.add_argument("--until", metavar="T", type=_stamp, help="only what was seen at or before this stamp, seconds")
    parser.add_argument("--all", action="store_true", help="everything")
    parser.add_argument("--yes", action="store_true", help="forget; without it, only say how much would go")


def _stamp(text: str) -> int:
    """The nanoseconds of an argument in seconds."""
    try:
        return parse_stamp(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(arguments: argparse.Namespace) -> int:
    """Forgets; 0, or 2 if it is not said what, or --yes is missing.

    Raises:
        StoreError: the store cannot be opened or written.
    """
    from fvs_ros.episodic.store import EpisodeStore

    chosen = [arguments.episode, arguments.since, arguments.until]
    if arguments.all == any(value is not None for value in chosen):
        print("say what to forget: --all, or one or more of --episode, --since and --until")
        return 2
    with EpisodeStore.open(arguments.folder, create=False) as store:
        return _forget(store, arguments)


def _forget(store: EpisodeStore, arguments: argparse.Namespace) -> int:
    chosen = {"since_ns": arguments.since, "until_ns": arguments.until, "episode": arguments.episode}
    total = store.info().segments
    if not arguments.yes:
        print(f"{len(store.segments(**chosen))} of {total} segments would be forgotten for ever: add --yes to do it")
        return 2
    print(f"{len(store.forget(**chosen))} of {total} segments forgotten")
    return 0
