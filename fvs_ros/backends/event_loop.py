"""From a backend's threads into an event loop: one that is to come, answers by pieces; cancels the other way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future

from fvs_ros.backends.backend import BackendError, MemoryBackend
from fvs_ros.errors import ReadableError
from fvs_ros.stream.types import Answer

LOADING = "the model is loaded"
# Two looks at a backend that is not ready.
_LOOK_S = 0.25


async def waited_for(opening: Future[MemoryBackend]) -> AsyncGenerator[str, None]:
    """What is waited for, whenever that changes, until the backend is there and knows all that was seen.

    Args:
        opening: the backend to come.

    Raises:
        BackendError: it could not be opened.
    """
    told = ""
    while note := opened(opening).progress() if opening.done() else LOADING:
        if note != told:
            yield note
            told = note
        await asyncio.sleep(_LOOK_S)


def opened(opening: Future[MemoryBackend]) -> MemoryBackend:
    """The backend, once it is there.

    Raises:
        BackendError: it is not there yet, or could not be opened.
    """
    if not opening.done():
        raise BackendError("not yet: the model is being loaded; try again in a few seconds")
    try:
        return opening.result()
    except Exception as error:
        # What was not foreseen, such as a device without memory, may not even say what it is.
        foreseen = isinstance(error, (ReadableError, ValueError, OSError))
        kind = "" if foreseen else f"{type(error).__name__}: "
        raise BackendError(f"the memory could not be opened: {kind}{error}") from error


async def answer_pieces(ask: Callable[[Callable[[str], None]], Future[Answer]]) -> AsyncGenerator[str | Answer, None]:
    """The pieces of an answer's text as they come, and then the answer. Closing it before its end cancels the question.

    Args:
        ask: asks, given what takes the pieces on any thread.

    Raises:
        AskError: there is no answer.
        BackendError: nobody is there to ask.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[str | None] = asyncio.Queue()

    def put(piece: str | None) -> None:
        # The loop is closed where the server ends before the answer.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

    answer = ask(put)
    answer.add_done_callback(lambda _: put(None))
    try:
        while (piece := await pieces.get()) is not None:
            yield piece
    finally:
        # Does nothing to one that is complete.
        answer.cancel()
    complete: Answer = await asyncio.wrap_future(answer)
    yield complete
