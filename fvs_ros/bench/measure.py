"""Timing on CPU and CUDA, and the machine's own limits, from which the floors follow."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from fvs_ros.errors import ReadableError
from fvs_ros.model.quantization import Quantization
from fvs_ros.process import resident_bytes

# Twelve times the last-level cache of the machines that this runs on, so no pass is served from it.
BANDWIDTH_BYTES = 400_000_000
MATRIX_ROWS = {"cpu": 1_024, "cuda": 8_192}
MACHINE_REPEATS = 5
# Samples of a figure where nothing else decides.
REPEATS = 20

Statistic = Literal["median", "p95", "maximum"]
Item = TypeVar("Item")


class BenchError(ReadableError, ValueError):
    """A benchmark that cannot be measured as asked."""


class Track(Protocol):
    """Passes a sequence on, and may show its progress under a description."""

    def __call__(self, items: Sequence[Item], description: str) -> Iterable[Item]:
        """The items, one by one."""


@dataclass(frozen=True)
class Machine:
    """The machine that a benchmark ran on, with its measured limits.

    Attributes:
        device: name of the GPU or the processor.
        cores: CPU cores that the process may use.
        python, torch: versions.
        threads: of torch.
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


def _untracked(items: Sequence[Item], description: str) -> Iterable[Item]:
    return items


@dataclass(frozen=True)
class Setup:
    """What every benchmark needs to know.

    Attributes:
        machine: for the floors.
        device: where the work is done.
        dtype: of weights and features.
        steps: length of the stream in grid steps.
        seed: of weights, features, frames and the times of questions.
        track: shows progress.
        quantization: of the language model's linear layers.
    """

    machine: Machine
    device: torch.device
    dtype: torch.dtype
    steps: int
    seed: int
    track: Track = _untracked
    quantization: Quantization = Quantization.NONE


@dataclass(frozen=True)
class Measurement:
    """One benchmarked quantity.

    Attributes:
        name: what was measured.
        unit: of all values.
        samples: their number.
        median, p95, maximum: of the samples.
        floor: the lower bound on this machine, None if unknown.
        target: the value asked for, None if there is none.
        least: whether the target is a lower bound rather than an upper one.
        of: the statistic that the target applies to.
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
        """Whether the target is met; None without a target."""
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
) -> Measurement:
    """The measurement with the statistics of at least one sample."""
    ordered = sorted(samples)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return Measurement(name, unit, len(ordered), statistics.median(ordered), p95, ordered[-1], floor, target, least, of)


def single(name: str, unit: str, value: float, target: float | None = None, *, least: bool = False) -> Measurement:
    """The measurement of a quantity that has a single value in a run."""
    return summarise(name, unit, [value], target=target, least=least)


class Stopwatch:
    """Times single calls: on a GPU with CUDA events, after all earlier work has ended; elsewhere by the clock."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def milliseconds(self, call: Callable[[], object]) -> float:
        """Duration of `call`, including its work on the device."""
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

    def samples(self, call: Callable[[], object], count: int = REPEATS) -> list[float]:
        """Durations of `count` calls in milliseconds, after one that warms up."""
        call()
        return [self.milliseconds(call) for _ in range(count)]


def growth(held: Sequence[int]) -> float:
    """Largest growth since the first of some sizes, as a share of it."""
    return max(held) / held[0] - 1


def held_bytes(device: torch.device) -> int:
    """Bytes that the process holds on the host and, on CUDA, on the device."""
    return resident_bytes() + (torch.cuda.memory_allocated(device) if device.type == "cuda" else 0)


def describe_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """The machine and its limits, each the best of five tries; takes a few seconds."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    watch = Stopwatch(device)
    source = torch.ones(BANDWIDTH_BYTES // 4, device=device)
    target = torch.empty_like(source)
    rows = MATRIX_ROWS[device.type]
    matrix = torch.randn(rows, rows, device=device).to(dtype)
    product: Tensor = torch.empty_like(matrix)

    def best_seconds(call: Callable[[], object]) -> float:
        return min(watch.samples(call, MACHINE_REPEATS)) / 1e3

    return Machine(
        device=device_name(device),
        cores=cores,
        python=platform.python_version(),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        read_bytes_per_s=source.nbytes / best_seconds(lambda: source.sum()),
        copy_bytes_per_s=2 * source.nbytes / best_seconds(lambda: target.copy_(source)),
        flops_per_s=2 * rows**3 / best_seconds(lambda: torch.mm(matrix, matrix, out=product)),
    )


def device_name(device: torch.device) -> str:
    """Of the GPU, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
