"""Between a backend and the SDK: what is waited for, and the text so far, as progress; failures as tool errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from fvs_ros.backends import event_loop
from fvs_ros.backends.backend import MemoryBackend
from fvs_ros.errors import ReadableError
from fvs_ros.stream.types import Answer, AskError, ErrorCode
from fvs_ros.stream.watch import WatchEvent

Result = TypeVar("Result")


class Progress:
    """Progress notifications of one request; a client that asked for none gets none."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._count = 0

    async def tell(self, message: str) -> None:
        """Tells how far it is; the count only ever grows."""
        self._count += 1
        await self._context.report_progress(self._count, None, message)


@contextmanager
def tool_errors() -> Iterator[None]:
    """A block whose failures agents read.

    Raises:
        ToolError: something failed that people can read; the message says what to do.
    """
    try:
        yield
    except AskError as error:
        raise ToolError(f"{error.code.name}: {error}") from error
    except ReadableError as error:
        raise ToolError(str(error)) from error


async def ready(opening: Future[MemoryBackend], progress: Progress) -> MemoryBackend:
    """The backend, once it is there and knows all that was seen.

    Args:
        opening: the backend to come.
        progress: told what is waited for.

    Raises:
        ToolError: it could not be opened.
    """
    with tool_errors():
        async for note in event_loop.waited_for(opening):
            await progress.tell(note)
        return event_loop.opened(opening)


async def result_of(future: Future[Result]) -> Result:
    """The result of a backend's future, which a cancelled request cancels.

    Raises:
        ToolError: it failed; the message says what to do.
    """
    with tool_errors():
        return await asyncio.wrap_future(future)


async def answer_of(ask: Callable[[Callable[[str], None]], Future[Answer]], progress: Progress) -> Answer:
    """An answer, whose text so far is told as it comes.

    Args:
        ask: asks, given what takes the text's chunks on any thread.
        progress: of the request.

    Raises:
        ToolError: there is no answer.
    """
    text = ""
    with tool_errors(), event_loop.begun(ask) as (pieces, answer):
        async for piece in pieces:
            text += piece
            await progress.tell(text)
        return await asyncio.wrap_future(answer)


async def watched(
    watch: Callable[[Callable[[WatchEvent], None]], Future[WatchEvent]], progress: Progress
) -> tuple[WatchEvent | None, int, bool]:
    """The last look of a watch, how many there were, and whether its condition became true before its timeout.

    Args:
        watch: begins it, given what takes each look on any thread.
        progress: of the request, told the probability at each look.

    Raises:
        ToolError: it ended otherwise.
    """
    last, count = None, 0
    with event_loop.begun(watch) as (looks, found):
        async for look in looks:
            last, count = look, count + 1
            await progress.tell(f"true with a probability of {look.probability:.2f}")
    error = found.exception()
    if isinstance(error, AskError) and error.code == ErrorCode.TIMEOUT:
        return last, count, False
    return await result_of(found), max(count, 1), True
