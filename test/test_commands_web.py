"""`fvs web` on the command line, and what `ros2 run fvs_ros web` starts: what cannot be served is refused at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from needs import STARLETTE, needed

needed("starlette", STARLETTE)

from fvs_ros import cli
from fvs_ros.commands import backend_arguments, web


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("missing.mp4",), "missing.mp4"),
        (("--memory-dir", "missing"), "is no folder of an episode store"),
        (("missing.mp4", "--node", "/stream_node"), "--node asks a running node"),
        (("--listen", "0.0.0.0:0", "--memory-dir", "."), "0.0.0.0 is no loopback address"),
        (("--token-file", "missing", "--memory-dir", "."), "missing"),
    ],
)
def test_what_cannot_be_served_is_refused_at_once(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(web.TOKEN_VARIABLE, raising=False)
    assert cli.main(["web", *arguments]) == 1
    assert words in capsys.readouterr().err
    assert web.main(arguments) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("missing", "words"), [("uvicorn", "this needs Uvicorn"), ("rclpy", "this needs ROS 2")])
def test_what_is_not_installed_is_named_with_the_remedy(
    missing: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = backend_arguments.importlib.util.find_spec
    monkeypatch.setattr(
        backend_arguments.importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    assert cli.main(["web"]) == 1
    assert words in capsys.readouterr().err
