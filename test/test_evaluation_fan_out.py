from __future__ import annotations

import pytest
from fakes import SECOND_NS, FakeModel, frame

from fvs_ros.evaluation.fan_out import FanOutModel
from fvs_ros.evaluation.stream_run import RunOptions, StreamQuestion, StreamRun
from fvs_ros.evaluation.views import MEMORY, View

VIEWS = tuple(View.parse(name) for name in ("memory", "last4", "uniform", "question-only", "csm-only", "dam-only"))


class WatchedModel(FakeModel):
    """Notes what it is shown, and with which prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[object] = []
        self.prefixes: list[str] = []

    def answer(self, snapshot, question, *, answer_prefix="", **options):
        self.shown.append(snapshot)
        self.prefixes.append(answer_prefix)
        return super().answer(snapshot, question, **options)


def test_all_questions_at_a_moment_are_shown_one_and_the_same_object():
    """What a model computed of a memory, it keeps for the next question by the memory's identity."""
    model = WatchedModel()
    asked = [StreamQuestion(f"{second} {place}", second * SECOND_NS, "What?") for second in (9, 19) for place in (1, 2)]
    list(StreamRun(model, RunOptions(views=VIEWS)).replies([frame(second) for second in range(20)], asked))
    pairs = list(zip(model.shown[::2], model.shown[1::2], strict=True))
    assert len(pairs) == 2 * len(VIEWS)
    assert all(first is second for first, second in pairs)
    assert len({id(first) for first, _ in pairs}) == len(pairs)


def test_a_prefix_reaches_the_model_with_its_question_alone():
    model = WatchedModel()
    asked = [
        StreamQuestion("a", SECOND_NS, "Which?", answer_prefix="Best option: ("),
        StreamQuestion("b", SECOND_NS, "What?"),
    ]
    list(StreamRun(model, RunOptions()).replies([frame(0), frame(1)], asked))
    assert model.prefixes == ["Best option: (", ""]


def test_it_is_the_model_in_everything_else():
    model = FakeModel()
    fan_out = FanOutModel(model, VIEWS)
    assert (fan_out.name, fan_out.memory_config, fan_out.view) == (model.name, model.memory_config, MEMORY)
    assert fan_out.control_tokens_in("<|im_end|>") == ["<|im_end|>"]
    assert fan_out.shown is None


def test_a_view_that_the_memory_cannot_hold_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match="choose last16 or less"):
        FanOutModel(FakeModel(), [View.parse("last18")])
