"""What a chat prints, in a terminal and in a log."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from fvs_ros.chat.screen import Screen, StreamState, clock_text
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.stream.types import Answer, FrameCounters, MemoryStatus, Moment

CAPACITY = FlashMemoryConfig(csm_slots=60, dam_slots=30)
STATE = StreamState(
    clock_s=12.34, duration_s=60.0, ended=False, fps=25.0, frames=FrameCounters(ingested=12),
    memory=MemoryStatus(steps=6, csm_slots=6, dam_slots=6, bytes=9_010_000), capacity=CAPACITY,
)  # fmt: skip
LARGEST = StreamState(
    clock_s=35_999.9, duration_s=36_000.0, ended=True, fps=120.0,
    frames=FrameCounters(ingested=99_999, dropped=90, late=4, rejected={"empty": 5}),
    memory=MemoryStatus(steps=49_999, csm_slots=60, dam_slots=30, bytes=3_500_000_000), capacity=CAPACITY,
)  # fmt: skip


def answer(text: str) -> Answer:
    moments = tuple(Moment(second * 10**9, second * 10**9, (second + 1) * 10**9, 1.0) for second in range(1, 4))
    return Answer(text, moments, 3, 0, 5 * 10**9, 3, 0.25, 0.5, "model")


def log() -> tuple[io.StringIO, Screen]:
    output = io.StringIO()
    return output, Screen(Console(file=output, width=80), None)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.0"), (12.34, "0:12.3"), (59.99, "0:59.9"), (75.5, "1:15.5"), (3600, "1:00:00")]
)
def test_clocks(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


def test_the_state_is_a_line_of_eighty_columns() -> None:
    assert STATE.line().plain == "play 0:12.3/1:00.0  25 fps  12 kept  CSM 6/60 DAM 6/30 9.0 MB  drops 0"
    assert LARGEST.line().cell_len <= 80
    assert LARGEST.line().plain.startswith("end 9:59:59/10:00:00")
    assert LARGEST.line().plain.endswith("CSM 60/60 DAM 30/30 3.5 GB  drops 99")


def test_a_log_gets_each_token_at_once_and_moments_in_seconds_of_the_stream() -> None:
    output, screen = log()
    screen.begin_answer(12.5, "What?")
    screen.token("a \x1b[31mcat")
    assert output.getvalue().endswith("answer    a ·[31mcat"), "control characters are not obeyed"
    screen.answer(12.5, "What?", answer("a cat"), start_ns=10**9)
    lines = output.getvalue().splitlines()
    assert lines[0] == "0:12.5    What?"
    assert "rests on" in lines[2]
    assert lines[4].split()[3:8] == ["0.00", "s", "0.00", "to", "1.00"]
    assert "first token after 0.250 s, complete after 0.500 s" in lines[7]


def test_it_says_how_sure_an_answer_is_and_how_likely_each_choice() -> None:
    output, screen = log()
    screen.answer(1.0, "What?", replace(answer("a cat"), confidence=0.42, not_seen=True, truncated=True), 0)
    assert (
        "sure      42% (probability of exactly these words), says that it was not seen, \n          cut off"
        in output.getvalue()
    )
    output, screen = log()
    screen.answer(1.0, "What?", replace(answer("a cat"), confidence=0.9, calibrated=True), 0)
    assert "sure      90%\n" in output.getvalue()
    output, screen = log()
    chosen = replace(answer("a dog"), choice_probabilities=(0.25, 0.75))
    screen.answer(1.0, "What?", chosen, 0, choices=("a \x1b cat", "a dog"))
    assert "choices   a dog 75.0%, a \u00b7 cat 25.0%\n" in output.getvalue()


def test_what_happens_during_an_answer_gets_a_line_of_its_own() -> None:
    output, screen = log()
    screen.begin_answer(1.0, "What?")
    screen.token("a")
    screen.note("the recording ended")
    screen.token(" cat")
    screen.answer(1.0, "What?", answer("a cat"), 0)
    assert output.getvalue().splitlines()[1:4] == ["answer    a", "the recording ended", "           cat"]


def test_a_failure_is_told_with_its_question() -> None:
    output, screen = log()
    screen.failure(3.0, "What?", "NO_FRAMES: no frame", begun=False)
    assert output.getvalue().splitlines()[:2] == ["0:03.0    What?", "failed    NO_FRAMES: no frame"]


def terminal(height: int = 24) -> tuple[list[str], io.StringIO, Screen]:
    shown: list[str] = []
    output = io.StringIO()
    console = Console(file=output, width=80, height=height, force_terminal=True, color_system=None)
    return shown, output, Screen(console, shown.append)


def test_the_bottom_shows_a_running_answer_the_state_and_what_waits() -> None:
    shown, output, screen = terminal()
    screen.redraw(STATE, (12.5, "What?", "a cat"), ["Where?", "When?"])
    assert [line.rstrip() for line in shown[-1].splitlines()] == [
        "0:12.5    What?", "          a cat\u2588", "", "2 waiting: Where?", STATE.line().plain,
    ]  # fmt: skip
    assert output.getvalue() == ""


def test_tokens_are_shown_at_the_bottom_and_the_complete_answer_is_printed() -> None:
    shown, output, screen = terminal()
    screen.begin_answer(12.5, "What?")
    screen.token("a c")
    assert output.getvalue() == ""
    screen.answer(12.5, "What?", answer("a cat"), 0)
    assert output.getvalue().splitlines()[:2] == ["0:12.5    What?", "answer    a cat"]
    assert shown == []


def test_a_long_answer_leaves_room_for_the_line_below() -> None:
    shown, _, screen = terminal(height=12)
    screen.redraw(STATE, (0.0, "What?", "word " * 500 + "last"), [])
    assert "last\u2588" in shown[-1]
    assert shown[-1].count("\n") < 12
