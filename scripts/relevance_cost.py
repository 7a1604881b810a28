"""What it costs to find what an answer rests on: decoding with and without it, side by side on one memory.

For instance::

    python scripts/relevance_cost.py --pairs 300

Each pair is a token (and a first token) with the model's attention observed and one without, in turns, so that whatever
else the machine does meets both. The median of the pairs' ratios is printed with its quartiles.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch

from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.snapshot import StepFeatures
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.prefix_cache import PrefilledMemory
from fvs_ros.model.relevance import ObservedAttention, RelevanceRule, RowAttention
from fvs_ros.patrol.config import FRAME_SIZE
from fvs_ros.stream.config import StreamConfig

QUESTION = "Where did you last see the green chair?"
# Of one answer: its row is then as long as those that people get.
TOKENS = 64


@contextlib.contextmanager
def without_relevance() -> Iterator[None]:
    """Nothing is observed, kept or ranked within the block."""

    def nothing(*_: Any, **__: Any) -> None:
        return None

    def no_slots(self: RelevanceRule, question: torch.Tensor, answer: object, slots: int) -> torch.Tensor:
        return torch.zeros(slots)

    with (
        mock.patch.object(ObservedAttention, "add", nothing),
        mock.patch.object(ObservedAttention, "per_slot", nothing),
        mock.patch.object(RowAttention, "keep", nothing),
        mock.patch.object(RelevanceRule, "of", no_slots),
    ):
        yield


def milliseconds(function: Callable[[], object]) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - begin)


def compare(name: str, function: Callable[[], object], pairs: int) -> None:
    """Runs a function with and without, in turns, and prints what came of it."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(pairs + 5):
        for observed in (pair % 2 == 0, pair % 2 == 1):
            with contextlib.nullcontext() if observed else without_relevance():
                taken = milliseconds(function)
            # The first few warm up.
            if pair >= 5:
                times[observed].append(taken)
    ratios = np.array(times[True]) / np.array(times[False])
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    medians = {observed: float(np.median(some)) for observed, some in times.items()}
    print(
        f"{name}: {medians[True]:.3f} ms with, {medians[False]:.3f} without; ratio of pairs {middle:.3f} "
        f"(quartiles {low:.3f} to {high:.3f}, {pairs} pairs)"
    )


def tokens(prefilled: PrefilledMemory) -> Callable[[], object]:
    """A function that decodes a token more, of answers that follow each other."""
    answer = prefilled.start(QUESTION, TOKENS)

    def step() -> None:
        nonlocal answer
        if answer.done:
            answer.close()
            answer = prefilled.start(QUESTION, TOKENS)
        prefilled.decode_step()

    return step


def main() -> None:
    """Measures the first token and the later ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="checkpoint (%(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="grid steps of noise in memory (%(default)s)")
    parser.add_argument("--pairs", type=int, default=300, help="of each (%(default)s)")
    arguments = parser.parse_args()
    model = FlashVStream.load(arguments.model, device="cpu")
    # Nothing ends these answers but their length.
    model._end_tokens = ()
    stream = StreamConfig()
    grid = model.frame_grid(FRAME_SIZE, FRAME_SIZE, stream.min_pixels, stream.max_pixels)
    generator, width = torch.Generator().manual_seed(0), model._backbone.tower.width
    features = StepFeatures(
        torch.randn(arguments.steps, grid.patches, width, generator=generator),
        torch.randn(arguments.steps, grid.low_patches, width, generator=generator),
    )
    cache = model.new_prefix_cache()
    prefilled = cache.allocate(build_memory(features, grid, model.memory_config, generator=generator))
    while not prefilled.prefill_chunk():
        pass
    compare("first token", lambda: prefilled.start(QUESTION, 1).close(), arguments.pairs)
    compare("a token", tokens(prefilled), arguments.pairs)


if __name__ == "__main__":
    main()
