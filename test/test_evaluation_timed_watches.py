"""How rightly and how soon conditions are told."""

from __future__ import annotations

import pytest
from fakes import FakeModel, frame

from fvs_ros.evaluation.timed.watches import WatchScore, score_watch, watch_steps
from fvs_ros.stream.config import StreamConfig

# One step a letter: true, false, or nobody can tell.
TRUTH = {"t": True, "f": False, "?": None}


@pytest.mark.parametrize(
    ("truth", "told", "score"),
    [
        ("ffttff", [2], WatchScore(1, 0, 1, 1, (0,))),
        ("ffttff", [3], WatchScore(1, 0, 1, 1, (1,))),
        ("ff??ttff", [2], WatchScore(1, 0, 1, 1, (-2,))),
        ("ffttff", [4], WatchScore(0, 1, 1, 1, (2,))),
        ("ffttff", [5], WatchScore(0, 1, 1, 0)),
        ("ffttff", [], WatchScore(0, 0, 1, 0)),
        ("ff??ff", [2], WatchScore()),
        ("fttfttt", [1, 4], WatchScore(2, 0, 2, 2, (0, 0))),
        ("fttfttt", [1], WatchScore(1, 0, 2, 1, (0,))),
        ("tt?tt", [0, 3], WatchScore(2, 0, 1, 1, (0,))),
        ("ffff", [1, 3], WatchScore(0, 2, 0, 0)),
    ],
)
def test_what_is_told_is_held_against_the_truth(truth: str, told: list[int], score: WatchScore) -> None:
    assert score_watch([TRUTH[letter] for letter in truth], told) == score


def test_scores_add_up_to_shares() -> None:
    score = WatchScore(3, 1, 4, 2, (0, 3)) + WatchScore(0, 0, 1, 1, (1,))
    assert (score.precision, score.recall, score.median_delay) == (0.75, 0.6, 1)
    assert (WatchScore().precision, WatchScore().recall, WatchScore().median_delay) == (None, None, None)


def steps(count: int) -> list[list]:
    return [[frame(2 * step), frame(2 * step + 1)] for step in range(count)]


def test_each_step_is_looked_at_before_the_next_one_comes() -> None:
    model, asked = FakeModel(), list[str]()

    def likelihood(question: str, text: str) -> float:
        if text == "yes":
            asked.append(question)
        looks = asked.count(question)
        true = looks in (2, 3, 5) if "door" in question else looks == 4
        return 0.0 if text == ("yes" if true else "no") else -10.0

    model.likelihood = likelihood
    config = StreamConfig(prefill_share=0.0, watch_share=1.0)
    told = watch_steps(model, config, steps(6), ["the door is open", "it rains"])
    assert told == [[1, 4], [3]]
    assert len(asked) == 12


def test_a_model_that_fails_is_no_score() -> None:
    model = FakeModel()

    def fails(question: str, text: str) -> float:
        raise RuntimeError("broken")

    model.likelihood = fails
    with pytest.raises(RuntimeError, match="failed on what is watched: RuntimeError: broken"):
        watch_steps(model, StreamConfig(prefill_share=0.0, watch_share=1.0), steps(1), ["it rains"])
