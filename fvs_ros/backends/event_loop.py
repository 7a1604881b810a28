"""From a backend's threads into an event loop: one that is to come, outcomes by pieces; cancels the other way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TypeVar

from fvs_ros.backends.backend import BackendError, MemoryBackend
from fvs_ros.errors import ReadableError

LOADING = "the model is loaded"
# Two looks at a backend that is not ready.
_LOOK_S = 0.25

Piece = TypeVar("Piece")
Outcome = TypeVar("Outcome")


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


@contextmanager
def begun(
    begin: Callable[[Callable[[Piece], None]], Future[Outcome]],
) -> Iterator[tuple[AsyncIterator[Piece], Future[Outcome]]]:
    """Begins something on a backend for a block, whose end ends it.

    Args:
        begin: begins it, given what takes its pieces on any thread.

    Returns:
        Its pieces as they come, until it has ended; and its outcome, which is complete after the last of them.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Piece | None] = asyncio.Queue()

    def put(piece: Piece | None) -> None:
        # The loop is closed where the server ends before the outcome.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(queue.put_nowait, piece)

    async def pieces() -> AsyncGenerator[Piece, None]:
        while (piece := await queue.get()) is not None:
            yield piece

    outcome = begin(put)
    outcome.add_done_callback(lambda _: put(None))
    try:
        yield pieces(), outcome
    finally:
        # Does nothing to one that is complete.
        outcome.cancel()
