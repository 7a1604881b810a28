"""GPU work captured once as a CUDA graph, and launched as a whole from then on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")

# One per process: a capture begins by waiting for the whole device, which would break another capture.
_capturing = threading.Lock()
# Libraries such as cuBLAS allocate memory and choose algorithms on their first calls, which must not be captured.
WARM_UP_CALLS = 2


class CapturedCall(Generic[Result]):
    """A function without arguments as a CUDA graph; it reads and writes the same tensors in each call.

    Capturing waits for the device; a call does not.

    Args:
        function: launches kernels on the current stream and reads no values on the host. It may allocate, and returns
            tensors that each call overwrites.
        warm_up: whether to run the function before the capture. False if it must not run more often than it is called;
            it must have run before, then.
    """

    def __init__(self, function: Callable[[], Result], *, warm_up: bool = True) -> None:
        self._graph = torch.cuda.CUDAGraph()
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        with _capturing:
            if warm_up:
                side.wait_stream(current)
                with torch.cuda.stream(side):
                    for _ in range(WARM_UP_CALLS):
                        function()
                current.wait_stream(side)
            # thread_local: other threads may allocate and launch on streams of their own meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._result = function()

    def __call__(self) -> Result:
        """Launches the graph on the current stream; the result is in the same tensors as that of any earlier call."""
        self._graph.replay()
        return self._result
