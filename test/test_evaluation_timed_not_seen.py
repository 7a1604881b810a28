"""How often answers say "not seen", by length of the stream and age of the evidence."""

from __future__ import annotations

import io

from rich.console import Console

from fvs_ros.evaluation.answers import AnswerRow
from fvs_ros.evaluation.questions import TimedQuestion
from fvs_ros.evaluation.timed.breakdowns import AGE, SAYS_MISSING, SAYS_THERE, graded_answers
from fvs_ros.evaluation.timed.console import print_evaluation
from fvs_ros.evaluation.timed.not_seen import LENGTH, not_seen_by_length
from fvs_ros.evaluation.timed.report import evaluation_report
from fvs_ros.patrol.templates import NOT_SEEN
from fvs_ros.sources.frame import SECOND_NS

BEGAN_S = 1000


def question(name: str, at_s: float, proof_s: tuple[float, float], answer: str) -> TimedQuestion:
    proof_ns = tuple(round((BEGAN_S + second) * SECOND_NS) for second in proof_s)
    return TimedQuestion(
        name, round((BEGAN_S + at_s) * SECOND_NS), False, name, answer=answer, proof_ns=((proof_ns[0], proof_ns[1]),)
    )


QUESTIONS = [
    # What was nowhere is proven by the whole stream.
    question("early", 100, (0, 100), NOT_SEEN),
    question("late", 1000, (0, 1000), NOT_SEEN),
    question("later", 1100, (0, 1100), NOT_SEEN),
    question("there, new", 1000, (990, 995), "red"),
    question("there, old", 1000, (20, 30), "red"),
]
SAID = {"early": True, "late": True, "later": False, "there, new": False, "there, old": True}


def test_shares_are_given_by_length_and_by_age() -> None:
    rows = {
        one.id: AnswerRow(
            one.id, one.question, one.answer_text, NOT_SEEN if SAID[one.id] else "red", not_seen=SAID[one.id]
        )
        for one in QUESTIONS
    }
    graded = graded_answers([(one, "a patrol") for one in QUESTIONS], {"memory": rows})
    missing, there = not_seen_by_length(graded, ["memory"])
    assert (missing.metric, there.metric) == (SAYS_MISSING.name, SAYS_THERE.name)
    shares = {}
    for table in (missing, there):
        for row in table.rows:
            value = row.values["memory"]
            shares[table.metric, row.name] = None if value is None else (value.value, value.count)
    assert shares == {
        (SAYS_MISSING.name, "1 min to 5 min"): (1.0, 1),
        (SAYS_MISSING.name, "5 min to 30 min"): (0.5, 2),
        (SAYS_THERE.name, "1 min to 5 min"): None,
        (SAYS_THERE.name, "5 min to 30 min"): (0.5, 2),
    }
    report = evaluation_report("patrols", {}, graded, ["memory"], "episodes", {})
    assert report.table(SAYS_THERE.name, LENGTH) == there
    assert report.table(SAYS_THERE.name, AGE) is not None
    shown = io.StringIO()
    print_evaluation(report, (), Console(file=shown, width=80))
    lines = [line.split() for line in shown.getvalue().splitlines()]
    assert ["length", "5", "min", "to", "30", "min", "2", "50.0", "2", "50.0"] in [
        [cell for cell in line if not cell.startswith(("[", "("))] for line in lines
    ], shown.getvalue()


def test_answers_that_do_not_say_whether_they_saw_it_are_in_no_table() -> None:
    rows = {one.id: AnswerRow(one.id, one.question, one.answer_text, "red") for one in QUESTIONS}
    graded = graded_answers([(one, "a patrol") for one in QUESTIONS], {"guess": rows})
    assert not_seen_by_length(graded, ["guess"]) == []
    shown = io.StringIO()
    print_evaluation(evaluation_report("patrols", {}, graded, ["guess"], "episodes", {}), (), Console(file=shown))
    assert 'says "not seen"' not in shown.getvalue()
