"""`fvs patrol make`: writes an episode as a bag with questions, and a contact sheet on request."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.patrol.config import FRAME_SIZE, TEST_SEED, PatrolConfig, Wording
from fvs_ros.patrol.errors import PatrolError, RenderError

if TYPE_CHECKING:
    import numpy as np

_DEFAULTS = PatrolConfig()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the episode and where to write it."""
    parser.add_argument(
        "--seed", type=int, required=True, help=f"of the episode; seeds from {TEST_SEED} up are reserved for tests"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the bag, which must not exist")
    parser.add_argument("--steps", type=int, default=_DEFAULTS.steps, help="length in steps of 2 s (%(default)s)")
    parser.add_argument("--rooms", type=int, default=_DEFAULTS.rooms, help="number of rooms (%(default)s)")
    parser.add_argument("--views", type=int, default=_DEFAULTS.views, help="inspection points per room (%(default)s)")
    parser.add_argument("--fps", type=int, default=_DEFAULTS.frame_rate, help="frames per second (%(default)s)")
    parser.add_argument("--size", type=int, default=FRAME_SIZE, help="pixels along each side of a frame (%(default)s)")
    parser.add_argument("--questions", type=int, default=100, help="number of questions (%(default)s)")
    parser.add_argument("--families", nargs="+", metavar="F", help="of questions, such as recall or order.after (all)")
    parser.add_argument(
        "--phrasings",
        choices=[wording.value for wording in Wording],
        default=Wording.ORIGINAL.value,
        help="whose words the questions are in, see docs/phrasings.md (%(default)s)",
    )
    parser.add_argument(
        "--steady",
        type=int,
        metavar="S",
        help="ask only where the robot keeps its view for S more seconds, for streams that continue meanwhile",
    )
    parser.add_argument("--preview", type=Path, metavar="PNG", help="also write a contact sheet with labels")


def run(arguments: argparse.Namespace) -> int:
    """Writes the episode; 0, 2 for impossible settings, 1 for what this machine lacks or cannot write."""
    from rich.console import Console

    problems = Console(stderr=True, soft_wrap=True)
    try:
        _make(arguments)
    except (PatrolError, RenderError, OSError) as error:
        problems.print(f"fvs patrol make: {error}", markup=False, highlight=False)
        return 2 if isinstance(error, PatrolError) else 1
    return 0


def _make(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fvs_ros.evaluation.questions import QUESTIONS_FILE
    from fvs_ros.patrol.bag import write_bag
    from fvs_ros.patrol.episode import simulate
    from fvs_ros.patrol.preview import chosen_frames, write_preview
    from fvs_ros.patrol.questions import FAMILIES, ask, steady_ends
    from fvs_ros.patrol.render import PatrolRenderer

    config = PatrolConfig(steps=arguments.steps, rooms=arguments.rooms, views=arguments.views, frame_rate=arguments.fps)
    console = Console(soft_wrap=True)
    episode = simulate(arguments.seed, config)
    moments = None if arguments.steady is None else steady_ends(episode, arguments.steady)
    wording = Wording(arguments.phrasings)
    questions = ask(episode, arguments.questions, arguments.families or FAMILIES, moments, wording=wording)
    shown = chosen_frames(episode) if arguments.preview else []
    kept: list[np.ndarray] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with PatrolRenderer(arguments.size) as renderer, Progress(*columns, console=console) as progress:
        task = progress.add_task("frames", total=len(episode))

        def on_frame(index: int, frame: np.ndarray) -> None:
            if index in shown:
                kept.append(frame)
            progress.advance(task)

        write_bag(episode, arguments.out, renderer, questions, on_frame)
    if arguments.preview:
        write_preview(arguments.preview, episode, shown, kept)
    summary = f"{len(episode)} frames, {config.duration_s} s, {len(questions)} questions in {QUESTIONS_FILE}"
    console.print(f"{arguments.out}: {summary}", markup=False, highlight=False)
