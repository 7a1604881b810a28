"""`fvs evaluate patrol`: the held-out test on robot patrols, with the controls beside the memory."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.commands.evaluation_arguments import add_model_arguments, model_settings, run_options
from fvs_ros.commands.model_arguments import load_model
from fvs_ros.patrol.config import TEST_SEED

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from fvs_ros.evaluation.answers import AnswerFile
    from fvs_ros.evaluation.benchmarks.predictions import AnswerRow
    from fvs_ros.evaluation.timed.patrol import EpisodeAnswers, PatrolPlan
    from fvs_ros.patrol.questions import Question

DEFAULT_SEEDS = f"{TEST_SEED}:{TEST_SEED + 59}"
# A batch has a snapshot made, of which only those at the questions' moments are used.
_BATCH_STEPS = 16
_LONGEST_ANSWER = 32


def parse_seeds(text: str) -> list[int]:
    """`FIRST:LAST`, both included, or seeds with commas between.

    Raises:
        argparse.ArgumentTypeError: for anything else, and for a seed that comes twice.
    """
    first, colon, last = text.partition(":")
    try:
        seeds = list(range(int(first), int(last) + 1)) if colon else [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither FIRST:LAST nor a list such as 900000,900007") from None
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text!r} must name at least one seed, none below 0 and each once")
    return seeds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments; loads no heavy library."""
    parser.add_argument(
        "--seeds",
        type=parse_seeds,
        default=DEFAULT_SEEDS,
        help="FIRST:LAST, both included, or a list with commas (%(default)s)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="gets answers.jsonl, report.json, report.html and timings.json; an interrupted run goes on there",
    )
    parser.add_argument("--questions", type=int, help="of each episode (56)")
    parser.add_argument("--moments", type=int, help="at which they are asked (10)")
    parser.add_argument(
        "--steps",
        type=int,
        nargs=2,
        metavar=("SHORTEST", "LONGEST"),
        help="episodes' lengths in grid steps of 2 s (200 600)",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (%(default)s)")
    add_model_arguments(parser)
    parser.set_defaults(
        batch_steps=_BATCH_STEPS, max_new_tokens=_LONGEST_ANSWER, min_pixels=112 * 112, max_pixels=112 * 112
    )


def run(arguments: argparse.Namespace) -> int:
    """Makes the episodes, answers, scores and prints; 0, or 1 with a message where something cannot be used."""
    from rich.console import Console

    from fvs_ros.evaluation.errors import DataError
    from fvs_ros.model.checkpoint import CheckpointError
    from fvs_ros.patrol.errors import RenderError

    try:
        _evaluate(arguments, Console())
    except (DataError, CheckpointError, RenderError, OSError, ValueError) as error:
        print(f"fvs evaluate patrol: {error}", file=sys.stderr)
        return 1
    return 0


def _plan(arguments: argparse.Namespace) -> PatrolPlan:
    from fvs_ros.evaluation.timed.patrol import PatrolPlan

    given = {"questions": arguments.questions, "moments": arguments.moments}
    if arguments.steps:
        given["shortest"], given["longest"] = arguments.steps
    return PatrolPlan(**{name: value for name, value in given.items() if value is not None})


def _evaluate(arguments: argparse.Namespace, console: Console) -> None:
    from fvs_ros.evaluation.answers import claim_folder
    from fvs_ros.evaluation.timed.patrol import answer_episodes, answer_files
    from fvs_ros.evaluation.timed.plots import require_plots
    from fvs_ros.evaluation.timed.replay import frame_settings

    require_plots()
    options, plan = run_options(arguments), _plan(arguments)
    model = load_model(arguments)
    settings: dict[str, object] = {"plan": asdict(plan), **frame_settings(options), **model_settings(model)}
    digest = claim_folder(arguments.out, settings)
    begin = time.perf_counter()
    questions = {seed: plan.ask(plan.episode(seed)) for seed in arguments.seeds}
    # Each of several processes needs a model of its own.
    named = argparse.Namespace(**{name: vars(arguments)[name] for name in ("model", "device", "dtype")})
    load = partial(load_model, named) if arguments.workers > 1 else lambda: model
    with ExitStack() as stack:
        files = answer_files(arguments.out, options, digest)
        for file in files.values():
            stack.enter_context(file)
        _answer(partial(answer_episodes, load, options, plan, workers=arguments.workers), files, questions, console)
        rows = {view: dict(file.rows) for view, file in files.items()}
    _report(arguments, plan, settings, questions, rows, time.perf_counter() - begin, console)


def _answer(
    answer: Callable[[Sequence[int]], Iterable[EpisodeAnswers]],
    files: Mapping[str, AnswerFile],
    questions: Mapping[int, Sequence[Question]],
    console: Console,
) -> None:
    """Answers what the files do not hold yet; `answer` runs the episodes of seeds."""
    from fvs_ros.evaluation.timed.patrol import unanswered

    missing = unanswered(files, questions)
    with _progress(console) as progress:
        done = len(questions) - len(missing)
        episodes = progress.add_task("episodes", total=len(questions), completed=done)
        asked = [question.id for some in questions.values() for question in some]
        known = sum(identity in file.rows for identity in asked for file in files.values())
        answers = progress.add_task("answers", total=len(files) * len(asked), completed=known)
        for episode in answer(missing):
            for view, rows in episode.rows.items():
                for row in rows:
                    if row.id not in files[view].rows:
                        files[view].append(row)
                        progress.advance(answers)
            progress.advance(episodes)


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fvs_ros.evaluation.progress import RateColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(), RateColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)


def _report(
    arguments: argparse.Namespace,
    plan: PatrolPlan,
    settings: dict[str, object],
    questions: dict[int, list[Question]],
    rows: dict[str, dict[str, AnswerRow]],
    wall_s: float,
    console: Console,
) -> None:
    from fvs_ros.evaluation.timed.breakdowns import LATENCY_MEASURES, outcome, tables
    from fvs_ros.evaluation.timed.console import print_evaluation
    from fvs_ros.evaluation.timed.page import summary_page
    from fvs_ros.evaluation.timed.patrol import GUESS, GUESS_EPISODES, guessed, timed
    from fvs_ros.evaluation.timed.report import evaluation_report, latencies, write_report

    asked = [(seed, question) for seed, some in questions.items() for question in some]
    with console.status("guessing from the words alone"):
        guesses = {row.id: row for row in guessed(plan, [question for _, question in asked])}
    views = [*rows, GUESS]
    by_view = {**rows, GUESS: guesses}
    outcomes = [
        outcome(timed(question), view, by_view[view].get(question.id), drawn_with=seed)
        for view in views
        for seed, question in asked
    ]
    lengths = [plan.steps(seed) for seed in questions]
    report = evaluation_report(
        title=f"{len(questions)} patrols of {min(lengths)} to {max(lengths)} grid steps",
        settings={**settings, "seeds": list(questions)},
        outcomes=outcomes,
        views=views,
        drawn_with="episodes",
        streams={str(seed): {"steps": plan.steps(seed), "questions": len(some)} for seed, some in questions.items()},
        notes=[
            f"{GUESS}: the most frequent answer to the same words in {GUESS_EPISODES} other episodes.",
            "Correct is the exact text.",
        ],
    )
    latency = latencies({view: some.values() for view, some in rows.items()})
    by_group = tables(outcomes, list(rows), LATENCY_MEASURES)
    timings = {
        "wall_s": wall_s,
        "latency": [asdict(one) for one in latency],
        "tables": [asdict(one) for one in by_group],
        "model": arguments.model,
    }
    write_report(report, timings, summary_page(report, rows, latency, by_group), arguments.out)
    print_evaluation(report, latency, console, in_thirds=("recall",))
    console.print(f"{arguments.out / 'report.html'} shows all of it", markup=False, highlight=False)
