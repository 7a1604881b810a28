"""Running out of device memory: how it looks, and what is given back."""

from __future__ import annotations

import gc

import torch

# RuntimeErrors by which libraries below torch say it: the CPU's allocator, cuBLAS, cuDNN, the driver.
MARKS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a model call failed for want of memory, so that a smaller one may succeed."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in MARKS)


def free_device_memory() -> None:
    """Gives back what torch holds on the GPU for later use; a model's modules refer to each other in cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
