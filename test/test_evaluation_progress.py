"""How a long run tells how far it is."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from fvs_ros.evaluation import progress
from fvs_ros.evaluation.progress import RunProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Seconds that pass when the test says so."""

    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_log_gets_a_line_now_and_then_with_rate_and_time_left(clock: Any) -> None:
    output = io.StringIO()
    with RunProgress({"questions": 110}, Console(file=output, width=80)) as run:
        run.skip("questions", 10)
        for _ in range(40):
            clock.now += 2.0
            run.advance("questions", where="a video")
    lines = [line for line in output.getvalue().splitlines() if line]
    assert lines == [
        "15 of 100 questions, 0.50 a second, 3 min left",
        "30 of 100 questions, 0.50 a second, 2 min left",
    ]


def test_a_terminal_gets_a_bar_of_its_width() -> None:
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=True, color_system=None)
    with RunProgress({"questions": 10}, console) as run:
        run.skip("questions", 4)
        run.advance("questions", 3, "a/rather/long/path/of/a/video.mp4")
        run.note("question 5 failed: [bold]why")
        run._bar.refresh()
    shown = output.getvalue()
    assert "3/6" in shown
    assert "...g/path/of/a/video.mp4" in shown
    assert "question 5 failed: [bold]why" in shown
