"""`fvs chat` in a terminal that shows pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from recordings import write_video
from rich.text import Text

from fvs_ros import cli, terminal_pictures
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.tiny import write_tiny_checkpoint


def test_pictures_come_where_the_terminal_draws_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tiny_checkpoint(tmp_path / "tiny", memory=FlashMemoryConfig(csm_slots=4, dam_slots=2))
    video = write_video(tmp_path / "clip.avi", frames=40, fps=20.0)

    def chat(*options: str) -> str:
        asked = ["--rate", "20", "--fps", "4", "--max-new-tokens", "8", "--ask", "1.5:What do you see?"]
        model = ["--model", str(tmp_path / "tiny"), "--device", "cpu"]
        assert cli.main(["chat", str(video), *model, *asked, *options]) == 0
        return capfd.readouterr().out

    assert "pictures>" not in chat()
    monkeypatch.setattr(terminal_pictures, "drawn_by", lambda _: lambda jpegs: Text(f"<{len(jpegs)} pictures>"))
    assert re.search(r"^ +<[1-5] pictures>$", chat(), re.MULTILINE)
    assert "pictures>" not in chat("--no-pictures")
