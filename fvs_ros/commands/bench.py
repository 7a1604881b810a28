"""The arguments of `fvs bench`, its table and its JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # At run time only where something is measured, so that `fvs --help` loads neither torch nor rich.
    import torch

    from fvs_ros.bench.measure import Machine, Measure


@dataclass(frozen=True)
class Defaults:
    """Of the arguments that differ from benchmark to benchmark."""

    model: str
    dtype: str
    steps: int


DEFAULTS = {
    "memory": Defaults("qwen2-vl-7b", "float32", 20_000),
    "ingest": Defaults("tiny", "auto", 1_000),
    "answer": Defaults("tiny", "auto", 43_200),
    "node": Defaults("tiny", "auto", 60),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what to measure, on what, and where to write it."""

    def by_benchmark(name: str) -> str:
        return ", ".join(f"{getattr(defaults, name)} for {what}" for what, defaults in DEFAULTS.items())

    parser.add_argument("what", choices=list(DEFAULTS), help="what to measure")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--model",
        choices=["tiny", "qwen2-vl-2b", "qwen2-vl-7b"],
        help=f"shape of the model, with random weights (default: {by_benchmark('model')})",
    )
    parser.add_argument("--dtype", help=f"auto, float32, bfloat16 or float16 (default: {by_benchmark('dtype')})")
    parser.add_argument(
        "--steps", type=int, help=f"grid steps; of node, seconds in each phase (default: {by_benchmark('steps')})"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights, features and frames (default: 0)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write machine, settings and figures to this file")


def run(arguments: argparse.Namespace) -> int:
    """Measures, prints and writes; returns 0, or 1 if a target is missed."""
    from fvs_ros.bench.measure import describe_machine
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
    machine = describe_machine(device, dtype)
    measures = _measure(arguments, machine, device, dtype)
    _print(machine, measures, f"fvs bench {arguments.what} --model {arguments.model} --dtype {arguments.dtype}")
    if arguments.json is not None:
        settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "run")}
        _write(arguments.json, machine, settings, measures)
    return int(any(measure.met is False for measure in measures))


def _measure(
    arguments: argparse.Namespace,
    machine: Machine,
    device: torch.device,
    dtype: torch.dtype,
) -> list[Measure]:
    from fvs_ros.bench.shapes import MEMORY_SHAPES

    name, steps, seed = arguments.model, arguments.steps, arguments.seed
    if arguments.what == "memory":
        from fvs_ros.bench.memory import bench_memory

        return bench_memory(MEMORY_SHAPES[name], machine, device, dtype, steps, seed)
    if arguments.what == "ingest":
        from fvs_ros.bench.ingest import bench_ingest

        return bench_ingest(name, machine, device, dtype, steps, seed)
    if arguments.what == "answer":
        from fvs_ros.bench.answer import bench_answer

        return bench_answer(name, MEMORY_SHAPES[name], machine, device, dtype, steps, seed)
    from fvs_ros.ros_tools.node_bench import bench_node

    return bench_node(name, device, arguments.dtype, steps, seed)


def _print(machine: Machine, measures: Sequence[Measure], title: str) -> None:
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
    for measure in measures:
        spread = (measure.p95, measure.maximum) if measure.samples > 1 else (None, None)
        of = "" if measure.of == "median" else measure.of
        bound = "" if measure.target is None else f"{of}{'>=' if measure.least else '<='}{measure.target:g}"
        verdict = {None: "", True: " [green]met[/]", False: " [red]MISSED[/]"}[measure.met]
        table.add_row(
            measure.name if measure.unit in ("x", "") else f"{measure.name} ({measure.unit})",
            *map(_short, (measure.median, *spread, measure.floor, measure.ratio)),
            bound + verdict,
        )
    console.print(table)


def _short(value: float | None) -> str:
    """Three digits, without exponents as long as that stays narrow."""
    if value is None:
        return ""
    if 0 < abs(value) < 1e-3:
        return f"{value:.0e}"
    return f"{value:.3g}" if abs(value) < 1_000 else f"{value:.0f}"


def _write(path: Path, machine: Machine, settings: dict[str, object], measures: Sequence[Measure]) -> None:
    values = {
        "machine": asdict(machine),
        "settings": settings,
        "measures": [{**asdict(measure), "ratio": measure.ratio, "met": measure.met} for measure in measures],
    }
    path.write_text(json.dumps(values, indent=2) + "\n")
