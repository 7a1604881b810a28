"""`fvs train`: runs a recipe, or resumes it."""

from __future__ import annotations

import argparse
from pathlib import Path

from fvs_ros.commands.arguments import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the recipe and how to run it."""
    parser.add_argument("config", metavar="CONFIG", type=Path, help="recipe (YAML), see config/train/")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check recipe and data, compute the loss of each stage's first episode, and print what would be trained",
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="continue an interrupted run in the same folder; --no-resume deletes that run",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a value of the recipe, for example stages.0.steps=10; may be repeated",
    )
    parser.add_argument("--minutes", type=positive, help="stop after this time, with a checkpoint to resume from")


def run(arguments: argparse.Namespace) -> int:
    """Trains; 0 if the run has finished or --minutes stopped it.

    Raises:
        TrainingError, CheckpointError: something cannot be used.
    """
    from rich.console import Console
    from transformers.utils.logging import disable_progress_bar

    from fvs_ros.training.recipe import load_recipe
    from fvs_ros.training.run import dry_run, train

    disable_progress_bar()
    console = Console(soft_wrap=True)

    def report(line: str) -> None:
        console.print(line, markup=False, highlight=False)

    config = load_recipe(arguments.config, arguments.set)
    if arguments.dry_run:
        dry_run(config, report)
    else:
        train(config, report, resume=arguments.resume, minutes=arguments.minutes)
    return 0
