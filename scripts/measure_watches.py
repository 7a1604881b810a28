"""Measures how rightly and how soon a model tells that conditions about patrols have become true.

    MUJOCO_GL=osmesa python scripts/measure_watches.py --seeds 870600:870603 --workers 2

Conditions of three kinds are watched for in an engine that looks once a grid step: "a green ladder is in view", "you
are in the kitchen", "the white table is gone". With --write the folder --model gets `condition_questions` in its
config.json, as a checkpoint trained on patrols is to be asked. Seeds from 870000 to 879999 are for choices such as
thresholds, those from 900000 up for the figures in the documents.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import torch

from fvs_ros.commands.evaluate_patrol import parse_seeds
from fvs_ros.evaluation.answers import replace_text
from fvs_ros.evaluation.timed.watches import WatchScore, score_watch, watch_steps
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.model_config import CONDITIONS, ModelConfig
from fvs_ros.patrol.conditions import GONE, IN_ROOM, IN_VIEW, condition_questions, draw_conditions
from fvs_ros.patrol.config import FRAME_SIZE, STEP_S, PatrolConfig
from fvs_ros.patrol.episode import Episode, simulate
from fvs_ros.patrol.render import PatrolRenderer
from fvs_ros.sources.frame import Frame
from fvs_ros.stream.config import StreamConfig

KINDS = (IN_VIEW, IN_ROOM, GONE)


def main() -> None:
    """Watches, or writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="embedded", help="folder of the checkpoint, or a name")
    parser.add_argument("--seeds", type=parse_seeds, default=parse_seeds("870600:870603"))
    parser.add_argument("--steps", type=int, default=300, help="length of each patrol, in grid steps")
    parser.add_argument("--each", type=int, default=4, help="conditions of each kind in each patrol")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="of conditions")
    parser.add_argument("--thresholds", type=float, nargs=2, metavar=("TRUE_FROM", "FALSE_BELOW"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="condition_questions into config.json; measures nothing")
    arguments = parser.parse_args()
    if arguments.write:
        write(Path(arguments.model) / "config.json")
        return
    thresholds = arguments.thresholds or (StreamConfig().watch_true_from, StreamConfig().watch_false_below)
    work = partial(measure, arguments.model, arguments.steps, arguments.each, arguments.kinds, *thresholds)
    total: defaultdict[str, WatchScore] = defaultdict(WatchScore)
    # Not forked: neither torch's threads nor an OpenGL context outlive that.
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as pool:
        for seed, scores in zip(arguments.seeds, pool.map(work, arguments.seeds), strict=True):
            for kind, score in scores.items():
                total[kind] += score
            print(f"{seed}: {scores}", file=sys.stderr)
    print("| condition | told | right | spells | found | precision | recall | median delay (steps) |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, score in total.items():
        shares = " | ".join("-" if share is None else f"{share:.3f}" for share in (score.precision, score.recall))
        told = score.right + score.wrong
        print(f"| {kind} | {told} | {score.right} | {score.spells} | {score.found} | {shares} | {score.median_delay} |")


def write(path: Path) -> None:
    """Adds how a model trained on patrols is asked about conditions to a `config.json`."""
    whole = {**json.loads(path.read_text(encoding="utf-8")), CONDITIONS: condition_questions()}
    ModelConfig.from_json(whole)
    replace_text(path, json.dumps(whole, indent=2, sort_keys=True) + "\n")


def measure(
    model: str, steps: int, of_each: int, kinds: Collection[str], true_from: float, false_below: float, seed: int
) -> dict[str, WatchScore]:
    """The scores of each kind of condition in one patrol."""
    config = StreamConfig(
        min_pixels=FRAME_SIZE**2,
        max_pixels=FRAME_SIZE**2,
        prefill_share=0.0,
        watch_share=1.0,
        watch_true_from=true_from,
        watch_false_below=false_below,
    )
    episode = simulate(seed, PatrolConfig(steps=steps))
    conditions = [one for one in draw_conditions(episode, of_each) if one.kind in kinds]
    with PatrolRenderer() as renderer:
        told = watch_steps(loaded(model), config, stepped(episode, renderer), [one.text for one in conditions])
    scores: dict[str, WatchScore] = {}
    for condition, steps_told in zip(conditions, told, strict=True):
        scores[condition.kind] = scores.get(condition.kind, WatchScore()) + score_watch(condition.truth, steps_told)
    return scores


@cache
def loaded(model: str) -> FlashVStream:
    """The model, once a process."""
    torch.set_num_threads(1)
    return FlashVStream.load(model, device="cpu")


def stepped(episode: Episode, renderer: PatrolRenderer) -> Iterator[list[Frame]]:
    """The frames of each grid step, drawn as they are read."""
    images = zip(episode.stamps_ns.tolist(), renderer.frames(episode), strict=True)
    frames = (Frame(stamp, lambda image=image: image) for stamp, image in images)  # type: ignore[misc]
    return map(list, zip(*[frames] * STEP_S, strict=False))


if __name__ == "__main__":
    main()
