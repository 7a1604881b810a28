"""Questions that recall, over the engine's public doors: what they are answered from, whatever happens meanwhile."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engines import failure, feed, result
from episode_engines import running, scenes, wait_until
from fakes import PATIENCE_S, SECOND_NS, FakeModel, FakePrefilledMemory, frame
from recalling import (
    COMMON,
    PERIOD_S,
    RARE,
    SEGMENTS,
    SLOTS,
    ColourRecaller,
    colours,
    hidden_places,
    recalling_model,
    remember,
)

from fvs_ros.episodic.errors import Problem, StoreError
from fvs_ros.episodic.information import Opener
from fvs_ros.episodic.store import EpisodeStore, Resume
from fvs_ros.stream.config import StreamConfig
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.questions import AcceptedQuestion, QuestionQueue
from fvs_ros.stream.recording import Episodes
from fvs_ros.stream.types import Answer, AskOptions, ChatMessage, ErrorCode

QUESTION = f"Where was {RARE}"
RARE_PLACES = hidden_places(4)
END_S = PERIOD_S * SEGMENTS


@contextmanager
def long_stream(
    model: FakeModel, values: Sequence[int] = (), fingerprint: str = "fake-1", **settings: Any
) -> Iterator[tuple[StreamEngine, EpisodeStore]]:
    """An engine that goes on with a long stream of the run before; it remembers a rare colour at four places."""
    opener = Opener("front", fingerprint=model.fingerprint(), map_id="house")
    defaults: dict[str, Any] = {"fps": 0, "timeout_s": PATIENCE_S, "prefill_share": 0.0}
    with EpisodeStore.open(None, opener=opener) as store:
        remember(store, values or colours(RARE_PLACES), fingerprint)
        episodes = Episodes(store, "front", "house", Resume.AUTO, math.inf)
        with StreamEngine(model, StreamConfig(**defaults | settings), episodes=episodes) as engine:
            wait_until(lambda: engine.status.steps and engine.recording and not engine.recording.restoring)
            try:
                yield engine, store
            finally:
                for gate in (model.answering, model.prefilling, model.encoding):
                    gate.open()
                if isinstance(model.recaller, ColourRecaller):
                    model.recaller.scoring.open()


def rare_moments(answer: Answer) -> list[int]:
    """Places of the rare colour among an answer's moments."""
    places = {moment.start_ns // (PERIOD_S * SECOND_NS) for moment in answer.all_moments}
    return sorted(places & set(RARE_PLACES))


def test_a_restarted_engine_recalls_what_an_earlier_run_saw_without_making_keys_again() -> None:
    model, recaller = recalling_model()
    with long_stream(model) as (engine, _):
        answer = result(engine.ask(QUESTION))
        assert rare_moments(answer) == RARE_PLACES
        assert answer.recalled == len(answer.all_moments) == len(model.asked[-1][0].csm)
        assert answer.memory_version == engine.status.version
        assert (answer.start_ns, answer.end_ns) == (0, (END_S - PERIOD_S + 5) * SECOND_NS)
        assert recaller.made == 0
        assert (engine.statistics.answers, engine.statistics.recalls) == (1, 1)
        # The stream goes on, and with it what is recalled: the open segment, then the stored one.
        scenes(engine, END_S, (90,))
        shown = result(engine.ask(QUESTION))
        assert shown.all_moments[-1].start_ns == END_S * SECOND_NS
        assert model.asked[-1][0].csm[-1].mean() == 90
        engine.save_memory(PATIENCE_S)
        made = recaller.made
        again = result(engine.ask(QUESTION))
        assert rare_moments(again) == RARE_PLACES
        assert again.all_moments[-1] == shown.all_moments[-1]
        assert recaller.made == made, "stored segments have their keys"


def test_a_follow_up_is_recalled_by_the_questions_before_it() -> None:
    model, recaller = recalling_model()
    history = (ChatMessage("user", "What is it?"), ChatMessage("assistant", "a chair"))
    with long_stream(model) as (engine, _):
        assert rare_moments(result(engine.ask(QUESTION, AskOptions(history=history)))) == RARE_PLACES
        result(engine.ask(QUESTION))
    assert recaller.questions == [QUESTION, f"What is it? {QUESTION}", QUESTION]


def test_what_a_killed_process_stored_is_recalled_by_the_next(tmp_path: Path) -> None:
    model, recaller = recalling_model()
    with EpisodeStore.open(tmp_path, opener=Opener("front", fingerprint="fake-1", map_id="house")) as store:
        remember(store, colours(RARE_PLACES))
    with running(tmp_path, model) as (engine, store):
        assert rare_moments(result(engine.ask(QUESTION))) == RARE_PLACES
        assert recaller.made == 0
        scenes(engine, END_S, (90, 120))
    assert [len(keys) for keys in store_keys(tmp_path)] == [1] * (SEGMENTS + 2)


def store_keys(folder: Path) -> list[Any]:
    with EpisodeStore.open(folder, read_only=True) as store:
        return list(store.keys("fake-1").values())


@pytest.mark.parametrize("asked", ["without recall", "off", "short", "no recaller"])
def test_what_recalls_nothing_is_answered_from_the_flash_memory_at_no_cost(asked: str) -> None:
    model, recaller = recalling_model()
    if asked == "no recaller":
        model.recaller = None
    values = colours(RARE_PLACES, SLOTS) if asked == "short" else ()
    with long_stream(model, values, recall_segments=0 if asked == "off" else 40) as (engine, _):
        answers = [result(engine.ask(QUESTION, AskOptions(recall=asked != "without recall"))) for _ in range(2)]
        assert [answer.recalled for answer in answers] == [0, 0]
        assert not model.asked[-1][0].ranked
        assert answers[0].memory_version == engine.status.version
        assert len([kind for kind, _ in model.work if kind == "prefill"]) == 1, "one memory serves both questions"
        assert len(model.caches) == 1
        assert recaller.asked == []
        assert engine.statistics.recalls == 0


def test_other_episodes_of_a_full_store_cost_a_short_stream_nothing() -> None:
    model, recaller = recalling_model()
    with long_stream(model) as (engine, _):
        engine.reset()
        scenes(engine, END_S, (90,))
        answers = [result(engine.ask(QUESTION)) for _ in range(2)]
        assert [(answer.recalled, answer.steps) for answer in answers] == [(0, 3)] * 2
        assert recaller.asked == []
        assert len(model.caches) == 1
        assert engine.recording is not None
        assert (engine.recording.segments, engine.recording.episode_segments) == (SEGMENTS, 0)
        engine.load_memory(1, PATIENCE_S)
        assert rare_moments(result(engine.ask(QUESTION))) == RARE_PLACES


@pytest.mark.parametrize("failing", ["recaller", "store"])
def test_where_recalling_fails_the_flash_memory_answers(
    failing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, recaller = recalling_model()
    with long_stream(model) as (engine, store), caplog.at_level(logging.ERROR):

        def broken(*_: object) -> None:
            raise StoreError(Problem.DISK_FAILS, "disk I/O error")

        if failing == "recaller":
            recaller.error = RuntimeError(f"no kernel for {QUESTION!r}")
        else:
            monkeypatch.setattr(store, "segments_by_id", broken)
        answer = result(engine.ask(QUESTION))
        assert (answer.recalled, answer.steps) == (0, 3 * SEGMENTS)
        assert "recalls nothing" in caplog.text
        assert QUESTION not in caplog.text
        recaller.error = None
        monkeypatch.undo()
        assert rare_moments(result(engine.ask(QUESTION))) == RARE_PLACES


def test_keys_that_cannot_be_made_cost_the_segment_its_recall_alone() -> None:
    model, recaller = recalling_model()
    with long_stream(model) as (engine, store):
        recaller.key_error = RuntimeError("no kernel")
        scenes(engine, END_S, (RARE, 90))
        assert rare_moments(result(engine.ask(QUESTION))) == RARE_PLACES
        engine.save_memory(PATIENCE_S)
        assert len(store.segments()) == SEGMENTS + 2
        assert engine.recording is not None
        assert engine.recording.unrecorded_steps == 0
        assert [keys.size for keys in store.keys("fake-1").values()][-2:] == [0, 0]


def test_a_store_of_another_model_is_recalled_from_once_its_keys_are_made_anew() -> None:
    model, recaller = recalling_model()
    with long_stream(model, fingerprint="fake-0") as (engine, store):
        wait_until(lambda: not store.missing_features("fake-1"))
        assert engine.recording is not None
        assert recaller.made == SEGMENTS
        answer = result(engine.ask(f"Where was {RARE}"))
        assert rare_moments(answer) == RARE_PLACES


def test_forgetting_while_a_question_waits_leaves_it_the_flash_memory_of_what_remains() -> None:
    model, _ = recalling_model()
    with long_stream(model) as (engine, _), ThreadPoolExecutor() as pool:
        model.prefilling.shut()
        pending = engine.ask(QUESTION)
        model.prefilling.wait_reached()
        place = RARE_PLACES[1]
        since_ns = PERIOD_S * place * SECOND_NS
        assert engine.forget(since_ns, since_ns + 5 * SECOND_NS, None, PATIENCE_S) == 1
        model.prefilling.open()
        answer = result(pending)
        assert (answer.recalled, answer.steps) == (0, 3 * (SEGMENTS - 1))
        # Nor does one that is finding its segments show what goes then.
        recaller = model.recaller
        assert isinstance(recaller, ColourRecaller)
        recaller.scoring.shut()
        pending = engine.ask(QUESTION)
        recaller.scoring.wait_reached()
        gone_ns = PERIOD_S * RARE_PLACES[2] * SECOND_NS
        forgetting = pool.submit(engine.forget, gone_ns, gone_ns + 5 * SECOND_NS, None, PATIENCE_S)
        model.prefilling.shut()
        recaller.scoring.open()
        assert forgetting.result(PATIENCE_S) == 1
        model.prefilling.open()
        assert RARE_PLACES[2] not in rare_moments(result(pending))
        assert rare_moments(result(engine.ask(QUESTION))) == [RARE_PLACES[0], RARE_PLACES[3]]


@pytest.mark.parametrize("frames", [0, 2])
def test_a_question_that_recalls_while_the_memory_is_reset_is_one_about_the_new_memory(frames: int) -> None:
    model, recaller = recalling_model()
    with long_stream(model) as (engine, _):
        recaller.scoring.shut()
        pending = engine.ask(QUESTION)
        recaller.scoring.wait_reached()
        engine.reset()
        for second in range(frames):
            engine.submit(frame(END_S + second, 90))
        wait_until(lambda: engine.status.steps == frames // 2)
        recaller.scoring.open()
        if frames:
            answer = result(pending)
            assert (answer.recalled, answer.steps) == (0, 1)
        else:
            assert failure(pending).code is ErrorCode.NO_FRAMES


def test_a_question_that_is_cancelled_while_it_recalls_is_over_and_the_next_answered() -> None:
    model, recaller = recalling_model()
    with long_stream(model) as (engine, _):
        recaller.scoring.shut()
        first, second = engine.ask(QUESTION), engine.ask(QUESTION)
        recaller.scoring.wait_reached()
        assert first.cancel()
        assert second.cancel()
        recaller.scoring.open()
        assert [failure(one).code for one in (first, second)] == [ErrorCode.CANCELLED] * 2
        assert rare_moments(result(engine.ask(QUESTION))) == RARE_PLACES
        assert len(recaller.asked) == 2, "for the second, which nobody waits for, nothing is looked up"


def test_an_engine_can_be_closed_while_a_question_recalls() -> None:
    model, recaller = recalling_model()
    with long_stream(model) as (engine, _), ThreadPoolExecutor() as pool:
        recaller.scoring.shut()
        pending = engine.ask(QUESTION)
        recaller.scoring.wait_reached()
        closing = pool.submit(engine.close)
        assert failure(pending).code is ErrorCode.CANCELLED
        recaller.scoring.open()
        assert closing.result(PATIENCE_S)


def test_a_recall_that_hangs_costs_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AcceptedQuestion, "recall_deadline", property(lambda question: question.asked))
    model, recaller = recalling_model()
    with long_stream(model) as (engine, _):
        recaller.scoring.shut()
        answer = result(engine.ask(QUESTION))
        assert (answer.recalled, answer.steps) == (0, 3 * SEGMENTS)
        assert recaller.asked == []


def test_a_prefill_that_hangs_is_done_again_with_what_the_question_recalled(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = recalling_model()
    with long_stream(model, model_timeout_s=0.2) as (engine, _):
        model.prefilling.shut()
        pending = engine.ask(QUESTION)
        model.prefilling.wait_reached()
        wait_until(lambda: engine.faults.answers)
        model.prefilling.open()
        assert rare_moments(result(pending)) == RARE_PLACES


def test_without_room_on_the_device_the_flash_memory_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = recalling_model()
    prefill_chunk = FakePrefilledMemory.prefill_chunk

    def small(memory: FakePrefilledMemory) -> bool:
        if memory.snapshot.ranked:
            raise MemoryError("no room")
        return prefill_chunk(memory)

    with long_stream(model) as (engine, _):
        with monkeypatch.context() as patch:
            patch.setattr(FakePrefilledMemory, "prefill_chunk", small)
            answer = result(engine.ask(QUESTION))
            assert (answer.recalled, answer.steps) == (0, 3 * SEGMENTS)
            assert "recall_segments" in engine.faults.out_of_memory
        assert rare_moments(result(engine.ask(QUESTION))) == RARE_PLACES


def test_a_model_that_fails_on_what_was_recalled_fails_that_question_alone() -> None:
    model, _ = recalling_model()
    with long_stream(model) as (engine, _):
        model.prefill_error = RuntimeError("no kernel")
        assert failure(engine.ask(QUESTION)).code is ErrorCode.MODEL_ERROR
        model.prefill_error = None
        assert rare_moments(result(engine.ask(QUESTION))) == RARE_PLACES


def test_several_recall_beside_each_other_and_beside_ranges() -> None:
    model, recaller = recalling_model()
    with long_stream(model) as (engine, _):
        recaller.scoring.shut()
        asked = [engine.ask(f"Where was {colour}") for colour in (RARE, COMMON, RARE, 7)]
        ranged = engine.ask("What?", AskOptions(since_ns=0, until_ns=5 * SECOND_NS))
        recaller.scoring.wait_reached()
        recaller.scoring.open()
        answers = [result(pending) for pending in asked]
        assert [rare_moments(answer) == RARE_PLACES for answer in answers] == [True, False, True, False]
        assert (result(ranged).steps, result(ranged).recalled) == (3, 0)
        assert engine.statistics.recalls == 4
        # The buffers stay for the next.
        assert len(model.caches) == 1


def test_a_fresh_question_recalls_with_the_frames_before_it() -> None:
    model, _ = recalling_model()
    with long_stream(model) as (engine, _):
        with engine.hold():
            for second in range(6):
                engine.submit(frame(END_S + second, 90))
            pending = engine.ask(QUESTION, AskOptions(fresh=True))
        answer = result(pending)
        assert rare_moments(answer) == RARE_PLACES
        assert answer.end_ns == answer.all_moments[-1].end_ns == (END_S + 5) * SECOND_NS


def test_frames_come_into_memory_while_a_question_recalls() -> None:
    model, recaller = recalling_model()
    with long_stream(model) as (engine, _):
        recaller.scoring.shut()
        pending = engine.ask(QUESTION)
        recaller.scoring.wait_reached()
        steps = engine.status.steps
        for second in range(4):
            engine.submit(frame(END_S + second, 90))
        wait_until(lambda: engine.status.steps == steps + 2)
        recaller.scoring.open()
        assert rare_moments(result(pending)) == RARE_PLACES


def test_the_answer_worker_sleeps_while_a_question_recalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a prefill is under way: else the thread that recalls would have to fight for Python."""
    looks: list[None] = []
    take = QuestionQueue.take

    def counted(*arguments: Any, **named: Any) -> list[AcceptedQuestion] | None:
        looks.append(None)
        return take(*arguments, **named)

    model, recaller = recalling_model()
    # More chunks than can be computed here.
    model.chunks_of_a_memory = 10**9
    with long_stream(model, prefill_share=1.0) as (engine, _):
        monkeypatch.setattr(QuestionQueue, "take", counted)
        recaller.scoring.shut()
        pending = engine.ask(QUESTION)
        recaller.scoring.wait_reached()
        looks.clear()
        steps = engine.status.steps
        for second in range(8):
            engine.submit(frame(END_S + second, 90))
        wait_until(lambda: engine.status.steps == steps + 4)
        assert len(looks) < 100
        assert pending.cancel()


def test_a_question_about_the_new_episode_of_a_clock_set_back_recalls_nothing_of_the_old() -> None:
    model, recaller = recalling_model()
    with long_stream(model) as (engine, store):
        assert result(engine.ask(QUESTION)).recalled
        feed(engine, frame(1, 90), frame(2, 90))
        answer = result(engine.ask(QUESTION))
        assert (answer.recalled, answer.steps) == (0, 1)
        assert store.current_episode == 2
        assert len(recaller.asked) == 1
