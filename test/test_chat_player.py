"""Playing into an engine: what is in memory when a question is asked on the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import pytest
from engines import MakeEngine
from fakes import PATIENCE_S, FakeModel, frame

from fvs_ros.chat import player as player_module
from fvs_ros.chat.player import Cue, Player
from fvs_ros.sources.bags import SourceError
from fvs_ros.sources.cameras import LiveSource
from fvs_ros.sources.frame import Frame
from fvs_ros.stream.engine import StreamEngine
from fvs_ros.stream.types import Answer, AskOptions


class Recording:
    """Frames at given seconds, and a failure after them if `problem` is set."""

    name = "recording"
    start_ns = 0
    notes: Sequence[str] = ()

    def __init__(self, *seconds: float, problem: str = "", duration_s: float = 0.0) -> None:
        self._seconds, self._problem = seconds, problem
        self.frame_count = len(seconds)
        self.duration_ns = round(duration_s * 1e9)
        self.closed = False

    def frames(self, start_offset_s: float = 0.0, duration_s: float | None = None) -> Iterator[Frame]:
        yield from (frame(second) for second in self._seconds)
        if self._problem:
            raise SourceError(self._problem)

    def close(self) -> None:
        self.closed = True


class Camera(LiveSource):
    """A camera without a device, whose frames are given."""

    def __init__(self, *seconds: float) -> None:
        self.name = "camera"
        self._seconds = seconds

    def frames(self) -> Iterator[Frame]:
        yield from (frame(second) for second in self._seconds)
        raise SourceError("camera gives no more frames")

    def close(self) -> None:
        pass


def play(
    engine: StreamEngine, source: Recording | Camera, *cues: Cue, rate: float = 50.0
) -> tuple[Player, list[tuple[Cue, Answer]]]:
    """Plays to the end; returns the player and each cue with the answer to it."""
    answers: list[tuple[Cue, Answer]] = []

    def on_cue(cue: Cue) -> None:
        answers.append((cue, engine.ask(cue.question, AskOptions(fresh=True)).result(PATIENCE_S)))

    player = Player(source, engine, cues, on_cue, rate)
    player.start()
    wait_for_end(player)
    player.close()
    return player, answers


def wait_for_end(player: Player) -> None:
    pause = threading.Event()
    for _ in range(round(PATIENCE_S / 0.01)):
        if player.ended:
            return
        pause.wait(0.01)
    raise AssertionError("the recording did not end")


def test_a_question_sees_every_frame_up_to_its_time_and_none_later(engine: StreamEngine) -> None:
    cues = [Cue(3.0, "c"), Cue(1.5, "a"), Cue(1.6, "b")]
    player, answers = play(engine, Recording(10.0, 11.0, 12.0, 13.0, 14.0), *cues)
    assert [cue.question for cue, _ in answers] == ["a", "b", "c"]
    assert [answer.end_ns for _, answer in answers] == [11 * 10**9, 11 * 10**9, 13 * 10**9]
    assert (player.clock_s, player.error, player.unasked, player.cues_left) == (4.0, "", (), False)


def test_a_patient_player_drops_nothing_however_slow_the_model_is(model: FakeModel, make_engine: MakeEngine) -> None:
    engine = make_engine(frame_queue=2)
    model.encoding.shut()
    player = Player(Recording(*range(9)), engine, [], lambda cue: None, rate=1_000.0, patient=True)
    player.start()
    model.encoding.wait_reached()
    model.encoding.open()
    wait_for_end(player)
    player.close()
    assert (engine.statistics.ingested, engine.statistics.dropped) == (9, 0)
    assert max(map(len, model.encoded)) == 2, "each frame by itself, with its partner"


def test_a_question_after_the_last_frame_is_asked_while_the_recording_lasts(engine: StreamEngine) -> None:
    player, answers = play(engine, Recording(0.0, 1.0, duration_s=2.0), Cue(1.9, "in time"), Cue(2.5, "late"))
    assert [cue.question for cue, _ in answers] == ["in time"]
    assert player.unasked == (Cue(2.5, "late"),)


def test_a_clock_that_was_set_is_not_waited_for(engine: StreamEngine) -> None:
    source = Recording(0.0, 1.0, 3601.0, 3602.0, 2.0, 3.0, duration_s=6.0)
    player, answers = play(engine, source, Cue(1800.0, "in the leap"), Cue(3601.5, "behind it"))
    assert [(cue.question, answer.end_ns) for cue, answer in answers] == [
        ("in the leap", 10**9), ("behind it", 3601 * 10**9),
    ]  # fmt: skip
    assert player.clock_s == 3.0


@pytest.mark.parametrize("cue_s", [9.0, 9.5, 11.0])
def test_a_question_around_a_clock_that_was_set_back_is_not_waited_for(engine: StreamEngine, cue_s: float) -> None:
    source = Recording(*range(3600, 3610), *range(10), duration_s=20.0)
    _, answers = play(engine, source, Cue(cue_s, "What?"))
    assert [answer.end_ns for _, answer in answers] == [3609 * 10**9 if cue_s == 9.0 else 9 * 10**9]


def test_a_damaged_recording_is_reported_and_its_frames_stay(engine: StreamEngine) -> None:
    player, _ = play(engine, Recording(0.0, 1.0, problem="the file is truncated"))
    assert player.error == "the file is truncated"
    assert engine.flush(PATIENCE_S)
    assert engine.status.steps == 1


def test_an_empty_recording_ends(engine: StreamEngine) -> None:
    player, answers = play(engine, Recording(), Cue(0.0, "a"))
    assert (player.clock_s, player.start_ns, answers) == (0.0, None, [])
    assert player.unasked == (Cue(0.0, "a"),)


def test_a_camera_has_its_own_pace(engine: StreamEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    # All frames arrive at once, however slow this machine is.
    monkeypatch.setattr(player_module, "time", SimpleNamespace(monotonic=lambda: 100.0))
    player, answers = play(engine, Camera(100.0, 101.0, 102.5), Cue(1.2, "a"), Cue(60.0, "never"))
    assert [(cue.question, answer.end_ns) for cue, answer in answers] == [("a", 101 * 10**9)]
    assert player.error == "camera gives no more frames"
    assert player.duration_s == 0
    assert player.arrival_fps() == pytest.approx(1.5)


def test_closing_ends_a_playback_on_its_way(engine: StreamEngine) -> None:
    source = Recording(0.0, 1_000.0)
    player = Player(source, engine, [], lambda cue: None)
    player.start()
    player.close()
    assert player.ended
    assert source.closed
