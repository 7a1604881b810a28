"""The arguments of `fvs bench`, its table and its JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # At run time only where something is measured, so that `fvs --help` loads neither torch nor rich.
    from fvs_ros.bench.measure import Machine, Measure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what to measure, on what, and where to write it."""
    parser.add_argument("what", choices=["memory"], help="what to measure")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--model",
        default="qwen2-vl-7b",
        choices=["tiny", "qwen2-vl-2b", "qwen2-vl-7b"],
        help="shape of the model (default: qwen2-vl-7b)",
    )
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16 (default: float32)")
    parser.add_argument("--steps", type=int, default=20_000, help="grid steps (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, help="of the features (default: 0)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write machine, settings and figures to this file")


def run(arguments: argparse.Namespace) -> int:
    """Measures, prints and writes; returns 0, or 1 if a target is missed."""
    from fvs_ros.bench.measure import describe_machine
    from fvs_ros.bench.memory import bench_memory
    from fvs_ros.bench.shapes import MEMORY_SHAPES
    from fvs_ros.model.flash_vstream import pick_device, pick_dtype

    device = pick_device(arguments.device)
    dtype = pick_dtype(arguments.dtype, device)
    machine = describe_machine(device, dtype)
    shape = MEMORY_SHAPES[arguments.model]
    measures = bench_memory(shape, machine, device, dtype, arguments.steps, arguments.seed)
    _print(machine, measures, f"fvs bench memory --model {arguments.model} --dtype {arguments.dtype}")
    if arguments.json is not None:
        settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "run")}
        _write(arguments.json, machine, settings, measures)
    return int(any(measure.met is False for measure in measures))


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
        bound = "" if measure.target is None else f"{'>=' if measure.least else '<='}{measure.target:g}"
        verdict = {None: "", True: " [green]met[/]", False: " [red]MISSED[/]"}[measure.met]
        table.add_row(
            measure.name if measure.unit == "x" else f"{measure.name} ({measure.unit})",
            *map(_short, (measure.median, measure.p95, measure.maximum, measure.floor, measure.ratio)),
            bound + verdict,
        )
    console.print(table)


def _short(value: float | None) -> str:
    """Three digits, without exponents as long as that stays narrow."""
    if value is None:
        return ""
    return f"{value:.3g}" if abs(value) < 1_000 else f"{value:.0f}"


def _write(path: Path, machine: Machine, settings: dict[str, object], measures: Sequence[Measure]) -> None:
    values = {
        "machine": asdict(machine),
        "settings": settings,
        "measures": [{**asdict(measure), "ratio": measure.ratio, "met": measure.met} for measure in measures],
    }
    path.write_text(json.dumps(values, indent=2) + "\n")
