"""Which steps of a stream the controls show that are told them with each question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

ORACLE_NEWEST = 24
"""Newest steps that the oracle shows beside the proof."""
ORACLE_PROOF = 40
"""Most steps of the proof that it shows."""
_SEED = 20240607


def evenly_spaced(total: int, count: int) -> list[int]:
    """At most `count` of the steps 0 to `total` - 1, the first and the newest among them."""
    if total <= count:
        return list(range(total))
    return [int(index) for index in torch.linspace(0, total - 1, count, dtype=torch.float64).round().tolist()]


def random_steps(total: int, count: int, seed: int) -> list[int]:
    """At most `count` different steps of 0 to `total` - 1 in order; the same ones for the same arguments."""
    if total <= count:
        return list(range(total))
    random = np.random.Generator(np.random.PCG64([_SEED, seed, total]))
    return sorted(random.choice(total, count, replace=False).tolist())


def oracle_steps(total: int, slots: int, proof: Iterable[tuple[int, int]]) -> list[int]:
    """The newest steps and those of the proof, in order; of a long proof evenly spaced ones.

    Args:
        total: steps seen.
        slots: most steps in all; below 64, three of eight are the newest.
        proof: first and last step of each of its intervals.
    """
    newest = min(ORACLE_NEWEST, max(1, slots * ORACLE_NEWEST // (ORACLE_NEWEST + ORACLE_PROOF)))
    shown = sorted({step for start, end in proof for step in range(start, min(end, total - 1) + 1)})
    picked = [shown[index] for index in evenly_spaced(len(shown), min(ORACLE_PROOF, slots - newest))]
    return sorted({*picked, *range(max(0, total - newest), total)})


def last_needed(asked: Iterable[tuple[int, Sequence[int]]]) -> dict[int, int]:
    """For each step that any question shows, the stamp of the last one that does.

    Args:
        asked: the stamp and the steps of each question.
    """
    needed: dict[int, int] = {}
    for stamp_ns, steps in asked:
        for step in steps:
            needed[step] = max(stamp_ns, needed.get(step, stamp_ns))
    return needed
