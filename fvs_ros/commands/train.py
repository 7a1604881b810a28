"""`fvs train`: runs a recipe, or goes on with it."""

from __future__ import annotations

import argparse
from pathlib import Path

from fvs_ros.commands.arguments import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments; loads no heavy library."""
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
        help="go on where an earlier run into the same folder was interrupted; --no-resume deletes that run",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a value of the recipe, for instance stages.0.steps=10; may be repeated",
    )
    parser.add_argument("--minutes", type=positive, help="stop after that time, with a checkpoint to resume from")


def run(arguments: argparse.Namespace) -> int:
    """Trains; 0 if the run is finished or was stopped by --minutes, 1 with a message if something cannot be used."""
    from rich.console import Console
    from transformers.utils.logging import disable_progress_bar

    from fvs_ros.model.checkpoint import CheckpointError
    from fvs_ros.training import run as stages
    from fvs_ros.training.config import load_config
    from fvs_ros.training.errors import TrainingError

    disable_progress_bar()
    console, problems = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)
    try:
        config = load_config(arguments.config, arguments.set)
        if arguments.dry_run:
            stages.dry_run(config, console)
        else:
            stages.run(config, console, resume=arguments.resume, minutes=arguments.minutes)
    except (TrainingError, CheckpointError) as error:
        problems.print(f"fvs train: {error}", markup=False, highlight=False)
        return 1
    return 0
