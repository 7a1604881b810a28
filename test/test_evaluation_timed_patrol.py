"""`fvs evaluate patrol` on short patrols with a tiny random model, and the bookkeeping around it."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from patrol_drawing import drawing

from fvs_ros.cli import main
from fvs_ros.commands import evaluate_patrol
from fvs_ros.commands.evaluate_patrol import DEFAULT_SEEDS, parse_hours, parse_seeds
from fvs_ros.commands.evaluation import UNUSED_STREAM_SETTINGS
from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.timed.patrol import DayPlan, PatrolPlan, declined, guessed, timed
from fvs_ros.evaluation.timed.stream_run import RunOptions
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.tiny import write_tiny_checkpoint
from fvs_ros.patrol.config import FRAME_SIZE, TEST_SEED
from fvs_ros.patrol.errors import PatrolError
from fvs_ros.patrol.questions import CLOCK_FAMILIES, FAMILIES, OUTSIDE
from fvs_ros.patrol.render import shared_renderer
from fvs_ros.patrol.vocabulary import OUTSIDE_ANSWER
from fvs_ros.stream.config import StreamConfig

PLAN = PatrolPlan(questions=14, moments=3, shortest=12, longest=12)


def test_the_default_test_is_as_large_as_asked_for() -> None:
    seeds = parse_seeds(DEFAULT_SEEDS)
    assert len(seeds) == 60
    assert min(seeds) >= TEST_SEED
    plan = PatrolPlan()
    lengths = [plan.steps(seed) for seed in seeds]
    assert (min(lengths), max(lengths)) == (200, 600)
    assert len(set(lengths)) == 9
    assert plan.questions * len(seeds) >= 3000


@pytest.mark.parametrize(("text", "seeds"), [("3:5", [3, 4, 5]), ("7", [7]), ("900001,900000", [900001, 900000])])
def test_seeds_are_a_range_or_a_list(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "5:3", "a:b", "1,1", "-2", "1.5"])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"FIRST:LAST|at least one"):
        parse_seeds(text)


@pytest.mark.parametrize(("text", "hours"), [("0.3,1.7,6,24", [0.3, 1.7, 6.0, 24.0]), ("6,0.5", [0.5, 6.0])])
def test_hours_are_a_list_the_shortest_first(text: str, hours: list[float]) -> None:
    assert parse_hours(text) == hours


@pytest.mark.parametrize("text", ["", "a", "0", "25", "6,6", "-1", "nan", "inf"])
def test_other_hours_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="hours"):
        parse_hours(text)


def test_a_day_is_asked_about_with_its_clock_a_thousand_times_at_least() -> None:
    plan = DayPlan.of(1.7, families=("range", "now"))
    assert (plan.shortest, plan.longest, plan.hours) == (3060, 3060, 1.7)
    assert DayPlan.of(24).config(3).steps == 43_200
    assert DayPlan.of(6).asked_families == CLOCK_FAMILIES
    assert 7 * DayPlan.of(6).questions > 1000
    episode = plan.episode(3)
    assert episode.config.clock
    questions = plan.ask(episode)
    assert {question.family for question in questions} == {"range", "now"}
    assert len({question.frame for question in questions}) == 20
    with pytest.raises(PatrolError, match="steps is 0"):
        DayPlan.of(0.0001)
    with pytest.raises(PatrolError, match="families range are unknown"):
        PatrolPlan(families=("range",))


@pytest.mark.parametrize("fields", [{"questions": 0}, {"moments": 0}, {"shortest": 0}, {"shortest": 9, "longest": 8}])
def test_a_plan_that_asks_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        PatrolPlan(**fields)


def test_phrasings_choose_the_words_and_the_families() -> None:
    with pytest.raises(ValueError, match="phrasings is 'rude'; choose from original, trained, held-out"):
        PatrolPlan(phrasings="rude")
    asked = {}
    for phrasings in ("original", "trained", "held-out"):
        plan = PatrolPlan(questions=64, moments=3, shortest=300, longest=300, phrasings=phrasings)
        asked[phrasings] = plan.ask(plan.episode(TEST_SEED))
    assert {question.family for question in asked["original"]} == set(FAMILIES)
    for phrasings in ("trained", "held-out"):
        assert {question.family for question in asked[phrasings]} == {*FAMILIES, OUTSIDE}
    families = {timed(question).family for question in asked["held-out"]}
    assert families == {*FAMILIES, OUTSIDE, f"{OUTSIDE}, kinds held out"}


def test_families_can_be_chosen() -> None:
    plan = PatrolPlan(
        questions=20, moments=3, shortest=40, longest=40, phrasings="trained", families=(OUTSIDE, "now.view")
    )
    questions = plan.ask(plan.episode(TEST_SEED))
    assert {question.family for question in questions} == {OUTSIDE, "now"}
    assert {question.template for question in questions if question.family == "now"} == {"now.view"}
    with pytest.raises(PatrolError, match="families later are unknown"):
        PatrolPlan(families=("later",))
    with pytest.raises(PatrolError, match="outside cannot be asked in original phrasings"):
        PatrolPlan(families=(OUTSIDE,))


def test_questions_about_the_patrol_that_are_declined_are_counted() -> None:
    plan = PatrolPlan(questions=32, moments=3, shortest=40, longest=40, phrasings="trained")
    questions = plan.ask(plan.episode(TEST_SEED))
    rows = {one.id: AnswerRow(one.id, one.question, one.answer_text, OUTSIDE_ANSWER) for one in questions}
    inside = [one for one in questions if one.family != OUTSIDE]
    assert declined(questions, rows) == (len(inside), len(inside))
    right = {one.id: AnswerRow(one.id, one.question, one.answer_text, one.answer_text) for one in questions}
    assert declined(questions, right) == (0, len(inside))
    assert len(inside) < len(questions)


def test_questions_come_at_few_moments_that_span_the_episode() -> None:
    episode = PLAN.episode(TEST_SEED)
    questions = PLAN.ask(episode)
    assert {question.frame for question in questions} <= {7, 15, 23}
    assert len(episode) == 24
    assert questions == PLAN.ask(PLAN.episode(TEST_SEED))


def test_an_answer_must_be_the_exact_text_also_where_there_are_choices() -> None:
    questions = PLAN.ask(PLAN.episode(TEST_SEED))
    assert any(question.choices for question in questions)
    for question in questions:
        asked = timed(question)
        assert (asked.choices, asked.answer, asked.time_ns) == ((), question.answer_text, question.time_ns)
        assert asked.proof_ns == question.proof_ns


def test_guesses_answer_every_question_from_other_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fvs_ros.evaluation.timed.patrol.GUESS_EPISODES", 6)
    questions = [question for seed in range(TEST_SEED, TEST_SEED + 4) for question in PLAN.ask(PLAN.episode(seed))]
    rows = guessed(PLAN, questions)
    assert [row.id for row in rows] == [question.id for question in questions]
    assert all(row.response for row in rows)
    assert 0 < sum(row.response == row.answer for row in rows) < len(rows)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_checkpoint(folder, memory=FlashMemoryConfig(csm_slots=6, dam_slots=3))
    return folder


def evaluate(model: Path, out: Path, *more: str) -> int:
    command = ["evaluate", "patrol", "--model", str(model), "--out", str(out), "--steps", "12", "12", "--questions"]
    return main([*command, "14", "--moments", "3", "--max-new-tokens", "2", "--device", "cpu", *more])


@pytest.fixture
def few_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    with drawing():
        shared_renderer(FRAME_SIZE)
    monkeypatch.setattr("fvs_ros.evaluation.timed.patrol.GUESS_EPISODES", 3)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_goes_on_with_further_seeds_and_reports_all_of_them(
    model: Path, tmp_path: Path, few_guesses: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert evaluate(model, out, "--seeds", "900000", "--controls", "last4", "uniform") == 0
    first = lines(out / "answers.jsonl")
    assert evaluate(model, out, "--seeds", "900000:900001", "--controls", "last4", "uniform") == 0
    both = lines(out / "answers.jsonl")
    assert both[: len(first)] == first
    assert {row["id"].split("-")[0] for row in both} == {"900000", "900001"}
    report = json.loads((out / "report.json").read_text())
    assert report["conditions"] == ["memory", "last4", "uniform", "guess"]
    assert report["questions"] == len(both)
    table = next(one for one in report["tables"] if (one["metric"], one["breakdown"]) == ("correct", "all"))
    values = table["rows"][0]["values"]
    assert all(values[condition]["count"] == len(both) for condition in report["conditions"])
    # Two episodes to draw from: an interval there is.
    assert values["guess"]["low"] is not None
    assert (out / "report.html").read_text().count("<svg") >= 3
    printed = capsys.readouterr().out
    assert "drawn by episodes" in printed
    # Whatever order the work came in, the same seeds in a new folder give the same report.
    again = tmp_path / "again"
    assert evaluate(model, again, "--seeds", "900000:900001", "--controls", "last4", "uniform") == 0
    assert (again / "report.json").read_bytes() == (out / "report.json").read_bytes()


def test_another_plan_is_refused_in_the_same_folder(
    model: Path, tmp_path: Path, few_guesses: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(model, tmp_path, "--seeds", "900000") == 0
    kept = json.loads((tmp_path / "config.json").read_text())["settings"]
    needed = {one.name for kind in (StreamConfig, FlashMemoryConfig) for one in fields(kind)}
    assert kept.keys() == (needed - set(UNUSED_STREAM_SETTINGS)) | {"plan", "weights", "device", "dtype"}
    assert kept["plan"].keys() == {one.name for one in fields(PatrolPlan)}
    assert evaluate(model, tmp_path, "--seeds", "900000", "--fps", "0.5") == 1
    assert "fps" in capsys.readouterr().err


@pytest.mark.slow
def test_several_processes_give_the_same_answers(model: Path, tmp_path: Path, few_guesses: None) -> None:
    seeds = ("--seeds", "900000:900002")
    assert evaluate(model, tmp_path / "one", *seeds) == 0
    assert evaluate(model, tmp_path / "two", *seeds, "--workers", "2") == 0
    assert (tmp_path / "one" / "report.json").read_bytes() == (tmp_path / "two" / "report.json").read_bytes()


def test_impossible_lengths_are_refused(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(model, tmp_path, "--steps", "20", "10") == 1
    assert "must not be shorter" in capsys.readouterr().err


@pytest.fixture
def few_day_guesses(few_guesses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fvs_ros.evaluation.timed.patrol._GUESS_DAYS", 1)
    monkeypatch.setattr("fvs_ros.evaluation.timed.patrol._GUESS_DAY_QUESTIONS", 40)


def evaluate_days(model: Path, out: Path, *more: str) -> int:
    command = ["evaluate", "patrol", "--model", str(model), "--out", str(out), "--hours", "0.05,0.02", "--questions"]
    return main([*command, "16", "--moments", "2", "--max-new-tokens", "2", "--device", "cpu", *more])


def test_hours_give_a_table_of_lengths_with_all_controls(
    model: Path, tmp_path: Path, few_day_guesses: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate_days(model, tmp_path, "--seeds", "900000") == 0
    printed = capsys.readouterr().out
    kept = json.loads((tmp_path / "days.json").read_text())
    assert kept["conditions"] == ["memory", "uniform", "newest", "last4", "random", "oracle", "guess"]
    assert [one["hours"] for one in kept["lengths"]] == [0.02, 0.05]
    assert (tmp_path / "days.svg").read_text().startswith("<svg")
    assert max(map(len, printed.splitlines())) <= max(80, len(str(tmp_path)) + 60)
    assert "0.02 h" in printed
    episodes = json.loads((tmp_path / "hours-0.05" / "timings.json").read_text())["episodes"]
    assert [one["steps"] for one in episodes] == [90]
    assert all(0 < one["draw_s"] + one["encode_s"] < one["total_s"] for one in episodes)
    questions = lines(tmp_path / "hours-0.05" / "answers.oracle.jsonl")
    assert len(questions) == kept["lengths"][1]["questions"]


@pytest.mark.parametrize(
    ("recaller", "more", "expected"),
    [
        (object(), (), ["memory", "recall", "uniform", "newest", "last4", "random", "oracle"]),
        (None, (), ["memory", "uniform", "newest", "last4", "random", "oracle"]),
        (object(), ("--controls", "last4"), ["memory", "last4"]),
    ],
)
def test_days_are_asked_under_recall_where_the_model_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recaller: object, more: tuple[str, ...], expected: list[str]
) -> None:
    asked: list[list[str]] = []

    def evaluate_plan(_: object, options: RunOptions, *__: object) -> None:
        asked.append([condition.name for condition in options.conditions])
        raise ValueError("that is enough")

    monkeypatch.setattr(evaluate_patrol, "load_model", lambda _: SimpleNamespace(recaller=recaller))
    monkeypatch.setattr(evaluate_patrol, "_evaluate_plan", evaluate_plan)
    assert evaluate_days(tmp_path, tmp_path, *more) == 1
    assert asked == [expected]


@pytest.mark.slow
def test_several_processes_give_the_same_answers_about_days(model: Path, tmp_path: Path, few_day_guesses: None) -> None:
    seeds = ("--seeds", "900000,900001")
    assert evaluate_days(model, tmp_path / "one", *seeds) == 0
    assert evaluate_days(model, tmp_path / "two", *seeds, "--workers", "2") == 0
    for name in ("days.json", "hours-0.02/report.json", "hours-0.05/report.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    for name in ("random", "oracle"):
        one, two = (
            {row["id"]: row["response"] for row in lines(tmp_path / run / "hours-0.05" / f"answers.{name}.jsonl")}
            for run in ("one", "two")
        )
        assert one == two


def test_hours_and_steps_cannot_both_set_the_length(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(model, tmp_path, "--hours", "0.1") == 1
    assert "leave one out" in capsys.readouterr().err


def test_random_and_oracle_can_be_asked_for_without_a_clock_too(model: Path, tmp_path: Path, few_guesses: None) -> None:
    assert evaluate(model, tmp_path, "--seeds", "900000", "--controls", "random", "oracle", "uniform") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["conditions"] == ["memory", "random", "oracle", "uniform", "guess"]
