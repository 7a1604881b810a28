"""Timing on CPU and CUDA, and what the machine itself can do: the floors that every figure is held against."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fvs_ros.process import resident_bytes

# Twelve times the last-level cache of the machines that this runs on, so that no pass is served from it.
BANDWIDTH_BYTES = 400_000_000
MATRIX_ROWS = {"cpu": 1_024, "cuda": 8_192}
REPEATS = 5

Statistic = Literal["median", "p95", "maximum"]


@dataclass(frozen=True)
class Machine:
    """What a benchmark ran on, and its measured limits.

    Attributes:
        read_bytes_per_s: of summing up a float32 tensor that fits no cache.
        copy_bytes_per_s: of copying it, bytes read and bytes written together.
        flops_per_s: of a large square matrix product in the benchmark's dtype, a multiply-add counting as two.
    """

    device: str
    cores: int
    python: str
    torch: str
    threads: int
    read_bytes_per_s: float
    copy_bytes_per_s: float
    flops_per_s: float


@dataclass(frozen=True)
class Measure:
    """One benchmarked quantity.

    Attributes:
        name: what was measured.
        unit: of all values.
        samples: how many there are.
        median, p95, maximum: of the samples.
        floor: the least that this machine could do it in, None where none is known.
        target: what is asked for, None where nothing is.
        least: the target is a least value, not a most one.
        of: which of the three the target is asked of.
    """

    name: str
    unit: str
    samples: int
    median: float
    p95: float
    maximum: float
    floor: float | None = None
    target: float | None = None
    least: bool = False
    of: Statistic = "median"

    @property
    def ratio(self) -> float | None:
        """Median over floor."""
        return None if not self.floor else self.median / self.floor

    @property
    def met(self) -> bool | None:
        """Whether the target is met, None without one."""
        if self.target is None:
            return None
        value: float = getattr(self, self.of)
        return value >= self.target if self.least else value <= self.target


def summarise(
    name: str,
    unit: str,
    samples: Sequence[float],
    *,
    floor: float | None = None,
    target: float | None = None,
    least: bool = False,
    of: Statistic = "median",
) -> Measure:
    """The measure of at least one sample."""
    ordered = sorted(samples)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return Measure(name, unit, len(ordered), statistics.median(ordered), p95, ordered[-1], floor, target, least, of)


def single(name: str, unit: str, value: float, target: float | None = None, *, least: bool = False) -> Measure:
    """The measure of a quantity that a run has only one value of."""
    return summarise(name, unit, [value], target=target, least=least)


class Stopwatch:
    """Times one call at a time: with CUDA events on a GPU, after everything before has ended, else by the clock."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def milliseconds(self, call: Callable[[], object]) -> float:
        """How long `call` took, its work on the device included."""
        if not self._cuda:
            begin = time.perf_counter()
            call()
            return (time.perf_counter() - begin) * 1e3
        begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin_event.record()
        call()
        end_event.record()
        end_event.synchronize()
        return begin_event.elapsed_time(end_event)


def held_bytes(device: torch.device) -> int:
    """Memory that the process holds on the host and, on CUDA, on the device."""
    return resident_bytes() + (torch.cuda.memory_allocated(device) if device.type == "cuda" else 0)


def describe_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """Names the machine and measures its limits, the best of five tries each; takes a few seconds."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    watch = Stopwatch(device)
    source = torch.ones(BANDWIDTH_BYTES // 4, device=device)
    target = torch.empty_like(source)
    rows = MATRIX_ROWS[device.type]
    matrix = torch.randn(rows, rows, device=device).to(dtype)
    product: Tensor = torch.empty_like(matrix)

    def best_seconds(call: Callable[[], object]) -> float:
        call()
        return min(watch.milliseconds(call) for _ in range(REPEATS)) / 1e3

    return Machine(
        device=name,
        cores=cores,
        python=platform.python_version(),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        read_bytes_per_s=source.nbytes / best_seconds(lambda: source.sum()),
        copy_bytes_per_s=2 * source.nbytes / best_seconds(lambda: target.copy_(source)),
        flops_per_s=2 * rows**3 / best_seconds(lambda: torch.mm(matrix, matrix, out=product)),
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
