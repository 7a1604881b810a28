"""The newest picture of the camera, made once for all who look."""

from __future__ import annotations

import asyncio
import time

from fvs_ros.backends.backend import MemoryBackend
from fvs_ros.stream.types import Picture

# So many a second are made at most, however many look.
_RATE_HZ = 5.0


class NewestPicture:
    """Asks a backend for the newest picture while somebody looks, at a bounded rate.

    For one event loop.
    """

    def __init__(self) -> None:
        self._picture: Picture | None = None
        self._made_s = -1.0
        self._being_made: asyncio.Task[Picture] | None = None

    async def of(self, backend: MemoryBackend) -> Picture:
        """The newest picture, or one that is a fifth of a second old.

        Raises:
            ReadableError: there is none.
        """
        if self._picture is not None and time.monotonic() - self._made_s < 1 / _RATE_HZ:
            return self._picture
        if self._being_made is None:
            self._being_made = asyncio.create_task(self._make(backend))
        # One who leaves does not take the picture from the others.
        return await asyncio.shield(self._being_made)

    async def _make(self, backend: MemoryBackend) -> Picture:
        try:
            self._picture = await asyncio.wrap_future(backend.camera())
            self._made_s = time.monotonic()
            return self._picture
        finally:
            self._being_made = None
