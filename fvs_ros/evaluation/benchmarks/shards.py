"""This process's share of the work: by torchrun's rank, or by hand."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fvs_ros.evaluation.answers import ANSWERS

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """One of `world` processes, `rank` from 0.

    Raises:
        ValueError: if there is no such rank.
    """

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} of {self.world} processes; ranks go from 0 to {self.world - 1}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Shard:
        """From RANK and WORLD_SIZE, as torchrun and accelerate set them; one process where neither is set.

        Raises:
            ValueError: if they are no numbers, contradict each other, or one is missing.
        """
        found = {name: environment.get(name, "") for name in ("RANK", "WORLD_SIZE")}
        if not any(found.values()):
            return cls()
        if not all(text.isdecimal() for text in found.values()) or found["WORLD_SIZE"] == "0":
            found_text = ", ".join(f"{name}={text!r}" for name, text in found.items())
            raise ValueError(f"{found_text}; set both to whole numbers, as torchrun does, or neither")
        return cls(int(found["RANK"]), int(found["WORLD_SIZE"]))

    @property
    def file(self) -> str:
        """Name of the file that this process's answers go to."""
        return ANSWERS if self.world == 1 else f"answers-{self.rank:05d}-of-{self.world:05d}.jsonl"

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Every `world`-th item; the shares of all ranks together are all items, each once."""
        return list(items[self.rank :: self.world])


def shard_files(folder: Path) -> list[Path]:
    """The files of answers in a run's folder, of any number of processes, and the joined one."""
    return sorted(folder.glob("answers-*-of-*.jsonl")) + [path for path in [folder / ANSWERS] if path.exists()]
