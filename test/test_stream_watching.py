"""Watches of an engine: what is told, in which order, and how they end."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from time import monotonic as now

import pytest
from engines import MakeEngine, feed, result
from fakes import PATIENCE_S, FakeConditionCheck, FakeModel, frame

from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.prefill import LONGEST_PAUSE_S
from fvs_ros.stream.types import AskError, AskOptions, ErrorCode
from fvs_ros.stream.watch import Watch, WatchEvent, WatchOptions
from fvs_ros.stream.watch_condition import Change
from fvs_ros.stream.watches import MOST_WATCHES
from fvs_ros.stream.watching import MOST_AT_ONCE

OPEN = "the door is open"


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


class Door:
    """Has a model say yes or no to every question, whatever it sees."""

    def __init__(self, model: FakeModel) -> None:
        self.open = False
        self.asked: list[str] = []
        model.likelihood = self._likelihood

    def _likelihood(self, question: str, text: str) -> float:
        if text == "yes":
            self.asked.append(question)
        return 0.0 if text == ("yes" if self.open else "no") else -10.0


@pytest.fixture
def door(model: FakeModel) -> Door:
    return Door(model)


@pytest.fixture
def busy_engine(make_engine: MakeEngine) -> StreamEngine:
    """An engine that looks without pause, at memories that it prefills before anybody asks."""
    return make_engine(prefill_share=1.0, watch_share=1.0)


def looked(engine: StreamEngine, events: list[WatchEvent], second: float) -> WatchEvent:
    """Feeds a frame, and returns the look at the memory that holds it."""
    before = len(events)
    feed(engine, frame(second))
    eventually(lambda: len(events) > before, "a look")
    return events[-1]


@pytest.mark.parametrize("prefill_share", [0.0, 1.0])
def test_each_memory_is_looked_at_and_a_change_tells_what_it_rests_on(
    make_engine: MakeEngine, model: FakeModel, door: Door, prefill_share: float
) -> None:
    engine, events = make_engine(prefill_share=prefill_share, watch_share=1.0), list[WatchEvent]()
    watch = engine.watches.add(OPEN, on_event=events.append)
    first = looked(engine, events, 1)
    assert (first.change, first.is_true, first.moments) == (Change.NOTHING, False, ())
    assert first.probability == pytest.approx(0.0, abs=1e-4)
    door.open = True
    second = looked(engine, events, 2)
    assert (second.change, second.is_true, second.stamp_ns) == (Change.BECAME_TRUE, True, 2_000_000_000)
    assert second.moments
    assert looked(engine, events, 3).change is Change.NOTHING
    door.open = False
    assert looked(engine, events, 4).change is Change.BECAME_FALSE
    assert set(door.asked) == {"Is it true that the door is open?"}
    assert watch.cancel()
    assert not watch.cancel()
    outcome = watch.result(PATIENCE_S)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.looks) == (ErrorCode.CANCELLED, 4)
    assert outcome.became_true == second
    assert not engine.watches.open()


def test_a_watch_to_end_once_ends_when_its_condition_has_held(busy_engine: StreamEngine, door: Door) -> None:
    events = list[WatchEvent]()
    watch = busy_engine.watches.add(OPEN, WatchOptions(hold_s=1.0, once=True), events.append)
    door.open = True
    assert looked(busy_engine, events, 1).change is Change.NOTHING
    assert looked(busy_engine, events, 2).change is Change.BECAME_TRUE
    outcome = watch.result(PATIENCE_S)
    assert outcome.error is None
    assert outcome.became_true is not None
    assert (outcome.became_true.since_ns, outcome.became_true.stamp_ns) == (1_000_000_000, 2_000_000_000)


def test_looks_are_a_period_of_stamps_apart(busy_engine: StreamEngine, door: Door) -> None:
    often, seldom = list[WatchEvent](), list[WatchEvent]()
    busy_engine.watches.add(OPEN, WatchOptions(period_s=5.0), seldom.append)
    busy_engine.watches.add(OPEN, on_event=often.append)
    for second in range(1, 13):
        looked(busy_engine, often, second)
    assert [event.stamp_ns // 10**9 for event in seldom] == [1, 6, 11]
    assert len(often) == 12


def test_what_was_true_before_a_reset_is_told_again_after_it(busy_engine: StreamEngine, door: Door) -> None:
    events = list[WatchEvent]()
    watch = busy_engine.watches.add(OPEN, on_event=events.append)
    door.open = True
    assert looked(busy_engine, events, 1).change is Change.BECAME_TRUE
    busy_engine.reset()
    assert watch.last(busy_engine.status.episode) is None
    assert looked(busy_engine, events, 2).change is Change.BECAME_TRUE
    last = watch.last(busy_engine.status.episode)
    assert last is not None
    assert (last.is_true, last.stamp_ns, last.watch) == (True, 2_000_000_000, watch.number)


def test_many_watches_are_looked_at_in_turn(busy_engine: StreamEngine, model: FakeModel, door: Door) -> None:
    count = 3 * MOST_AT_ONCE + 1
    for number in range(count):
        busy_engine.watches.add(f"door {number} is open")
    feed(busy_engine, frame(1))
    eventually(lambda: busy_engine.watches.counters.looks == count, "a look of each")
    assert set(Counter(door.asked).values()) == {1}
    assert door.asked[:2] == ["Is it true that door 0 is open?", "Is it true that door 1 is open?"]


def test_more_watches_than_their_share_suffices_for_are_late_and_say_so(make_engine: MakeEngine, door: Door) -> None:
    # A pause of a million times what a round takes.
    engine = make_engine(prefill_share=1.0, watch_share=1e-6)
    for _ in range(2 * MOST_AT_ONCE):
        engine.watches.add(OPEN)
    feed(engine, frame(1))
    eventually(lambda: engine.watches.status.lag_s > 0.5, "watches that are late")
    status = engine.watches.status
    assert (status.watches, status.looks) == (2 * MOST_AT_ONCE, MOST_AT_ONCE)


def test_watches_that_are_late_are_looked_at_equally_often(busy_engine: StreamEngine, model: FakeModel) -> None:
    # A memory comes with each round, so that the first watches are always due again.
    permits = threading.Semaphore(0)

    def likelihood(question: str, text: str) -> float:
        if text == "yes":
            assert permits.acquire(timeout=PATIENCE_S)
        return 0.0

    model.likelihood = likelihood
    watches = [busy_engine.watches.add(OPEN) for _ in range(3 * MOST_AT_ONCE)]
    for second in range(1, 7):
        feed(busy_engine, frame(second))
        permits.release(MOST_AT_ONCE)
        eventually(lambda second=second: busy_engine.watches.counters.looks == second * MOST_AT_ONCE, "a round")  # type: ignore[misc]
    assert {watch.looks for watch in watches} == {2}
    permits.release(1000)


def test_a_condition_of_several_questions_is_looked_at_whole(
    busy_engine: StreamEngine, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = FakeConditionCheck(tuple(f"part {part}?" for part in range(MOST_AT_ONCE + 1)))
    checks = {"many": many, "few": FakeConditionCheck(("one?", "two?"))}
    monkeypatch.setattr(model, "condition_check", checks.__getitem__)
    model.likelihood = lambda question, text: -10.0 if text == ("yes" if question == "two?" else "no") else 0.0
    events = list[WatchEvent]()
    for condition in ("many", "few", "few"):
        busy_engine.watches.add(condition, on_event=events.append)
    feed(busy_engine, frame(1))
    eventually(lambda: len(events) == 3, "a look of each")
    assert [event.change for event in sorted(events, key=lambda event: event.watch)] == [
        Change.BECAME_TRUE, Change.NOTHING, Change.NOTHING,
    ]  # fmt: skip


def test_watches_wait_while_a_question_is_answered(busy_engine: StreamEngine, model: FakeModel, door: Door) -> None:
    events = list[WatchEvent]()
    feed(busy_engine, frame(1))
    model.answering.shut()
    pending = busy_engine.ask("What do you see?")
    model.answering.wait_reached()
    busy_engine.watches.add(OPEN, on_event=events.append)
    assert not door.asked
    model.answering.open()
    assert result(pending).text
    eventually(lambda: events, "a look")


def test_between_the_tokens_of_an_answer_there_is_a_look_now_and_then(
    busy_engine: StreamEngine, model: FakeModel, door: Door
) -> None:
    looks: list[tuple[float, int]] = []
    feed(busy_engine, *(frame(second) for second in range(1, 13)))
    model.answering.shut()
    pending = busy_engine.ask("What?", AskOptions(max_new_tokens=20), lambda _: looks.append((now(), len(door.asked))))
    model.answering.wait_reached()
    for _ in range(2 * MOST_AT_ONCE):
        busy_engine.watches.add(OPEN)
    model.answering.open()
    result(pending)
    (begin, _), (end, asked) = looks[0], looks[-1]
    assert len(looks) > 4
    assert asked <= 2 + (end - begin) / LONGEST_PAUSE_S


def test_a_watch_without_a_frame_ends_at_its_timeout(busy_engine: StreamEngine) -> None:
    outcome = busy_engine.watches.add(OPEN, WatchOptions(timeout_s=0.05)).result(PATIENCE_S)
    assert outcome.error is not None
    assert outcome.error.code == ErrorCode.TIMEOUT
    assert "never looked at, as no frame" in str(outcome.error)


def test_a_model_that_fails_on_a_memory_is_counted_and_asked_about_the_next(
    busy_engine: StreamEngine, model: FakeModel, door: Door
) -> None:
    def fail(question: str, text: str) -> float:
        raise RuntimeError("broken")

    events = list[WatchEvent]()
    likelihood, model.likelihood = model.likelihood, fail
    watch = busy_engine.watches.add(OPEN, on_event=events.append)
    feed(busy_engine, frame(1))
    counters = busy_engine.watches.counters
    eventually(lambda: counters.failed, "the failure")
    assert counters.error == "RuntimeError: broken"
    model.likelihood = likelihood
    looked(busy_engine, events, 2)
    assert counters.failed == 1
    assert not watch.ended()


def test_a_change_is_told_although_what_it_rests_on_cannot_be_found(
    busy_engine: StreamEngine, model: FakeModel, door: Door
) -> None:
    events = list[WatchEvent]()
    busy_engine.watches.add(OPEN, on_event=events.append)
    model.answer_error = RuntimeError("broken")
    door.open = True
    event = looked(busy_engine, events, 1)
    assert (event.change, event.moments) == (Change.BECAME_TRUE, ())
    model.answer_error = None


def test_closing_the_engine_ends_watches(busy_engine: StreamEngine) -> None:
    watch = busy_engine.watches.add(OPEN)
    busy_engine.close()
    error = watch.result(PATIENCE_S).error
    assert error is not None
    assert error.code == ErrorCode.CANCELLED
    assert refused(busy_engine, OPEN).code == ErrorCode.NOT_ACTIVE


def refused(engine: StreamEngine, condition: str, options: WatchOptions = WatchOptions()) -> AskError:  # noqa: B008
    with pytest.raises(AskError) as caught:
        engine.watches.add(condition, options)
    return caught.value


@pytest.mark.parametrize(
    ("condition", "options", "hint"),
    [
        (" ", WatchOptions(), "the condition is empty"),
        ("a<|im_end|>", WatchOptions(), "the condition holds <|im_end|>"),
        ("x" * 2_001, WatchOptions(), "the condition has 2001 characters; shorten it to 2000"),
        (OPEN, WatchOptions(period_s=-1), "period_s is -1"),
        (OPEN, WatchOptions(hold_s=float("nan")), "hold_s is nan"),
        (OPEN, WatchOptions(timeout_s=float("inf")), "timeout_s is inf"),
    ],
)
def test_a_watch_that_makes_no_sense_is_refused(
    engine: StreamEngine, condition: str, options: WatchOptions, hint: str
) -> None:
    error = refused(engine, condition, options)
    assert error.code == ErrorCode.INVALID_QUESTION
    assert hint in str(error)


def test_no_more_watches_than_can_be_looked_at_are_taken(engine: StreamEngine, make_engine: MakeEngine) -> None:
    watches: list[Watch] = [engine.watches.add(OPEN) for _ in range(MOST_WATCHES)]
    assert refused(engine, OPEN).code == ErrorCode.BUSY
    assert watches[0].cancel()
    engine.watches.add(OPEN)
    assert "watch_share is 0" in str(refused(make_engine(watch_share=0.0), OPEN))
