"""`fvs bench`: its arguments, its table and its JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.model.names import EMBEDDED
from fvs_ros.model.quantization import QUANTIZATIONS, Quantization

if TYPE_CHECKING:
    from fvs_ros.bench.measure import Item, Machine, Measurement, Setup


@dataclass(frozen=True)
class Defaults:
    """Defaults of the arguments that differ from benchmark to benchmark."""

    model: str
    dtype: str
    steps: int


DEFAULTS = {
    "memory": Defaults("qwen2-vl-7b", "float32", 20_000),
    "ingest": Defaults(EMBEDDED, "auto", 1_000),
    "answer": Defaults(EMBEDDED, "auto", 43_200),
    "recall": Defaults(EMBEDDED, "auto", 9_000),
    "node": Defaults(EMBEDDED, "auto", 60),
}


MODELS = (
    EMBEDDED,
    "qwen2-vl-2b",
    "qwen2-vl-7b",
    "qwen2.5-vl-3b",
    "qwen2.5-vl-7b",
    "qwen3-vl-2b",
    "qwen3-vl-4b",
    "qwen3-vl-8b",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what to measure, on what, and where to write it."""

    def by_benchmark(name: str) -> str:
        return ", ".join(f"{getattr(defaults, name)} for {what}" for what, defaults in DEFAULTS.items())

    parser.add_argument("what", choices=list(DEFAULTS), help="what to measure")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--model",
        choices=MODELS,
        help=f"shape of the model, with random weights (default: {by_benchmark('model')})",
    )
    parser.add_argument("--dtype", help=f"auto, float32, bfloat16 or float16 (default: {by_benchmark('dtype')})")
    parser.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        default=Quantization.NONE.value,
        help="bits of the language model's weights, for all but memory; int8 and int4 need torchao, int4 CUDA too "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=_steps,
        help="grid steps; of recall, stored segments; of node, seconds in each phase "
        f"(default: {by_benchmark('steps')})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights, features and frames (default: 0)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write machine, settings and figures to this file")


def _steps(text: str) -> int:
    """A number of steps, as far as counters on the screen go."""
    if not text.isdecimal() or len(text) > 12:
        raise argparse.ArgumentTypeError(f"{text} is not a number of steps")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Measures, prints and writes; returns 0, or 1 if a target is missed.

    Raises:
        BenchError: the benchmark cannot be run as asked.
        CheckpointError: the device, the dtype or the quantization cannot be used.
    """
    from fvs_ros.bench.measure import BenchError, Setup, describe_machine
    from fvs_ros.model.cpu_threads import share_cores
    from fvs_ros.model.flash_vstream import pick_device, pick_dtype

    for name, default in asdict(DEFAULTS[arguments.what]).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    device = pick_device(arguments.device)
    dtype = pick_dtype(arguments.dtype, device)
    if arguments.what != "memory" and device.type == "cpu":
        # As the node does. The memory's update is measured with all cores, like its floor.
        share_cores()
    quantization = Quantization(arguments.quantization)
    if arguments.what == "memory" and quantization is not Quantization.NONE:
        raise BenchError("memory has no language model that could be quantised; leave --quantization none")
    machine = describe_machine(device, dtype)
    setup = Setup(machine, device, dtype, arguments.steps, arguments.seed, _track, quantization)
    measurements = _measure(arguments.what, arguments.model, setup)
    quantised = "" if quantization is Quantization.NONE else f" --quantization {quantization.value}"
    asked = f"{arguments.what} --model {arguments.model} --dtype {arguments.dtype}{quantised}"
    _print(machine, measurements, f"fvs bench {asked}")
    if arguments.json is not None:
        settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "run")}
        _write(arguments.json, machine, settings, measurements)
    return int(any(measurement.met is False for measurement in measurements))


def _track(items: Sequence[Item], description: str) -> Iterator[Item]:
    from rich.progress import Progress

    with Progress(transient=True) as progress:
        yield from progress.track(items, description=description)


def _measure(what: str, name: str, setup: Setup) -> list[Measurement]:
    if what == "memory":
        from fvs_ros.bench.memory import bench_memory as bench
    elif what == "ingest":
        from fvs_ros.bench.ingest import bench_ingest as bench
    elif what == "answer":
        from fvs_ros.bench.answer import bench_answer as bench
    elif what == "recall":
        from fvs_ros.bench.recall import bench_recall as bench
    else:
        from fvs_ros.ros_tools.node_bench import bench_node as bench
    return bench(name, setup)


def _print(machine: Machine, measurements: Sequence[Measurement], title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{machine.device}, {machine.cores} cores, {machine.threads} threads, torch {machine.torch}: "
        f"reads {machine.read_bytes_per_s / 1e9:.1f} GB/s, copies {machine.copy_bytes_per_s / 1e9:.1f} GB/s, "
        f"multiplies {machine.flops_per_s / 1e9:.0f} GFLOP/s",
        highlight=False,
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in ("median", "p95", "max", "floor", "ratio", "target"):
        table.add_column(column, justify="right", no_wrap=True)
    for measurement in measurements:
        spread = (measurement.p95, measurement.maximum) if measurement.samples > 1 else (None, None)
        of = "" if measurement.of == "median" else measurement.of
        bound = "" if measurement.target is None else f"{of}{'>=' if measurement.least else '<='}{measurement.target:g}"
        verdict = {None: "", True: " [green]met[/]", False: " [red]MISSED[/]"}[measurement.met]
        table.add_row(
            measurement.name if measurement.unit in ("x", "") else f"{measurement.name} ({measurement.unit})",
            *map(_short, (measurement.median, *spread, measurement.floor, measurement.ratio)),
            bound + verdict,
        )
    console.print(table)


def _short(value: float | None) -> str:
    """Three digits, without an exponent where that stays narrow."""
    if value is None:
        return ""
    if 0 < abs(value) < 1e-3:
        return f"{value:.0e}"
    return f"{value:.3g}" if abs(value) < 1_000 else f"{value:.0f}"


def _write(path: Path, machine: Machine, settings: dict[str, object], measurements: Sequence[Measurement]) -> None:
    values = {
        "machine": asdict(machine),
        "settings": settings,
        "measurements": [{**asdict(one), "ratio": one.ratio, "met": one.met} for one in measurements],
    }
    path.write_text(json.dumps(values, indent=2) + "\n")
