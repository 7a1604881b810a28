"""Clients of the MCP server, made with the SDK: in the process, over pipes and over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from needs import MCP, needed

needed("mcp", MCP)
from episode_engines import running
from fakes import PATIENCE_S, FakeModel
from mcp import Client
from mcp_types import CallToolResult

from fvs_ros.backends.backend import MemoryBackend
from fvs_ros.backends.engine_backend import EngineBackend
from fvs_ros.mcp_server.server import build_server
from fvs_ros.stream.engine import StreamEngine


def opened(backend: MemoryBackend) -> Future[MemoryBackend]:
    """A backend that is there."""
    opening: Future[MemoryBackend] = Future()
    opening.set_result(backend)
    return opening


@contextmanager
def engine_backend(
    model: FakeModel, folder: Path | None = None, **settings: Any
) -> Iterator[tuple[StreamEngine, EngineBackend]]:
    """An engine on a fake model with an episode store, and the backend that asks it."""
    with (
        running(folder, model, **settings) as (engine, store),
        closing(EngineBackend(engine, store, model.memory_config, model.name)) as backend,
    ):
        yield engine, backend


def with_client(server: Any, work: Callable[[Client], Awaitable[Any]], **options: Any) -> Any:
    """Runs `work` with a connected client, within the tests' patience."""

    async def connected() -> Any:
        async with Client(server, **options) as client:
            return await work(client)

    return asyncio.run(asyncio.wait_for(connected(), 6 * PATIENCE_S))


def call(backend: MemoryBackend, tool: str, **arguments: Any) -> CallToolResult:
    """Calls one tool of a server in this process."""
    return call_on(build_server(opened(backend)), tool, **arguments)


def call_on(server: Any, tool: str, **arguments: Any) -> CallToolResult:
    """Calls one tool of a server."""
    result: CallToolResult = with_client(server, lambda client: client.call_tool(tool, arguments))
    return result


def structured(result: CallToolResult) -> dict[str, Any]:
    """The structured content of a call that went well; its first text block is the same."""
    assert not result.is_error, text(result)
    assert json.loads(text(result)) == result.structured_content
    content: dict[str, Any] = result.structured_content
    return content


def text(result: CallToolResult) -> str:
    first = result.content[0]
    assert first.type == "text"
    return first.text
