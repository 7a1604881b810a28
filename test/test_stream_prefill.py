import threading
import time
from collections.abc import Callable

import pytest
from engines import MakeEngine, failure, feed, result
from fakes import PATIENCE_S, SECOND_NS, FakeModel, frame

from fvs_ros.memory.snapshot import MemorySnapshot
from fvs_ros.stream import prefill
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.latest_memory import LatestMemory, PublishedMemory
from fvs_ros.stream.prefill import PrefillScheduler
from fvs_ros.stream.types import AskOptions, ErrorCode, MemoryStatus
from fvs_ros.stream.watchdog import ModelCalls


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


@pytest.fixture
def prefilled_engine(make_engine: MakeEngine) -> StreamEngine:
    """An engine that prefills without pause, with two frames in memory and prefilled."""
    engine = make_engine(prefill_share=1.0)
    feed(engine, frame(1), frame(2))
    wait_prefilled(engine)
    return engine


def wait_prefilled(engine: StreamEngine) -> None:
    """Until questions are answered from the newest memory without asking for it."""
    wait_for(lambda: result(engine.ask("What?")).memory_version == engine.status.version)


def hold_within_prefill(engine: StreamEngine, model: FakeModel, second: float = 3) -> None:
    """Leaves the answer thread within a chunk of a newer memory."""
    model.prefilling.shut()
    feed(engine, frame(second))
    model.prefilling.wait_reached()


def test_a_question_pays_only_for_its_own_tokens(prefilled_engine: StreamEngine, model: FakeModel) -> None:
    feed(prefilled_engine, frame(3), frame(4))
    wait_prefilled(prefilled_engine)
    model.work.clear()
    answer = result(prefilled_engine.ask("What?"))
    assert (answer.text, answer.memory_version) == ("2 steps: 1.5 3.5", prefilled_engine.status.version)
    assert [kind for kind, _ in model.work] == ["answer"] * 3
    assert prefilled_engine.statistics.prefill_s > 0


def test_a_question_waits_for_one_chunk_of_a_newer_memory_and_is_answered_from_the_last(
    prefilled_engine: StreamEngine, model: FakeModel
) -> None:
    model.chunks_of_a_memory = 5
    hold_within_prefill(prefilled_engine, model)
    model.work.clear()
    pending = prefilled_engine.ask("What?")
    model.prefilling.open()
    answer = result(pending)
    assert (answer.text, answer.steps) == ("1 steps: 1.5", 1)
    assert model.work[:2] == [("prefill", 2), ("answer", 1)]
    wait_prefilled(prefilled_engine)
    assert model.work.count(("prefill", 2)) == 5, "the newer one was prefilled to its end, once"


def test_a_fresh_question_has_the_newest_memory_prefilled_at_once(
    prefilled_engine: StreamEngine, model: FakeModel
) -> None:
    model.chunks_of_a_memory = 3
    hold_within_prefill(prefilled_engine, model)
    feed(prefilled_engine, *[frame(second) for second in range(4, 10)])
    model.work.clear()
    pending = prefilled_engine.ask("What?", AskOptions(fresh=True))
    model.prefilling.open()
    answer = result(pending)
    assert (answer.steps, answer.end_ns) == (5, 9 * SECOND_NS)
    assert answer.memory_version == prefilled_engine.status.version
    prefilled = [steps for kind, steps in model.work if kind == "prefill"]
    assert prefilled == [2, 5, 5, 5], "the one in flight was given up for it"


def test_the_first_question_waits_for_the_first_memory(make_engine: MakeEngine, model: FakeModel) -> None:
    model.prefilling.shut()
    engine = make_engine(prefill_share=1.0)
    feed(engine, frame(1))
    pending = engine.ask("What?")
    model.prefilling.wait_reached()
    assert not pending.done()
    model.prefilling.open()
    assert result(pending).text == "1 steps: 1"


def test_without_a_share_memories_are_read_on_demand_once_each(engine: StreamEngine, model: FakeModel) -> None:
    feed(engine, frame(1), frame(2), frame(3))
    assert model.work == []
    assert [result(engine.ask("What?")).steps for _ in range(2)] == [2, 2]
    assert [steps for kind, steps in model.work if kind == "prefill"] == [2]


def test_questions_at_once_share_a_memory_each_with_its_own_limit_and_cancel(
    make_engine: MakeEngine, model: FakeModel
) -> None:
    engine = make_engine(parallel_questions=4)
    feed(engine, *[frame(second) for second in range(1, 17)])
    model.answering.shut()
    first = engine.ask("What?")
    model.answering.wait_reached()
    emitted: list[str] = []
    go_on = threading.Event()

    def cancel_at_third(piece: str) -> None:
        assert go_on.wait(PATIENCE_S)
        emitted.append(piece)
        if len(emitted) == 3:
            pending[-1].cancel()

    pending = [engine.ask("What?", AskOptions(max_new_tokens=limit)) for limit in (2, 4)]
    pending.append(engine.ask("What?", on_token=cancel_at_third))
    go_on.set()
    model.answering.open()
    whole = result(first).text
    assert whole.count(" ") == 9
    assert [result(one).text for one in pending[:2]] == [" ".join(whole.split(" ")[: 1 + n]) for n in (2, 4)]
    assert failure(pending[2]).code == ErrorCode.CANCELLED
    assert "".join(emitted) == " ".join(whole.split(" ")[:4])
    assert len(emitted) == 3
    assert max(count for kind, count in model.work if kind == "answer") == 4
    assert [kind for kind, _ in model.work].count("prefill") == 1


def test_more_questions_than_places_wait_their_turn(make_engine: MakeEngine, model: FakeModel) -> None:
    engine = make_engine(parallel_questions=2, question_queue=8)
    feed(engine, frame(1), frame(2))
    pending = [engine.ask("What?") for _ in range(6)]
    assert {result(one).text for one in pending} == {"1 steps: 1.5"}
    assert max(count for kind, count in model.work if kind == "answer") <= 2


def test_an_answer_keeps_its_memory_while_newer_ones_are_prefilled(
    prefilled_engine: StreamEngine, model: FakeModel
) -> None:
    model.answering.shut()
    old = prefilled_engine.ask("What?")
    model.answering.wait_reached()
    feed(prefilled_engine, frame(3), frame(4))
    fresh = prefilled_engine.ask("What?", AskOptions(fresh=True, max_new_tokens=1))
    feed(prefilled_engine, frame(5), frame(6))
    model.answering.open()
    assert result(old).text == "1 steps: 1.5"
    assert result(fresh).text == "3 steps:"


def test_nothing_is_answered_from_an_episode_that_is_over(prefilled_engine: StreamEngine, model: FakeModel) -> None:
    model.prefilling.shut()
    prefilled_engine.reset()
    assert failure(prefilled_engine.ask("What?")).code == ErrorCode.NO_FRAMES
    feed(prefilled_engine, frame(7))
    pending = prefilled_engine.ask("What?")
    model.prefilling.wait_reached()
    assert not pending.done()
    model.prefilling.open()
    assert result(pending).text == "1 steps: 7"


def test_a_memory_that_cannot_be_read_is_reported_and_not_tried_for_ever(
    make_engine: MakeEngine, model: FakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    model.prefill_error = ValueError("bad shape")
    engine = make_engine(prefill_share=1.0)
    feed(engine, frame(1))
    wait_for(lambda: "failed to prefill the memory" in caplog.text)
    error = failure(engine.ask("What?"))
    assert error.code == ErrorCode.MODEL_ERROR
    assert "ValueError: bad shape" in str(error)
    assert len(model.caches[0].open) == 0
    model.prefill_error = None
    feed(engine, frame(2))
    assert result(engine.ask("What?")).text == "1 steps: 1.5"


class Clock:
    """Stands in for `time`; a chunk takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, model: FakeModel) -> Clock:
    clock = Clock()
    monkeypatch.setattr(prefill, "time", clock)

    def take_a_second() -> None:
        clock.now += 1

    monkeypatch.setattr(model.prefilling, "go_through", take_a_second)
    return clock


def publish(latest: LatestMemory, snapshot: MemorySnapshot) -> None:
    latest.publish(PublishedMemory(snapshot, {}, MemoryStatus(steps=snapshot.steps)))


def snapshot_of(model: FakeModel, engine: StreamEngine) -> MemorySnapshot:
    feed(engine, frame(1))
    memory = engine._latest.current
    assert memory is not None
    return memory.snapshot


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_prefill_takes_no_more_than_its_share_of_the_time(
    engine: StreamEngine, model: FakeModel, clock: Clock, share: float
) -> None:
    latest, snapshot = LatestMemory(), snapshot_of(model, engine)
    model.chunks_of_a_memory = 4
    scheduler = PrefillScheduler(model, latest, share, ModelCalls())
    for _ in range(3000):
        publish(latest, snapshot)
        pause_s = scheduler.pause_s()
        assert pause_s is not None
        if pause_s:
            # What else goes on, in steps of a tenth of a second.
            clock.now += 0.1
        scheduler.advance(None, answering=False)
    busy_s = len([kind for kind, _ in model.work if kind == "prefill"])
    assert busy_s / clock.now == pytest.approx(share, rel=0.1)
    scheduler.close()


def test_while_answers_are_decoded_prefill_pauses_but_not_for_ever(
    engine: StreamEngine, model: FakeModel, clock: Clock
) -> None:
    latest = LatestMemory()
    publish(latest, snapshot_of(model, engine))
    model.chunks_of_a_memory = 100
    scheduler = PrefillScheduler(model, latest, 1.0, ModelCalls())
    clock.now = 100.0
    scheduler.advance(None, answering=True)
    assert len(model.work) == 1
    assert scheduler.pause_s() == 0.0
    assert scheduler.pause_s(answering=True) == pytest.approx(0.5)
    for _ in range(9):
        clock.now += 0.05
        scheduler.advance(None, answering=True)
    assert len(model.work) == 1
    clock.now += 0.1
    scheduler.advance(None, answering=True)
    assert len(model.work) == 2
    scheduler.advance(0, answering=True)
    assert len(model.work) == 3, "a question waits for it"
    scheduler.close()
