"""Finds `confidence_calibration` of a checkpoint on validation patrols, and prints it as JSON for its config.json.

    MUJOCO_GL=osmesa python scripts/fit_confidence.py --model FOLDER --seeds 870300:870323 --workers 2 --write

With --write it goes into FOLDER's config.json, and so does `not_seen_answers`, with which answers about patrols say
that something was not seen. Seeds from 870000 to 879999 are for choices such as this one; those from 900000 up are for
tests, and refused. The figures on stderr are of a fit to three of four seeds, measured on the fourth; what is printed
is fitted to all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fvs_ros.commands.evaluate_patrol import parse_seeds
from fvs_ros.evaluation.answers import replace_text
from fvs_ros.evaluation.timed.confidence import calibration_error, covered_accuracy
from fvs_ros.evaluation.timed.confidence_fit import fit_calibration
from fvs_ros.evaluation.timed.controls import MEMORY
from fvs_ros.evaluation.timed.patrol import PatrolPlan, answer_episodes, timed
from fvs_ros.evaluation.timed.stream_run import RunOptions
from fvs_ros.model.confidence import AnswerRules, Calibration
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.model_config import CALIBRATION, NOT_SEEN, ModelConfig
from fvs_ros.patrol.config import FRAME_SIZE, TEST_SEED
from fvs_ros.patrol.templates import NOT_SEEN as NOT_SEEN_ANSWER
from fvs_ros.stream.config import StreamConfig

HELD_OUT = 4
LONGEST_ANSWER = 32


def main() -> None:
    """Answers, fits, checks and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="embedded", help="folder of the checkpoint, or a name")
    parser.add_argument("--seeds", type=parse_seeds, default=parse_seeds("870300:870323"))
    parser.add_argument("--steps", type=int, nargs=2, default=(200, 600), metavar=("SHORTEST", "LONGEST"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="into config.json of the folder --model")
    arguments = parser.parse_args()
    if max(arguments.seeds) >= TEST_SEED:
        parser.error(f"seeds from {TEST_SEED} up are for tests; choose from 870000 to 879999")
    config = Path(arguments.model) / "config.json"
    if arguments.write and not config.is_file():
        parser.error(f"--write needs a folder with a config.json, and {config} is none")
    torch.set_num_threads(1)
    plan = PatrolPlan(shortest=arguments.steps[0], longest=arguments.steps[1])
    answered = answers(arguments.model, plan, arguments.seeds, arguments.workers)
    raw, correct, seeds = (np.array(column) for column in zip(*answered, strict=True))
    kept = (seeds - seeds.min()) % HELD_OUT != HELD_OUT - 1
    report(raw[~kept], correct[~kept], fitted(raw[kept], correct[kept]))
    values = {CALIBRATION: fitted(raw, correct).to_json(), NOT_SEEN: [NOT_SEEN_ANSWER]}
    if arguments.write:
        whole = {**json.loads(config.read_text(encoding="utf-8")), **values}
        ModelConfig.from_json(whole)
        replace_text(config, json.dumps(whole, indent=2, sort_keys=True) + "\n")
    print(json.dumps(values))


def fitted(raw: np.ndarray, correct: np.ndarray) -> Calibration:
    """The calibration of answers, as a checkpoint has it."""
    points, right = fit_calibration(raw, correct)
    return Calibration(tuple(points), tuple(right))


def answers(model: str, plan: PatrolPlan, seeds: Sequence[int], workers: int) -> list[tuple[float, float, int]]:
    """Raw confidence, grade and seed of each answer about the patrols."""
    stream = StreamConfig(
        batch_steps=16, max_new_tokens=LONGEST_ANSWER, min_pixels=FRAME_SIZE**2, max_pixels=FRAME_SIZE**2
    )
    options = RunOptions(stream)
    asked = {one.id: (timed(one), seed) for seed in seeds for one in plan.ask(plan.episode(seed))}
    found = []
    for number, episode in enumerate(
        answer_episodes(partial(raw_model, model), options, plan, seeds, workers), start=1
    ):
        for row in episode.rows[MEMORY.name]:
            question, seed = asked[row.id]
            correct = question.grade(row.response).correct
            if row.confidence is not None and correct is not None:
                found.append((row.confidence, correct, seed))
        print(f"{number} of {len(seeds)} patrols", file=sys.stderr)
    # Workers end in any order; sorting and sums must not depend on it.
    return sorted(found)


def raw_model(name: str) -> FlashVStream:
    """The model, with raw confidence."""
    model = FlashVStream.load(name, device="cpu")
    model.answers = AnswerRules(None, model.answers.not_seen)
    return model


def report(raw: np.ndarray, correct: np.ndarray, calibration: Calibration) -> None:
    """Says what a calibration is worth on answers that it was not fitted to."""
    if not len(raw):
        return
    calibrated = np.array([calibration.of(one) for one in raw])
    print(
        f"{len(raw)} answers of seeds that were left out, {correct.mean():.1%} right: calibration error "
        f"{calibration_error(raw, correct):.3f} raw, {calibration_error(calibrated, correct):.3f} calibrated; of the "
        f"surest 80 % {covered_accuracy(raw, correct):.1%} right",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
