import logging
import os
import threading
from typing import Any

import pytest
from engines import MakeEngine, failure, feed, result
from fakes import PATIENCE_S, SECOND_NS, FakeModel, Gate, frame, pose_at

from fvs_ros.sources.frame import Frame
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.questions import PendingAnswer
from fvs_ros.stream.types import AskError, AskOptions, ErrorCode


def test_an_answer_tells_what_it_was_given_from(engine: StreamEngine) -> None:
    feed(engine, *[frame(second) for second in range(1, 6)])
    pieces: list[str] = []
    answer = result(engine.ask("What?", on_token=pieces.append))
    assert answer.text == "".join(pieces) == "3 steps: 1.5 3.5 5"
    assert (answer.start_ns, answer.end_ns, answer.steps) == (SECOND_NS, 5 * SECOND_NS, 3)
    assert answer.memory_version == engine.status.version
    assert answer.model_name == "fake"
    assert (answer.confidence, answer.calibrated, answer.not_seen) == (0.75, True, True)
    assert 0 < answer.first_token_s <= answer.total_s
    statistics = engine.statistics
    assert statistics.ingest_s > 0
    assert (statistics.questions, statistics.answers, statistics.last_answer_s) == (1, 1, answer.total_s)


def test_all_moments_are_in_time_order_with_frame_and_pose(engine: StreamEngine) -> None:
    # More steps than slots. Their colours differ, since among equal ones a keyframe may stand for another's cluster.
    frames = [
        frame(second, value=5 * second, frame_id=f"camera{second}", pose=lambda x=second: pose_at(x))
        for second in range(1, 51)
    ]
    frames.append(frame(51, value=255, frame_id="camera51"))
    feed(engine, *frames)
    answer = result(engine.ask("What?"))
    moments = answer.all_moments
    assert len(moments) >= engine.status.csm_slots
    assert len(answer.moments) == StreamConfig().moments_limit
    assert set(answer.moments) <= set(moments)
    assert [moment.stamp_ns for moment in moments] == sorted(moment.stamp_ns for moment in moments)
    for moment in moments:
        second = moment.stamp_ns // SECOND_NS
        assert second % 2 == 1, "keyframes are stamped by the first frame of their step"
        assert moment.frame_id == f"camera{second}"
        assert moment.pose == (pose_at(second) if second < 51 else None)
        assert moment.start_ns <= moment.stamp_ns <= moment.end_ns
        assert moment.weight >= 1
        assert moment.relevance is None


def test_the_provisional_step_is_a_moment_with_its_own_pose(engine: StreamEngine) -> None:
    feed(engine, frame(1), frame(2), frame(3, frame_id="camera", pose=lambda: pose_at(3)))
    newest = result(engine.ask("What?")).moments[-1]
    assert (newest.stamp_ns, newest.end_ns) == (3 * SECOND_NS, 3 * SECOND_NS)
    assert (newest.frame_id, newest.pose) == ("camera", pose_at(3))


def test_a_pose_look_up_that_fails_costs_only_the_pose(engine: StreamEngine) -> None:
    def fails() -> None:
        raise LookupError("no transform")

    feed(engine, frame(1, pose=fails))
    assert result(engine.ask("What?")).moments[0].pose is None
    assert engine.statistics.ingested == 1


def test_ingest_goes_on_during_an_answer_and_does_not_change_what_it_reads(
    engine: StreamEngine, model: FakeModel
) -> None:
    feed(engine, frame(1), frame(2))
    model.answering.shut()
    pending = engine.ask("What?")
    model.answering.wait_reached()
    feed(engine, *[frame(second) for second in range(3, 60)])
    assert engine.status.steps == 30
    assert not pending.done()
    model.answering.open()
    answer = result(pending)
    assert (answer.text, answer.steps) == ("1 steps: 1.5", 1)
    assert len(answer.moments) == 1
    assert result(engine.ask("What?")).steps == 30


def test_answers_are_given_while_a_batch_is_being_encoded(engine: StreamEngine, model: FakeModel) -> None:
    feed(engine, frame(1))
    model.encoding.shut()
    engine.submit(frame(2))
    model.encoding.wait_reached()
    assert result(engine.ask("What?")).text == "1 steps: 1"
    assert not engine.flush(timeout_s=0.0)


def test_a_fresh_question_waits_for_the_frames_before_it_and_no_others(make_engine: MakeEngine) -> None:
    engine = make_engine()
    gates = [Gate() for _ in range(3)]

    def gated(index: int) -> Frame:
        original = frame(index)

        def image() -> Any:
            gates[index].go_through()
            return original.image()

        gates[index].shut()
        return Frame(original.stamp_ns, image)

    engine.submit(gated(0))
    fresh = engine.ask("What?", AskOptions(fresh=True))
    gates[0].wait_reached()
    engine.submit(gated(1))
    engine.submit(gated(2))
    assert failure(engine.ask("What?")).code == ErrorCode.NO_FRAMES, "a fresh question holds up no other"
    assert not fresh.done()
    gates[0].open()
    assert result(fresh).end_ns == 0
    for gate in gates:
        gate.open()


def test_a_fresh_question_answers_from_the_provisional_step(engine: StreamEngine) -> None:
    engine.submit(frame(4))
    assert result(engine.ask("What?", AskOptions(fresh=True))).text == "1 steps: 4"


@pytest.mark.parametrize(
    ("question", "options", "words"),
    [
        ("", AskOptions(), "empty"),
        (" \n", AskOptions(), "empty"),
        ("x" * 2001, AskOptions(), "2001 characters.*2000"),
        # Its length first: the other checks read all of it.
        ("\udcff" * 10_000_000, AskOptions(), "10000000 characters.*2000"),
        ("Hello<|im_end|>", AskOptions(), r"<\|im_end\|>"),
        ("What \ud83d?", AskOptions(), r"character 6 is '\\ud83d'"),
        (os.fsdecode(b"What\xff?"), AskOptions(), r"character 5 is '\\udcff'"),
        ("What\ufffd?", AskOptions(), r"character 5 is '\\ufffd'"),
        ("What?", AskOptions(max_new_tokens=0), "max_new_tokens is 0"),
        ("What?", AskOptions(max_new_tokens=1025), "1025.*1024"),
        ("What?", AskOptions(timeout_s=float("nan")), "timeout_s is nan"),
        ("What?", AskOptions(timeout_s=-1.0), "timeout_s is -1"),
        ("What?", AskOptions(timeout_s=float("inf")), "timeout_s is inf"),
    ],
)
def test_an_invalid_question_is_told_what_is_wrong(
    engine: StreamEngine, question: str, options: AskOptions, words: str
) -> None:
    feed(engine, frame(1))
    pending = engine.ask(question, options)
    assert pending.done()
    with pytest.raises(AskError, match=words) as caught:
        pending.result(0)
    assert caught.value.code == ErrorCode.INVALID_QUESTION
    assert engine.statistics.failed == {"INVALID_QUESTION": 1}


def test_without_frames_there_is_no_answer(engine: StreamEngine) -> None:
    assert failure(engine.ask("What?")).code == ErrorCode.NO_FRAMES


def test_questions_beyond_the_queue_are_refused_as_busy(make_engine: MakeEngine, model: FakeModel) -> None:
    engine = make_engine(question_queue=2, parallel_questions=1)
    feed(engine, frame(1))
    model.answering.shut()
    running = engine.ask("What?")
    model.answering.wait_reached()
    waiting = [engine.ask("What?") for _ in range(2)]
    assert failure(engine.ask("What?")).code == ErrorCode.BUSY
    waiting.pop().cancel()
    waiting.append(engine.ask("What?"))
    model.answering.open()
    assert {result(pending).text for pending in [running, *waiting]} == {"1 steps: 1"}
    assert engine.statistics.failed == {"BUSY": 1, "CANCELLED": 1}
    assert (engine.statistics.questions, engine.statistics.answers) == (5, 3)


def test_many_questions_wait_within_their_timeouts_without_a_thread_each(
    make_engine: MakeEngine, model: FakeModel
) -> None:
    engine = make_engine(parallel_questions=1)
    feed(engine, frame(1))
    model.answering.shut()
    running = engine.ask("What?")
    model.answering.wait_reached()
    threads = threading.active_count()
    short = [engine.ask("What?", AskOptions(timeout_s=0.05)) for _ in range(56)]
    waiting = [engine.ask("What?") for _ in range(200)]
    assert threading.active_count() == threads
    assert {failure(pending).code for pending in short} == {ErrorCode.TIMEOUT}
    model.answering.open()
    assert {result(pending).text for pending in [running, *waiting]} == {"1 steps: 1"}
    assert (engine.statistics.answers, engine.statistics.failed) == (201, {"TIMEOUT": 56})


def test_a_cancel_ends_the_question_at_once_even_while_the_model_is_stuck(
    engine: StreamEngine, model: FakeModel
) -> None:
    feed(engine, *[frame(second) for second in range(1, 9)])
    model.answering.shut()
    pieces: list[str] = []
    settled: list[PendingAnswer] = []
    pending = engine.ask("What?", on_token=pieces.append)
    pending.add_done_callback(settled.append)
    model.answering.wait_reached()
    assert pending.cancel()
    assert settled == [pending], "before `cancel` returns, and before the model does"
    with pytest.raises(AskError) as caught:
        pending.result(0)
    assert caught.value.code == ErrorCode.CANCELLED
    assert not pending.cancel(), "only once"
    model.answering.open()
    assert result(engine.ask("What?")).steps == 4, "the worker is free again"
    assert pieces == [], "no token after the cancel"


def test_a_question_cancelled_in_the_queue_leaves_it_at_once(make_engine: MakeEngine, model: FakeModel) -> None:
    engine = make_engine(question_queue=1, parallel_questions=1)
    feed(engine, frame(1))
    model.answering.shut()
    running = engine.ask("What?")
    model.answering.wait_reached()
    engine.ask("Cancelled?").cancel()
    waiting = engine.ask("Next?")
    model.answering.open()
    assert [result(running).text, result(waiting).text] == ["1 steps: 1"] * 2
    assert [question for _, question, _ in model.asked] == ["What?", "Next?"]


def test_a_question_cancelled_after_it_was_taken_and_before_its_answer_starts_never_reaches_the_model(
    engine: StreamEngine, model: FakeModel
) -> None:
    feed(engine, frame(1))
    model.prefilling.shut()
    pieces: list[str] = []
    cancelled = engine.ask("Cancelled?", on_token=pieces.append)
    model.prefilling.wait_reached()
    kept = engine.ask("Kept?")
    assert cancelled.cancel()
    model.prefilling.open()
    assert result(kept).text == "1 steps: 1"
    assert [question for _, question, _ in model.asked] == ["Kept?"]
    assert pieces == []
    assert engine.statistics.failed == {"CANCELLED": 1}


def test_a_cancelled_answer_stops_at_the_next_token(engine: StreamEngine, model: FakeModel) -> None:
    feed(engine, *[frame(second) for second in range(1, 9)])
    pieces: list[str] = []
    ready = threading.Event()

    def cancel_at_second(piece: str) -> None:
        assert ready.wait(PATIENCE_S)
        pieces.append(piece)
        if len(pieces) == 2:
            pending.cancel()

    pending = engine.ask("What?", on_token=cancel_at_second)
    ready.set()
    assert failure(pending).code == ErrorCode.CANCELLED
    assert result(engine.ask("What?")).steps == 4
    assert len(pieces) == 2
    assert len(model.pieces) == 2 + 5, "the model did not go on in vain"


def test_tokens_that_come_after_a_cancel_are_not_passed_on(engine: StreamEngine, model: FakeModel) -> None:
    feed(engine, frame(1))
    model.answering.shut()
    pieces: list[str] = []
    pending = engine.ask("What?", on_token=pieces.append)
    model.answering.wait_reached()
    pending.cancel()
    model.answering.open()
    result(engine.ask("What?"))
    assert pieces == []


def test_a_timeout_is_honoured_in_every_phase(engine: StreamEngine, model: FakeModel) -> None:
    feed(engine, frame(1))
    model.answering.shut()
    running = engine.ask("What?", AskOptions(timeout_s=0.5))
    model.answering.wait_reached()
    waiting = engine.ask("What?", AskOptions(timeout_s=0.05))
    model.encoding.shut()
    engine.submit(frame(2))
    fresh = engine.ask("What?", AskOptions(timeout_s=0.05, fresh=True))
    for pending, words in ((running, "had begun"), (waiting, "its turn;"), (fresh, "being fresh")):
        error = failure(pending)
        assert error.code == ErrorCode.TIMEOUT
        assert words in str(error)
    model.encoding.open()
    model.answering.open()
    assert result(engine.ask("What?", AskOptions(fresh=True))).text == "1 steps: 1.5"


def test_a_model_that_fails_is_reported_and_the_next_question_answered(
    engine: StreamEngine, model: FakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    feed(engine, frame(1))
    model.answer_error = ValueError("bad shape")
    error = failure(engine.ask("What?"))
    assert error.code == ErrorCode.MODEL_ERROR
    assert "ValueError: bad shape" in str(error)
    assert "Traceback" in caplog.text
    model.answer_error = None
    assert result(engine.ask("What?")).text == "1 steps: 1"


def test_a_callback_that_fails_spoils_nothing(make_engine: MakeEngine) -> None:
    def fails(argument: object) -> None:
        raise RuntimeError("not mine")

    engine = make_engine(fails)
    feed(engine, frame(1), frame(2))
    assert result(engine.ask("What?", on_token=fails)).text == "1 steps: 1.5"


def test_waiting_for_a_result_can_be_given_up_without_ending_the_question(
    engine: StreamEngine, model: FakeModel
) -> None:
    feed(engine, frame(1))
    model.answering.shut()
    pending = engine.ask("What?")
    with pytest.raises(TimeoutError, match="goes on"):
        pending.result(0.01)
    model.answering.open()
    assert result(pending).text == "1 steps: 1"
    called: list[PendingAnswer] = []
    pending.add_done_callback(called.append)
    assert called == [pending], "at once if it is there already"


def test_a_model_that_quotes_questions_tells_them_to_nobody_else(
    make_engine: MakeEngine, model: FakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine = make_engine(parallel_questions=2)
    feed(engine, *[frame(second) for second in range(1, 13)])
    mine, other = "Where is SECRET-4711?", "And who is PRIVATE-0815?"

    def fail_from_now_on(_: str) -> None:
        model.answer_error = ValueError(f"no such token in {mine!r}")

    model.answering.shut()
    pending = [engine.ask(mine), engine.ask(other, on_token=fail_from_now_on)]
    model.answering.wait_reached()
    model.answering.open()
    assert f"ValueError: no such token in {mine!r}" in str(failure(pending[0]))
    assert "SECRET" not in str(failure(pending[1]))
    model.answer_error = None
    model.check_error = KeyError(mine)
    assert "SECRET" in str(failure(engine.ask(mine)))
    assert "the model failed on a question" in caplog.text
    assert "the model failed to check a question" in caplog.text
    assert "test_stream_answering.py" not in caplog.text
    assert "fakes.py" in caplog.text
    assert "SECRET" not in caplog.text
    caplog.set_level(logging.DEBUG)
    failure(engine.ask(mine))
    assert "SECRET" in caplog.text
