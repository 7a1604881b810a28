"""Work on a GPU, recorded once as a CUDA graph and launched as a whole from then on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")

# Of the process: a capture begins by waiting for the whole device, which would break another one.
_capturing = threading.Lock()
# cuBLAS and the like allocate and choose on their first calls, which must not be recorded.
WARM_UP_CALLS = 2


class CapturedCall(Generic[Result]):
    """A function without arguments that reads and writes the same tensors each time, as a CUDA graph.

    Capturing waits for the device; a call does not.

    Args:
        function: launches kernels on the current stream; reads no values on the host, allocates freely, and returns
            tensors that each call writes anew.
        warm_up: whether to run it first, for real. False for one that must not run more often than it is called;
            it has been run before, then.
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
            # thread_local: other threads go on allocating and launching on streams of their own meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._result = function()

    def __call__(self) -> Result:
        """Launches the graph on the current stream; the result is that of the last call, in the same tensors."""
        self._graph.replay()
        return self._result
