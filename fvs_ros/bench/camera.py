"""A camera that loads an engine while something else is measured."""

from __future__ import annotations

import threading
import time

import numpy as np

from fvs_ros.sources.frame import SECOND_NS, Frame
from fvs_ros.stream.engine import StreamEngine

FRAMES_PER_S = {"cpu": 4.0, "cuda": 10.0}
"""By device type; two frames make a grid step."""


class NoiseCamera:
    """A camera that sends noise at a steady rate until it is closed.

    Args:
        engine: takes the frames.
        side: of their pictures, in pixels.
        frames_per_s: its rate.
        seed: of the noise.
        after_ns: stamp that all frames come after.
    """

    def __init__(self, engine: StreamEngine, side: int, frames_per_s: float, seed: int, after_ns: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self._images = [generator.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(8)]
        self._engine = engine
        self._period_s = 1 / frames_per_s
        self._after_ns = after_ns
        self._count = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def fill(self, frames: int) -> None:
        """Sends `frames` frames as fast as they are ingested."""
        for _ in range(frames):
            self._submit()
            self._engine.flush(60.0)

    def start(self) -> None:
        """Sends frames at its rate from now on."""
        self._thread.start()

    def close(self) -> None:
        """Ends the stream."""
        self._closed.set()
        self._thread.join()

    def _submit(self) -> None:
        image = self._images[self._count % len(self._images)]
        self._count += 1
        self._engine.submit(Frame(self._after_ns + round(self._count * self._period_s * SECOND_NS), lambda: image))

    def _run(self) -> None:
        begin = time.perf_counter()
        due = 0
        while not self._closed.wait(max(0.0, begin + due * self._period_s - time.perf_counter())):
            self._submit()
            due += 1
