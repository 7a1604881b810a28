"""The tools on a running node over DDS: many at once, a cancel, and a node that is not there, or ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from conftest import require_ros, ros_domain

require_ros()
from mcp_clients import Client as McpClient
from mcp_clients import call, opened, structured, text, with_client
from mcp_types import CallToolResult
from node_harness import Client, StreamProcess, running_node

from fvs_ros.backends.node_backend import NodeBackend
from fvs_ros.mcp_server.server import build_server

NODE = "/robot1/stream_node"
# More than can be decoded within any test.
LONG = 1000
# Whatever is watched is true at the first look.
ALWAYS_TRUE: dict[str, Any] = {"watch_true_from": 0.0, "watch_false_below": 0.0, "watch_share": 1.0}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StreamProcess, Client]]:
    """The node in a namespace, with four images in memory. The last test that uses it kills it."""
    names = ("-r", "__ns:=/robot1", "-r", "image:=/image")
    with running_node(
        tmp_path_factory.mktemp("model"), *names, name=NODE, max_new_tokens_limit=LONG, map_id="house", **ALWAYS_TRUE
    ) as (process, camera):
        camera.feed(1, 2, 3, 4)
        yield process, camera


@pytest.fixture
def backend(running: tuple[StreamProcess, Client]) -> Iterator[NodeBackend]:
    domain = running[1].ros_node.context.get_domain_id()
    with closing(NodeBackend(NODE, domain)) as backend:
        yield backend


async def begun(client: McpClient) -> asyncio.Task[CallToolResult]:
    """A question that goes on until it is ended, of which a token has come."""
    told = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.set()

    arguments = {"question": "Long?", "max_new_tokens": LONG}
    long = asyncio.create_task(client.call_tool("ask", arguments, progress_callback=on_progress))
    await told.wait()
    return long


def test_the_tools_ask_the_node(backend: NodeBackend, running: tuple[StreamProcess, Client]) -> None:
    given = structured(call(backend, "ask", question="What do you see?", max_new_tokens=4))
    assert given["answer"]
    assert (given["memory_start"], given["memory_end"], given["memory_steps"]) == ("1.000000000", "4.000000000", 2)
    assert given["moments"]
    told = structured(call(backend, "memory"))
    assert (told["end"], told["grid_steps"], told["problem"]) == ("4.000000000", 2, "")
    found = structured(call(backend, "recall"))
    assert [float(moment["end"]) for moment in found["moments"]] == [4, 2]
    result = call(backend, "keyframe", stamp=1)
    assert 1 <= float(structured(result)["stamp"]) <= 2
    assert [block.type for block in result.content] == ["text", "image"]
    assert "image" in {
        block.type for block in call(backend, "ask", question="What?", max_new_tokens=2, with_images=True).content
    }
    near = {"frame_id": "map", "x": 0, "y": 0}
    assert "NO_FRAMES" in text(call(backend, "ask", question="What?", near=near))
    ranged = structured(call(backend, "ask", question="What?", until="2", max_new_tokens=2))
    assert ranged["memory_end"] == "2.000000000"
    for wrong in ({"until": "0"}, {"since": -1}, {"since": 2**31}):
        result = call(backend, "ask", question="What?", **wrong)
        assert result.is_error
        assert "ROS 2 knows stamps above 0" in text(result)
    assert "INVALID_QUESTION" in text(call(backend, "ask", question=" "))
    assert "INVALID_QUESTION" in text(call(backend, "ask", question="a\0b"))


def test_the_tools_watch_through_the_node(backend: NodeBackend) -> None:
    result = call(backend, "watch", condition="the door is open", with_images=True)
    given = structured(result)
    assert (given["became_true"], given["stamp"], given["since"]) == (True, "4.000000000", "4.000000000")
    assert given["moments"]
    assert "image" in {block.type for block in result.content}
    assert "INVALID_QUESTION" in text(call(backend, "watch", condition=" "))

    async def work(client: McpClient) -> None:
        held = asyncio.create_task(client.call_tool("watch", {"condition": "the door is shut", "hold_s": 60}))
        while not (listed := structured(await client.call_tool("watches", {}))["watches"]):
            await asyncio.sleep(0.05)
        assert [one["condition"] for one in listed] == ["the door is shut"]
        held.cancel()
        while structured(await client.call_tool("watches", {}))["watches"]:
            await asyncio.sleep(0.05)

    with_client(build_server(opened(backend)), work)


def test_many_ask_at_once_and_a_cancel_ends_one_alone(
    backend: NodeBackend, running: tuple[StreamProcess, Client]
) -> None:
    camera = running[1]
    before = camera.next_counters()

    async def work(client: McpClient) -> None:
        async def ask(**arguments: Any) -> str:
            answer: str = structured(await client.call_tool("ask", arguments))["answer"]
            return answer

        long = await begun(client)
        answers = await asyncio.gather(*(ask(question=f"What {number}?", max_new_tokens=3) for number in range(12)))
        assert all(answers)
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long

    with_client(build_server(opened(backend)), work)
    camera.wait_for(lambda: camera.counters.failed.get("CANCELLED") == 1, "the question to be cancelled")
    assert camera.counters.answers - before.answers == 12


def test_a_node_that_ends_fails_what_it_was_asked(backend: NodeBackend, running: tuple[StreamProcess, Client]) -> None:
    async def work(client: McpClient) -> str:
        long = await begun(client)
        running[0].stop(signal.SIGKILL)
        result = await long
        assert result.is_error
        return text(result)

    assert "ended, or hangs, before it answered" in with_client(build_server(opened(backend)), work)


def test_a_node_that_is_not_there_is_named() -> None:
    with ros_domain() as domain, closing(NodeBackend("/nobody", domain, discovery_s=1.0)) as backend:
        for tool, arguments in (("ask", {"question": "What?"}), ("recall", {}), ("memory", {})):
            result = call(backend, tool, **arguments)
            assert result.is_error
            assert f"no stream node /nobody in ROS domain {domain} after 1 s; start it" in text(result)


def test_a_backend_that_is_closed_answers_nothing_and_hangs_nobody() -> None:
    with ros_domain() as domain:
        backend = NodeBackend("/nobody", domain)
        waiting = backend.memory()
        backend.close()
        for future in (waiting, backend.memory()):
            with pytest.raises(Exception, match=r"ended|^$"):
                future.result(timeout=5)
