"""`fvs evaluate patrol`: the held-out test on robot patrols, with the controls beside the memory."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

from fvs_ros.commands.evaluation import (
    add_timed_arguments,
    exit_code,
    model_settings,
    publish,
    run_options,
    stream_settings,
)
from fvs_ros.commands.model_arguments import CHECKPOINT_ARGUMENTS, load_model
from fvs_ros.patrol.config import FRAME_SIZE, TEST_SEED, Wording

if TYPE_CHECKING:
    from rich.console import Console

    from fvs_ros.evaluation.answers import AnswerFile, AnswerRow
    from fvs_ros.evaluation.timed.breakdowns import GradedAnswer
    from fvs_ros.evaluation.timed.patrol import EpisodeAnswers, EpisodeCost, PatrolPlan
    from fvs_ros.evaluation.timed.stream_run import RunOptions
    from fvs_ros.model.flash_vstream import FlashVStream
    from fvs_ros.patrol.questions import Question

DEFAULT_SEEDS = f"{TEST_SEED}:{TEST_SEED + 59}"
# With the questions of a `DayPlan` more than a thousand of each length.
_DAY_SEEDS = range(TEST_SEED, TEST_SEED + 7)
_DAY_CONTROLS = ("uniform", "newest", "last4", "random", "oracle")
# Only a picture that a resting robot repeats, bit for bit, has no block whose mean differs by more than this.
_SAME_PICTURE = 1e-3
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


def parse_hours(text: str) -> list[float]:
    """Lengths with commas between, the shortest first.

    Raises:
        argparse.ArgumentTypeError: for anything else, and for a length that comes twice.
    """
    try:
        hours = sorted(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of hours such as 0.3,1.7,6,24") from None
    # Also refuses what is not a number.
    if not all(0 < length <= 24 for length in hours) or len(set(hours)) < len(hours):
        raise argparse.ArgumentTypeError(f"{text!r} must be hours above 0 up to 24, each once")
    return hours


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments; loads no heavy library."""
    parser.add_argument(
        "--seeds",
        type=parse_seeds,
        help=f"FIRST:LAST, both included, or a list with commas ({DEFAULT_SEEDS}; "
        f"with --hours {_DAY_SEEDS[0]}:{_DAY_SEEDS[-1]})",
    )
    parser.add_argument("--questions", type=int, help="of each episode (56; with --hours 160)")
    parser.add_argument("--moments", type=int, help="at which they are asked (10; with --hours 20)")
    parser.add_argument(
        "--steps",
        type=int,
        nargs=2,
        metavar=("SHORTEST", "LONGEST"),
        help="episodes' lengths in grid steps of 2 s (200 600)",
    )
    parser.add_argument(
        "--hours",
        type=parse_hours,
        metavar="H,H",
        help="patrols with a clock, each of these lengths, such as 0.3,1.7,6,24, up to 24: accuracy against length, "
        f"age and exposure, with the controls {', '.join(_DAY_CONTROLS)}, and recall where the model can",
    )
    parser.add_argument(
        "--phrasings",
        choices=[wording.value for wording in Wording],
        help="whose words: the few phrasings that stand beside each kind of question, constructions that training may "
        "see, or those kept from it; see docs/phrasings.md (original)",
    )
    parser.add_argument(
        "--families", nargs="+", metavar="F", default=(), help="of questions, such as recall or order.after (all)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (%(default)s)")
    add_timed_arguments(parser)
    parser.set_defaults(
        batch_steps=_BATCH_STEPS, max_new_tokens=_LONGEST_ANSWER, min_pixels=FRAME_SIZE**2, max_pixels=FRAME_SIZE**2
    )


def run(arguments: argparse.Namespace) -> int:
    """Makes the episodes, answers, scores and prints; 0, or 1 with a message where something cannot be used."""
    return exit_code("patrol", lambda: (_evaluate_days if arguments.hours else _evaluate)(arguments))


def _given(arguments: argparse.Namespace) -> dict[str, object]:
    """The fields of a plan that the arguments name."""
    given = {name: vars(arguments)[name] for name in ("questions", "moments", "phrasings")}
    given["families"] = tuple(arguments.families)
    if arguments.steps:
        given["shortest"], given["longest"] = arguments.steps
    return {name: value for name, value in given.items() if value is not None}


def _evaluate(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from fvs_ros.evaluation.timed.patrol import PatrolPlan
    from fvs_ros.evaluation.timed.plots import require_plots

    require_plots()
    arguments.seeds = arguments.seeds or parse_seeds(DEFAULT_SEEDS)
    options, plan = run_options(arguments), PatrolPlan(**_given(arguments))  # type: ignore[arg-type]
    _evaluate_plan(arguments, options, plan, load_model(arguments), Console())
    return 0


def _evaluate_days(arguments: argparse.Namespace) -> int:
    """Each length in a folder of its own, then all of them side by side."""
    from rich.console import Console

    from fvs_ros.evaluation.answers import replace_text
    from fvs_ros.evaluation.timed.console import print_days
    from fvs_ros.evaluation.timed.controls import MEMORY, RECALL
    from fvs_ros.evaluation.timed.days import DAYS, DAYS_PLOT, DayReport, length_scores
    from fvs_ros.evaluation.timed.patrol import DayPlan
    from fvs_ros.evaluation.timed.plots import length_plot, require_plots

    require_plots()
    if arguments.steps:
        raise ValueError("--steps and --hours both set the episodes' length; leave one out")
    arguments.seeds = arguments.seeds or list(_DAY_SEEDS)
    chosen = bool(arguments.controls)
    arguments.controls = arguments.controls or _DAY_CONTROLS
    options = run_options(arguments)
    options = replace(options, stream=replace(options.stream, static_tolerance=_SAME_PICTURE), snapshot_always=False)
    plans = [DayPlan.of(length, **_given(arguments)) for length in arguments.hours]
    model, console = load_model(arguments), Console()
    if model.recaller is not None and not chosen:
        options = replace(options, conditions=(MEMORY, RECALL, *options.conditions[1:]))
    scores = []
    conditions: tuple[str, ...] = ()
    for plan in plans:
        named = argparse.Namespace(**{**vars(arguments), "out": arguments.out / f"hours-{plan.hours:g}"})
        graded, conditions = _evaluate_plan(named, options, plan, model, console)
        scores.append(length_scores(plan.hours, graded, conditions))
    report = DayReport(tuple(scores), conditions)
    replace_text(arguments.out / DAYS, report.to_json())
    replace_text(arguments.out / DAYS_PLOT, length_plot(report, "length"))
    print_days(report, console)
    console.print(f"{arguments.out / DAYS_PLOT} shows accuracy against length", markup=False, highlight=False)
    return 0


def _evaluate_plan(
    arguments: argparse.Namespace, options: RunOptions, plan: PatrolPlan, model: FlashVStream, console: Console
) -> tuple[list[GradedAnswer], tuple[str, ...]]:
    """Answers and reports in `arguments.out`; the graded answers, and the conditions' names."""
    from fvs_ros.evaluation.answers import claim_folder
    from fvs_ros.evaluation.timed.patrol import answer_episodes
    from fvs_ros.evaluation.timed.replay import answer_files

    settings: dict[str, object] = {"plan": asdict(plan), **stream_settings(options.stream), **model_settings(model)}
    config = claim_folder(arguments.out, settings)
    begin = time.perf_counter()
    questions = {seed: plan.ask(plan.episode(seed)) for seed in arguments.seeds}
    # Each of several processes needs a model of its own.
    named = argparse.Namespace(**{name: vars(arguments)[name] for name in CHECKPOINT_ARGUMENTS})
    load = partial(load_model, named) if arguments.workers > 1 else lambda: model
    with answer_files(arguments.out, options.conditions, config) as files:
        answer = partial(answer_episodes, load, options, plan, workers=arguments.workers)
        costs = _answer(answer, files, questions, console)
        answers = {condition: dict(file.rows) for condition, file in files.items()}
    run = {"wall_s": time.perf_counter() - begin, "model": arguments.model, "episodes": list(map(asdict, costs))}
    return _report(arguments, plan, settings, questions, answers, run, console)


def _answer(
    answer: Callable[[Sequence[int]], Iterable[EpisodeAnswers]],
    files: Mapping[str, AnswerFile],
    questions: Mapping[int, Sequence[Question]],
    console: Console,
) -> list[EpisodeCost]:
    """Answers what the files do not hold yet, and says what that took; `answer` runs the episodes of seeds."""
    from fvs_ros.evaluation.progress import RunProgress

    missing = [
        seed
        for seed, some in questions.items()
        if any(question.id not in file.rows for question in some for file in files.values())
    ]
    asked = [question.id for some in questions.values() for question in some]
    known = sum(identity in file.rows for identity in asked for file in files.values())
    totals = {"episodes": len(questions), "answers": len(files) * len(asked)}
    costs = []
    with RunProgress(totals, console) as progress:
        progress.skip("episodes", len(questions) - len(missing))
        progress.skip("answers", known)
        for episode in answer(missing):
            costs.append(episode.cost)
            for condition, rows in episode.rows.items():
                new = [row for row in rows if row.id not in files[condition].rows]
                for row in new:
                    files[condition].append(row)
                progress.advance("answers", len(new))
            progress.advance("episodes")
    return costs


def _report(
    arguments: argparse.Namespace,
    plan: PatrolPlan,
    settings: dict[str, object],
    questions: dict[int, list[Question]],
    answers: dict[str, dict[str, AnswerRow]],
    run: Mapping[str, object],
    console: Console,
) -> tuple[list[GradedAnswer], tuple[str, ...]]:
    from fvs_ros.evaluation.timed.breakdowns import graded_answers
    from fvs_ros.evaluation.timed.patrol import GUESS, declined, guessed, timed
    from fvs_ros.evaluation.timed.report import evaluation_report

    asked = [question for some in questions.values() for question in some]
    with console.status("guessing from the words alone"):
        guesses = guessed(plan, asked)
    conditions = {**answers, GUESS: {row.id: row for row in guesses}}
    graded = graded_answers([(timed(one), seed) for seed, some in questions.items() for one in some], conditions)
    lengths = [plan.steps(seed) for seed in questions]
    taken = [f"{name} {count} of {of}" for name, rows in answers.items() for count, of in [declined(asked, rows)]]
    report = evaluation_report(
        title=f"{len(questions)} patrols of {min(lengths)} to {max(lengths)} grid steps",
        settings={**settings, "seeds": list(questions)},
        graded=graded,
        conditions=list(conditions),
        drawn_with="episodes",
        streams={str(seed): {"steps": plan.steps(seed), "questions": len(some)} for seed, some in questions.items()},
        notes=[
            f"{GUESS}: the most frequent answer to the same words in {plan.guess_episodes} other episodes.",
            "Correct is the exact text.",
            f"Questions about the patrol that were taken for ones from outside: {', '.join(taken)}.",
        ],
    )
    publish(arguments.out, report, graded, answers, run, console, in_thirds=("recall",), printed=not plan.clock)
    return graded, tuple(conditions)
