"""`fvs parity`: golden files against this pipeline, one table a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fvs_ros.commands.arguments import existing_file

if TYPE_CHECKING:
    from rich.table import Table

    from fvs_ros.model.parity import Comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the golden files."""
    parser.add_argument("files", metavar="FILE", nargs="+", type=existing_file, help="golden file (safetensors)")


def run(arguments: argparse.Namespace) -> int:
    """Compares each file and prints a table; 0 only if every quantity of every file agrees."""
    from rich.console import Console

    from fvs_ros.model.checkpoint import CheckpointError
    from fvs_ros.model.parity import GoldenError, compare, read_golden

    console = Console()
    agreeing = 0
    for path in arguments.files:
        try:
            comparisons = compare(read_golden(path))
        except (GoldenError, CheckpointError) as error:
            console.print(f"{path}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            continue
        console.print(_table(path, comparisons))
        agreeing += all(comparison.agrees for comparison in comparisons)
    console.print(f"{agreeing} of {len(arguments.files)} files agree", highlight=False)
    return int(agreeing < len(arguments.files))


def _table(path: Path, comparisons: Sequence[Comparison]) -> Table:
    from rich.table import Table

    table = Table(title=path.name, title_justify="left", min_width=64)
    table.add_column("quantity")
    table.add_column("shape")
    table.add_column("largest error", justify="right")
    table.add_column("tolerance", justify="right")
    table.add_column("")
    for item in comparisons:
        verdict = "[green]agrees" if item.agrees else "[red]DIFFERS"
        shape = " x ".join(map(str, item.shape))
        table.add_row(item.quantity, shape, f"{item.error:.2e}", f"{item.tolerance:.0e}", verdict)
    return table
