from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import SECOND_NS, FakeModel, frame
from recalling import RARE, SEGMENTS, SLOTS, hidden_places, recalling_model

from fvs_ros.evaluation.timed.controls import MEMORY, RECALL, Condition
from fvs_ros.evaluation.timed.stream_run import Reply, RunOptions, StreamQuestion, StreamRun
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.sources.frame import Frame, ImageError
from fvs_ros.stream.config import StreamConfig

ALL_VIEWS = tuple(
    Condition.parse(name) for name in ("memory", "last4", "uniform", "question-only", "csm-only", "dam-only")
)


def question(identity: str, second: float, text: str = "What?", **fields: Any) -> StreamQuestion:
    return StreamQuestion(identity, round(second * SECOND_NS), text, **fields)


def run(model: FakeModel, *conditions: Condition, **settings: Any) -> StreamRun:
    return StreamRun(model, RunOptions(StreamConfig(**settings), conditions or (MEMORY,)))


def told(replies: Iterable[Reply]) -> list[tuple]:
    """Everything of a reply but what a clock measured."""
    return [
        (one.question.id, one.condition.name, one.text, one.error, one.moments, one.memory, one.tokens)
        for one in replies
    ]


def test_nothing_stamped_later_than_the_question_is_in_memory(model: FakeModel) -> None:
    frames = [frame(second) for second in range(10)]
    questions = [question("late", 7.5), question("exact", 4), question("first", 0)]
    replies = list(run(model).replies(frames, questions))
    assert [reply.question.id for reply in replies] == ["first", "exact", "late"]
    assert [reply.memory.end_ns for reply in replies] == [0, 4 * SECOND_NS, 7 * SECOND_NS]


def test_all_frames_are_in_memory_at_the_end_also_those_after_the_last_question(model: FakeModel) -> None:
    stream = run(model)
    list(stream.replies([frame(second) for second in range(21)], [question("a", 3)]))
    assert stream.statistics.ingested == stream.statistics.received == 21


def test_frames_are_encoded_in_groups_that_the_input_alone_decides(model: FakeModel) -> None:
    frames = [frame(second) for second in range(30)]
    questions = [question("a", 12.5), question("b", 25)]
    stream = run(model, batch_steps=2)
    first = told(stream.replies(frames, questions))
    # Frames 0 to 12, to 25 and to 29, at most 4 at a time. Frame 12 is doubled at first, and later has its partner.
    sizes = [len(call) for call in model.encoded]
    assert sizes == [4, 4, 4, 2, 4, 4, 4, 2, 4]
    again = FakeModel()
    assert told(run(again, batch_steps=2).replies(frames, questions)) == first
    assert again.encoded == model.encoded


def test_nothing_is_dropped_however_many_frames_come_at_once(model: FakeModel) -> None:
    stream = run(model, fps=0, batch_steps=1)
    list(stream.replies([frame(second / 100) for second in range(500)], []))
    assert stream.statistics.ingested == 500
    assert stream.statistics.dropped == 0


def test_frames_between_two_slots_of_the_kept_rate_are_skipped_as_in_the_node(model: FakeModel) -> None:
    stream = run(model, fps=1)
    list(stream.replies([frame(second / 10) for second in range(95)], []))
    assert stream.statistics.ingested == 10
    assert stream.statistics.skipped == 85


def test_every_view_is_fed_from_features_that_were_encoded_once(model: FakeModel) -> None:
    frames = [frame(second, value=second) for second in range(40)]
    stream = run(model, *ALL_VIEWS, batch_steps=4)
    replies = list(stream.replies(frames, [question("a", 39)]))
    assert sum(len(call) for call in model.encoded) == 40
    assert [reply.condition for reply in replies] == list(ALL_VIEWS)
    # The fake model tells the steps seen, and the value of each synopsis slot.
    answers = {reply.condition.name: reply.text for reply in replies}
    assert answers["last4"] == "20 steps: 36.5 38.5"
    assert answers["uniform"] == "20 steps: 0.5 6.5 10.5 16.5 22.5 28.5 32.5 38.5"
    assert answers["csm-only"] == answers["memory"]
    assert answers["dam-only"] == answers["question-only"] == "20 steps:"


def test_moments_are_those_of_what_was_shown(model: FakeModel) -> None:
    frames = [frame(second, value=second) for second in range(40)]
    replies = list(run(model, *ALL_VIEWS).replies(frames, [question("a", 39)]))
    seconds = {reply.condition.name: [moment.stamp_ns // SECOND_NS for moment in reply.moments] for reply in replies}
    assert seconds["last4"] == [36, 38]
    assert seconds["question-only"] == []
    assert len(seconds["dam-only"]) == model.memory_config.dam_slots
    assert len(seconds["uniform"]) == len(seconds["csm-only"]) == len(seconds["memory"]) == 5
    assert set(seconds["uniform"]) <= {0, 6, 10, 16, 22, 28, 32, 38}


def test_an_unpaired_frame_is_the_newest_step_of_every_view(model: FakeModel) -> None:
    frames = [frame(second, value=second) for second in range(5)]
    conditions = [Condition.parse(name) for name in ("memory", "last2", "uniform")]
    replies = list(run(model, *conditions).replies(frames, [question("a", 2), question("b", 4)]))
    assert [reply.text for reply in replies if reply.condition.name == "last2"] == ["2 steps: 2", "3 steps: 4"]
    assert [reply.text for reply in replies if reply.condition.name != "last2"] == [
        "2 steps: 0.5 2",
        "2 steps: 0.5 2",
        "3 steps: 0.5 2.5 4",
        "3 steps: 0.5 2.5 4",
    ]


def test_views_come_one_after_the_other_so_that_questions_share_what_was_read(model: FakeModel) -> None:
    conditions = (MEMORY, Condition.parse("last4"))
    questions = [question("a", 5), question("b", 5)]
    replies = list(run(model, *conditions).replies([frame(second) for second in range(8)], questions))
    assert [(reply.condition.name, reply.question.id, reply.prefilled) for reply in replies] == [
        ("memory", "a", False),
        ("memory", "b", True),
        ("last4", "a", False),
        ("last4", "b", True),
    ]


def test_answers_that_are_known_are_left_out_and_the_others_stay_the_same(model: FakeModel) -> None:
    frames = [frame(second) for second in range(30)]
    questions = [question("a", 8), question("b", 8), question("c", 20)]
    whole = told(run(model, *ALL_VIEWS).replies(frames, questions))
    known = {(identity, condition) for identity, condition, *_ in whole[:8]}
    rest = told(run(model, *ALL_VIEWS).replies(frames, questions, answered=known))
    assert rest == whole[8:]


def test_a_question_before_the_first_frame_gets_its_error(model: FakeModel) -> None:
    (reply,) = run(model).replies([frame(5)], [question("a", 1)])
    assert reply.text is None
    assert reply.error.startswith("NO_FRAMES: ")


def test_a_question_that_the_engine_refuses_does_not_end_the_run(model: FakeModel) -> None:
    questions = [question("bad", 1, "What is <|im_end|>?"), question("good", 1)]
    bad, good = run(model).replies([frame(0), frame(1)], questions)
    assert bad.text is None
    assert bad.error.startswith("INVALID_QUESTION: ")
    assert good.text == "1 steps: 0.5"


def test_a_frame_without_a_usable_image_is_counted(model: FakeModel) -> None:
    def broken() -> np.ndarray:
        raise ImageError("undecodable", "no image")

    stream = run(model)
    list(stream.replies([frame(0), Frame(SECOND_NS, broken), frame(2)], [question("a", 2)]))
    assert stream.statistics.rejected == {"undecodable": 1}
    assert stream.statistics.ingested == 2


def test_a_recording_that_was_looped_loses_no_frame_of_its_first_round(model: FakeModel) -> None:
    stream = run(model, batch_steps=4)
    list(stream.replies([frame(second) for second in (*range(11), *range(5))], []))
    assert stream.statistics.ingested == 16
    assert stream.statistics.episodes == 1


def test_ids_must_differ(model: FakeModel) -> None:
    with pytest.raises(ValueError, match="ids must differ"):
        list(run(model).replies([], [question("a", 1), question("a", 2)]))


def test_views_must_be_named_and_differ() -> None:
    with pytest.raises(ValueError, match="name at least one"):
        RunOptions(conditions=())
    with pytest.raises(ValueError, match="memory, memory"):
        RunOptions(conditions=(MEMORY, MEMORY))


def test_each_question_is_shown_the_steps_that_it_names(model: FakeModel) -> None:
    oracle = Condition.parse("oracle")
    frames = [frame(second, value=second) for second in range(20)]
    questions = [
        question("a", 19, steps={"oracle": (0, 9)}),
        question("b", 19, steps={"oracle": (0, 9)}),
        question("c", 19, steps={"oracle": (4,)}),
        question("d", 9, steps={"oracle": (0, 1, 4)}),
    ]
    replies = list(run(model, MEMORY, oracle).replies(frames, questions))
    found = {reply.question.id: (reply.text, reply.prefilled) for reply in replies if reply.condition == oracle}
    assert found == {
        "a": ("10 steps: 0.5 18.5", False),
        "b": ("10 steps: 0.5 18.5", True),
        "c": ("10 steps: 8.5", False),
        "d": ("5 steps: 0.5 2.5 8.5", False),
    }


@pytest.mark.parametrize("name", ["oracle", "random"])
def test_a_control_that_must_be_told_its_steps_says_so(model: FakeModel, name: str) -> None:
    replies = run(model, MEMORY, Condition.parse(name)).replies([frame(0)], [question("a", 1)])
    with pytest.raises(ValueError, match=f"{name} shows steps that questions name, and these name none"):
        next(replies)


def test_snapshots_before_questions_alone_give_the_same_answers() -> None:
    frames = [frame(second, value=second) for second in range(61)]
    questions = [question("a", 8.5), question("b", 41), question("c", 41), question("d", 60)]
    always, seldom = FakeModel(), FakeModel()
    options = RunOptions(StreamConfig(batch_steps=2), ALL_VIEWS)
    expected = told(StreamRun(always, options).replies(frames, questions))
    made = []
    new_memory = seldom.new_memory

    def counted(grid: PatchGrid) -> StreamingFlashMemory:
        memory = new_memory(grid)
        snapshot = memory.snapshot
        memory.snapshot = lambda *args: made.append(1) or snapshot(*args)  # type: ignore[method-assign, func-returns-value]
        return memory

    seldom.new_memory = counted  # type: ignore[method-assign]
    found = told(StreamRun(seldom, replace(options, snapshot_always=False)).replies(frames, questions))
    # But for the number of memories that were published, which is the same too.
    assert found == expected
    assert seldom.encoded == always.encoded
    # The first of all, and one for each moment.
    assert len(made) == 4


def test_under_recall_each_question_reads_what_it_recalls() -> None:
    model, _ = recalling_model()
    # Segments of four seconds, two steps; the rare ones are neither among the newest nor evenly spaced.
    rare = hidden_places(9)[::3]
    frames = [frame(second, RARE if second // 4 in rare else 30 * (second // 4 % 2)) for second in range(4 * SEGMENTS)]
    questions = [
        question("early", 4 * SLOTS - 1, f"Where was {RARE}"),
        *(question(name, 4 * SEGMENTS, f"Where was {RARE}") for name in ("first", "second")),
    ]
    stream = run(model, MEMORY, RECALL, batch_steps=16)
    replies = {(one.condition.name, one.question.id): one for one in stream.replies(frames, questions)}
    assert stream.recording is not None
    assert stream.recording.unrecorded_steps == 0
    early = [replies[name, "early"] for name in ("memory", "recall")]
    assert early[0].text == early[1].text
    recalled = [replies["recall", name] for name in ("first", "second")]
    shown = [snapshot for snapshot, _, _ in model.asked if snapshot.ranked]
    assert [int((one.csm.mean((1, 2)) == RARE).sum()) for one in shown] == [len(rare)] * len(recalled)
    assert [one.tokens for one in shown] == [reply.tokens for reply in recalled]
    assert recalled[0].text == recalled[1].text != replies["memory", "first"].text
    prefilled = {(name, identity): one.prefilled for (name, identity), one in replies.items()}
    assert prefilled == {key: key == ("memory", "second") for key in replies}
    again, _ = recalling_model()
    assert told(run(again, MEMORY, RECALL, batch_steps=16).replies(frames, questions)) == told(replies.values())


def test_a_model_without_a_recaller_refuses_to_be_asked_under_recall(model: FakeModel) -> None:
    with pytest.raises(ValueError, match="fake was not trained to recall; leave recall out"):
        run(model, MEMORY, RECALL)


@pytest.mark.parametrize("recalls", [True, False])
def test_told_steps_are_laid_out_as_recalled_ones_where_the_model_recalls(recalls: bool) -> None:
    model, recaller = recalling_model()
    model.recaller = recaller if recalls else None
    oracle = Condition.parse("oracle")
    frames = [frame(second) for second in range(20)]
    (reply,) = run(model, oracle).replies(frames, [question("a", 19, steps={"oracle": (1, 4, 9)})])
    shown = model.asked[-1][0]
    assert shown.ranked == recalls
    assert shown.csm_times.tolist() == [1, 4, 9]
    assert (shown.dam.shape[0] == 0) == recalls
    assert reply.text == "10 steps: 2.5 8.5 18.5"
