"""`fvs mcp` as a process of its own: over its pipes and over HTTP, on a bag, on a store, and what it refuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_clients import Client, call_on, structured, text, with_client
from patrol_drawing import drawing
from recordings import write_bag

from fvs_ros import cli
from fvs_ros.commands import backend_arguments
from fvs_ros.commands import mcp as command
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.model.tiny import write_tiny_checkpoint
from fvs_ros.patrol.config import FRAME_SIZE
from fvs_ros.patrol.render import shared_renderer

TOKEN = "correct-horse-battery"
FRAMES = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_checkpoint(folder, memory=FlashMemoryConfig(csm_slots=6, dam_slots=3))
    return folder


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bag") / "bag", FRAMES)


def program(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "fvs_ros.cli", "mcp", *map(str, arguments)]


def stdio(*arguments: str | Path) -> StdioServerParameters:
    """The server as an agent starts it."""
    command, *rest = program(*arguments)
    return StdioServerParameters(command=command, args=rest, env=dict(os.environ))


@contextmanager
def http(*arguments: str | Path, token: str = "") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The server on a free port of the loopback, and its URL."""
    environment = {**os.environ, command.TOKEN_VARIABLE: token} if token else dict(os.environ)
    process = subprocess.Popen(
        program(*arguments, "--http", "0"), env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"fvs mcp: (http://127\.0\.0\.1:\d+/mcp)", line):
                yield found[1], process
                break
        else:
            raise AssertionError("".join(lines))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def test_an_agent_asks_about_a_patrol_over_standard_input_and_output(tmp_path: Path) -> None:
    """The model that ships, on a short walk: what it answers is in the evaluation's tests, that it does is here."""
    with drawing():
        shared_renderer(FRAME_SIZE)
    made = ["patrol", "make", "--seed", "870002", "--steps", "20", "--questions", "1", "--out"]
    assert cli.main([*made, str(tmp_path / "patrol")]) == 0

    async def work(client: Client) -> None:
        offered = {tool.name for tool in (await client.list_tools()).tools}
        assert offered == {"ask", "recall", "keyframe", "memory", "watch", "watches"}
        result = await client.call_tool(
            "ask", {"question": "Which rooms did you visit, in order?", "with_images": True}
        )
        given = structured(result)
        assert given["answer"]
        assert (given["model"], given["memory_steps"]) == ("embedded", 20)
        assert [one.type for one in result.content].count("image") >= 1
        until = given["moments"][0]["end"]
        ranged = structured(await client.call_tool("ask", {"question": "What do you see now?", "until": until}))
        assert float(ranged["memory_end"]) <= float(until)
        everything = structured(await client.call_tool("recall", {"limit": 50}))
        # The last scene too, which ended with the recording.
        assert max(float(moment["end"]) for moment in everything["moments"]) == float(given["memory_end"])
        assert structured(await client.call_tool("memory", {}))["stored_segments"] == everything["found"]

    with_client(stdio(tmp_path / "patrol", "--device", "cpu"), work)


def test_a_store_is_asked_without_a_recording_and_not_written(model: Path, bag: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    options = ("--model", model, "--device", "cpu", "--fps", "100")
    seen = structured(call_on(stdio(bag, "--memory-dir", store, *options), "ask", question="What?", max_new_tokens=3))

    def files() -> dict[str, int]:
        """When each was written; the lock says who reads."""
        return {path.name: path.stat().st_mtime_ns for path in store.iterdir() if path.name != "lock"}

    before = files()
    again = structured(call_on(stdio("--memory-dir", store, *options), "ask", question="What?", max_new_tokens=3))
    assert (again["memory_end"], again["memory_steps"]) == (seen["memory_end"], FRAMES // 2)
    assert files() == before


def test_over_http_many_agents_ask_and_none_without_the_token(model: Path, bag: Path) -> None:
    with http(bag, "--model", model, "--device", "cpu", token=TOKEN) as (url, _):

        def client(token: str) -> object:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            return streamable_http_client(url, http_client=httpx2.AsyncClient(headers=headers, timeout=60))

        for _ in range(3):
            assert structured(call_on(client(TOKEN), "ask", question="What?", max_new_tokens=3))["answer"]
        for wrong in ("", TOKEN[:-1], TOKEN.upper()):
            headers = {"Authorization": f"Bearer {wrong}"} if wrong else {}
            assert httpx2.post(url, json={}, headers=headers).status_code == 401
            with pytest.raises(BaseException, match=r"."):  # a group, by the SDK
                call_on(client(wrong), "memory")


def test_on_the_loopback_no_page_of_a_browser_reaches_it(model: Path, bag: Path) -> None:
    with http(bag, "--model", model, "--device", "cpu") as (url, process):
        assert structured(call_on(url, "ask", question="What?", max_new_tokens=3))["answer"]
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            assert httpx2.post(url, json={}, headers=headers).status_code in (403, 421)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, cli.INTERRUPTED, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("missing.mp4",), "missing.mp4"),
        (("--memory-dir", "missing"), "is no folder of an episode store"),
        (("missing.mp4", "--node", "/stream_node"), "--node asks a running node"),
        (("--http", "0.0.0.0:0"), "0.0.0.0 is no loopback address"),
        (("--http", "0", "--token-file", "missing"), "missing"),
    ],
)
def test_what_cannot_be_served_is_refused_at_once(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(command.TOKEN_VARIABLE, raising=False)
    assert cli.main(["mcp", *arguments]) == 1
    assert words in capsys.readouterr().err


def test_a_token_comes_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("short\n")
    assert cli.main(["mcp", "--http", "0", "--token-file", str(tmp_path / "token")]) == 1
    assert "the token has 5 characters" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["http", "127.0.0.1", "1:70000", ":-1", "::1"])
def test_what_is_no_address_is_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["mcp", "--http", address])


@pytest.mark.parametrize(("missing", "words"), [("mcp", "pip install 'mcp"), ("rclpy", "this needs ROS 2")])
def test_what_is_not_installed_is_named_with_the_remedy(
    missing: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = backend_arguments.importlib.util.find_spec
    monkeypatch.setattr(
        backend_arguments.importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    assert cli.main(["mcp"]) == 1
    assert words in capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_is_told_to_who_asks(bag: Path, tmp_path: Path) -> None:
    result = call_on(stdio(bag, "--model", tmp_path / "nothing"), "ask", question="What?")
    assert result.is_error
    assert "could not be opened" in text(result)
