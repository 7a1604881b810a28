"""How many threads torch computes with on a CPU."""

from __future__ import annotations

import os

import torch


def share_cores() -> int:
    """Gives each operation half the cores, for all threads that begin to compute from now on; returns how many.

    Frames are encoded and questions answered at the same time, on a thread each. With all cores for each operation
    both would wait for each other in every one of hundreds of small operations: on two busy cores reading the embedded
    model's memory took 0.63 s with two threads and 0.11 s with one. OMP_NUM_THREADS, where it is set, is left as it is.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // 2))
    return torch.get_num_threads()
