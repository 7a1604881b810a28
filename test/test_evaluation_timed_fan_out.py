from __future__ import annotations

import pytest
from fakes import SECOND_NS, FakeModel, frame

from fvs_ros.evaluation.timed.controls import MEMORY, Condition
from fvs_ros.evaluation.timed.fan_out import ConditionModel
from fvs_ros.evaluation.timed.stream_run import RunOptions, StreamQuestion, StreamRun

VIEWS = tuple(Condition.parse(name) for name in ("memory", "last4", "uniform", "question-only", "csm-only", "dam-only"))


def test_each_view_of_a_moment_is_read_once_for_all_its_questions() -> None:
    model = FakeModel()
    asked = [StreamQuestion(f"{second} {place}", second * SECOND_NS, "What?") for second in (9, 19) for place in (1, 2)]
    list(StreamRun(model, RunOptions(conditions=VIEWS)).replies([frame(second) for second in range(20)], asked))
    shown = [snapshot for snapshot, _, _ in model.asked]
    pairs = list(zip(shown[::2], shown[1::2], strict=True))
    assert len(pairs) == 2 * len(VIEWS)
    assert all(first is second for first, second in pairs)
    assert len({id(first) for first, _ in pairs}) == len(pairs)
    assert len([kind for kind, _ in model.work if kind == "prefill"]) == len(pairs) * model.chunks_of_a_memory


def test_a_prefix_reaches_the_model_with_its_question_alone() -> None:
    model = FakeModel()
    asked = [
        StreamQuestion("a", SECOND_NS, "Which?", answer_prefix="Best option: ("),
        StreamQuestion("b", SECOND_NS, "What?"),
    ]
    list(StreamRun(model, RunOptions()).replies([frame(0), frame(1)], asked))
    assert [prefix for _, _, prefix in model.asked] == ["Best option: (", ""]


def test_it_is_the_model_in_everything_else() -> None:
    model = FakeModel()
    fan_out = ConditionModel(model, VIEWS)
    assert (fan_out.name, fan_out.memory_config, fan_out.condition) == (model.name, model.memory_config, MEMORY)
    assert fan_out.control_tokens_in("<|im_end|>") == ["<|im_end|>"]
    assert fan_out.condition_check("it rains").questions == ("Is it true that it rains?",)
    assert fan_out.shown is None


def test_a_view_that_the_memory_cannot_hold_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="choose last16 or less"):
        ConditionModel(FakeModel(), [Condition.parse("last18")])
