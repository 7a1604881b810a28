"""From a backend's threads into the event loop: futures, tokens as progress, and cancels the other way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from fvs_ros.errors import ReadableError
from fvs_ros.mcp_server.backend import MemoryBackend
from fvs_ros.stream.types import Answer, AskError, ErrorCode
from fvs_ros.stream.watch import WatchEvent

# Two looks at a backend that is not ready.
_LOOK_S = 0.25

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


async def ready(opening: Future[MemoryBackend], progress: Progress) -> MemoryBackend:
    """The backend, once it is there and knows all that was seen.

    Args:
        opening: the backend to come.
        progress: told what is waited for.

    Raises:
        ToolError: it could not be opened.
    """
    told = ""
    while True:
        note = "the model is loaded"
        if opening.done():
            backend = opened(opening)
            note = backend.progress()
            if not note:
                return backend
        if note != told:
            await progress.tell(note)
            told = note
        await asyncio.sleep(_LOOK_S)


def opened(opening: Future[MemoryBackend]) -> MemoryBackend:
    """The backend of a future that is done.

    Raises:
        ToolError: it could not be opened.
    """
    try:
        return opening.result()
    except (ReadableError, ValueError, OSError) as error:
        raise ToolError(f"the memory could not be opened: {error}") from error


async def result_of(future: Future[Result]) -> Result:
    """The result of a backend's future, which a cancelled request cancels.

    Raises:
        ToolError: it failed; the message says what to do.
    """
    try:
        return await asyncio.wrap_future(future)
    except AskError as error:
        raise ToolError(f"{error.code.name}: {error}") from error
    except ReadableError as error:
        raise ToolError(str(error)) from error


async def answer_of(ask: Callable[[Callable[[str], None]], Future[Answer]], progress: Progress) -> Answer:
    """An answer, whose text so far is told as it comes.

    Args:
        ask: asks, given what takes the text's chunks on any thread.
        progress: of the request.

    Raises:
        ToolError: there is no answer.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[str | None] = asyncio.Queue()

    def put(chunk: str | None) -> None:
        # The loop is closed where the server ends before the answer.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)

    answer = ask(put)
    answer.add_done_callback(lambda _: put(None))
    try:
        text = ""
        while (chunk := await chunks.get()) is not None:
            text += chunk
            await progress.tell(text)
    finally:
        # Does nothing to one that is complete.
        answer.cancel()
    return await result_of(answer)


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
    loop = asyncio.get_running_loop()
    looks: asyncio.Queue[WatchEvent | None] = asyncio.Queue()

    def put(look: WatchEvent | None) -> None:
        # The loop is closed where the server ends before the watch.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(looks.put_nowait, look)

    found, last, count = watch(put), None, 0
    found.add_done_callback(lambda _: put(None))
    try:
        while (look := await looks.get()) is not None:
            last, count = look, count + 1
            await progress.tell(f"true with a probability of {look.probability:.2f}")
    finally:
        # Does nothing to one that has ended.
        found.cancel()
    error = found.exception()
    if isinstance(error, AskError) and error.code == ErrorCode.TIMEOUT:
        return last, count, False
    return await result_of(found), max(count, 1), True
