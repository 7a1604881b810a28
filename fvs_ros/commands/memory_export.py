"""`fvs memory export`: the pictures of an episode store as JPEG files, and its segments as lines of JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

SEGMENTS_FILE = "segments.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the store and where its content goes."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of the store (the node's memory_dir)")
    parser.add_argument("--out", metavar="DIR", required=True, type=Path, help="folder to make, which must not exist")


def run(arguments: argparse.Namespace) -> int:
    """Writes every sound segment; 0, or 1 if rows of the store are damaged, which are left out.

    Raises:
        StoreError: the store cannot be opened.
        OSError: the folder exists, or cannot be written.
    """
    from fvs_ros.episodic.store import EpisodeStore

    with EpisodeStore.open(arguments.folder, read_only=True) as store:
        arguments.out.mkdir(parents=True)
        pictures = 0
        with (arguments.out / SEGMENTS_FILE).open("w", encoding="utf-8") as lines:
            segments = store.segments()
            for stored in segments:
                keyframe = store.keyframe(stored.id)
                name = None if keyframe is None else f"{stored.id:08d}.jpg"
                if name is not None and keyframe is not None:
                    (arguments.out / name).write_bytes(keyframe)
                    pictures += 1
                lines.write(json.dumps({**dataclasses.asdict(stored), "keyframe": name}) + "\n")
        damaged = store.info().damaged
    print(f"{arguments.out}: {len(segments)} segments in {SEGMENTS_FILE}, {pictures} pictures")
    if damaged:
        print(f"{damaged} damaged rows were left out", file=sys.stderr)
    return int(damaged > 0)
