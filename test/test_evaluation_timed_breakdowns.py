from __future__ import annotations

import pytest

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.statistics import Estimate
from fvs_ros.evaluation.timed.breakdowns import (
    AGE,
    ALL,
    FAMILY,
    FAMILY_THIRD,
    NO_DIFFERENCE,
    BreakdownTable,
    GradedAnswer,
    breakdowns,
    differences,
    missed_s,
    tables,
)
from fvs_ros.stream.types import Moment

SECOND_NS = 1_000_000_000


def graded(right: dict[str, list[bool]], ages_s: list[float], families: list[str] | None = None) -> list[GradedAnswer]:
    """One graded_answer for each condition and question; question i is right in a condition as `right` tells."""
    found = []
    for index, age_s in enumerate(ages_s):
        proof_ns = ((0, round((10_000 - age_s) * SECOND_NS)),)
        family = families[index] if families else ""
        asked = TimedQuestion(f"q{index}", 10_000 * SECOND_NS, False, "What?", (), "yes", proof_ns, family)
        for condition, hits in right.items():
            answer = AnswerRow(
                asked.id, "What?", "yes", "yes" if hits[index] else "no", moments=(Moment(0, 0, 0, 1.0),)
            )
            found.append(GradedAnswer.of(asked, condition, answer, drawn_with=index // 2))
    return found


def table(found: list[BreakdownTable], metric: str, breakdown: str) -> BreakdownTable:
    return next(one for one in found if (one.metric, one.breakdown) == (metric, breakdown))


def known(value: Estimate | None) -> Estimate:
    assert value is not None
    return value


def test_every_figure_has_its_interval_and_its_number_of_questions() -> None:
    found = tables(graded({"memory": [True, True, True, False]}, [1, 20, 400, 400]), ["memory"])
    (row,) = table(found, "correct", ALL).rows
    assert row.questions == 4
    found_value = known(row.values["memory"])
    assert (found_value.value, found_value.count) == (0.75, 4)
    assert found_value.low is not None
    assert found_value.high is not None
    assert 0 <= found_value.low < 0.75 < found_value.high <= 1


def test_ages_fall_into_bands() -> None:
    found = tables(graded({"memory": [True, False, True, True]}, [0, 20, 400, 100_000]), ["memory"])
    rows = table(found, "correct", AGE).rows
    assert [(row.name, known(row.values["memory"]).value) for row in rows] == [
        ("0 s to 10 s", 1.0),
        ("10 s to 1 min", 0.0),
        ("5 min to 30 min", 1.0),
        ("2 h and more", 1.0),
    ]


def test_families_are_broken_down_and_also_by_thirds_of_their_own_ages() -> None:
    ages = [float(age) for age in range(18)]
    families = ["recall"] * 9 + ["order"] * 9
    groups = breakdowns(graded({"memory": [True] * 18}, ages, families))
    assert {name: len(members) for name, members in groups[FAMILY].items()} == {"order": 9, "recall": 9}
    assert {name: len(members) for name, members in groups[FAMILY_THIRD].items()} == {
        "order, youngest third (9-11 s)": 3,
        "order, middle third (12-14 s)": 3,
        "order, oldest third (15-17 s)": 3,
        "recall, youngest third (0-2 s)": 3,
        "recall, middle third (3-5 s)": 3,
        "recall, oldest third (6-8 s)": 3,
    }


def test_thirds_of_equal_ages_are_not_made_up() -> None:
    groups = breakdowns(graded({"memory": [True] * 12}, [0.0] * 12, ["now"] * 12))
    assert FAMILY_THIRD not in groups


def test_a_gain_is_told_only_where_its_interval_is_clear() -> None:
    right = {
        "memory": [True] * 20,
        "last4": [False] * 20,
        "uniform": [True] * 19 + [False],
        "better": [True] * 20,
    }
    found = {
        difference.control: difference
        for difference in differences(graded(right, [1.0] * 20), "memory", ["last4", "uniform"])
    }
    assert found["last4"].verdict == "memory better"
    assert found["last4"].points.value == 1.0
    assert found["uniform"].verdict == NO_DIFFERENCE
    worse = differences(graded({"memory": [False] * 20, "last4": [True] * 20}, [1.0] * 20), "memory", ["last4"])
    assert worse[0].verdict == "control better"


def test_gains_are_of_the_same_questions() -> None:
    right = {"memory": [True, False] * 10, "last4": [False, True] * 10}
    (difference, *_) = differences(graded(right, [1.0] * 20), "memory", ["last4"])
    assert difference.points.value == 0.0
    # Pairs of questions are drawn together here, and each pair's differences cancel.
    assert (difference.points.low, difference.points.high) == (0.0, 0.0)


@pytest.mark.parametrize("metric", ["exact match", "unparsed", "no answer", "proof hit by the first moment"])
def test_every_measure_is_broken_down_as_correctness_is(metric: str) -> None:
    found = tables(graded({"memory": [True] * 4}, [1, 2, 3, 400], ["a", "b", "a", "b"]), ["memory"])
    assert [one.breakdown for one in found if one.metric == metric] == [
        one.breakdown for one in found if one.metric == "correct"
    ]


def test_measures_that_no_question_has_are_left_out() -> None:
    found = tables(graded({"memory": [True]}, [1]), ["memory"])
    assert not {"choice accuracy", "position error", "time error"} & {one.metric for one in found}


def test_a_question_without_a_row_counts_as_wrong() -> None:
    asked = TimedQuestion("q", SECOND_NS, False, "What?", (), "yes")
    found = tables([GradedAnswer.of(asked, "memory", None, drawn_with=0)], ["memory"])
    assert known(table(found, "correct", ALL).rows[0].values["memory"]).value == 0.0
    assert known(table(found, "no answer", ALL).rows[0].values["memory"]).value == 1.0


def moments(*seen: tuple[float, float, float | None]) -> tuple[Moment, ...]:
    """Moments at these seconds, with these weights and relevances."""
    return tuple(Moment(round(at * SECOND_NS), 0, 0, weight, relevance=relevance) for at, weight, relevance in seen)


def with_proof(*proof_s: tuple[float, float]) -> TimedQuestion:
    proof_ns = tuple((round(start * SECOND_NS), round(end * SECOND_NS)) for start, end in proof_s)
    return TimedQuestion("q", 100 * SECOND_NS, False, "What?", proof_ns=proof_ns)


def test_moments_are_ranked_by_weight_where_they_are_not_by_relevance() -> None:
    asked = with_proof((10, 20))
    by_weight = moments((50, 9, None), (15, 5, None), (30, 7, None), (5, 1, None))
    assert [missed_s(asked, by_weight, top) for top in (1, 2, 3, None)] == [30, 10, 0, 0]
    by_relevance = moments((50, 9, 0.1), (15, 5, 0.9), (30, 7, 0.5))
    assert missed_s(asked, by_relevance, 1) == 0


def test_a_miss_is_counted_to_the_nearest_end_of_a_proof() -> None:
    asked = with_proof((10, 20), (60, 70))
    assert missed_s(asked, moments((23, 1, None)), 1) == 3
    assert missed_s(asked, moments((55, 1, None)), 1) == 5


def test_without_proofs_or_moments_nothing_is_missed() -> None:
    assert missed_s(with_proof(), moments((1, 1, None)), 1) is None
    assert missed_s(with_proof((10, 20)), moments(), 1) is None
