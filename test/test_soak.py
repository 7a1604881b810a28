"""The soak of `scripts/soak.py`, for less than a minute, or for FVS_SOAK_MINUTES, as in `.ci/run`.

Hours are for people, and for the script itself.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import require_ros, ros_domain

require_ros()

MINUTES = float(os.environ.get("FVS_SOAK_MINUTES", "0.7"))
LONGEST_S = 60 * MINUTES + 240
"""With the start, and what is still open at the end."""
SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "soak.py"


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    specification = importlib.util.spec_from_file_location("soak", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["soak"] = module
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("last", "outcomes", "found"),
    [
        ((500, 23, 19, 8), {"NONE": 9, "BUSY": 2}, []),
        ((600, 23, 19, 8), {"NONE": 9}, ["resident_mb grew from 500.0 to 600.0"]),
        ((500, 40, 19, 8), {"NONE": 9}, ["threads grew from 23.0 to 40.0"]),
        ((500, 23, 40, 8), {"NONE": 9}, ["files grew from 19.0 to 40.0"]),
        ((500, 23, 19, 900), {"NONE": 9}, ["latency_ms grew from 8.0 to 900.0"]),
        ((500, 23, 19, 8), {"NONE": 9, "LOST": 1}, ["1 questions ended as LOST"]),
        ((500, 23, 19, 8), {"TIMEOUT": 9}, ["no question was answered"]),
    ],
)
def test_what_did_not_hold_is_named(
    soak: ModuleType, last: tuple[float, ...], outcomes: dict[str, int], found: list[str]
) -> None:
    samples = [soak.Sample(900, 9, 9, 9)] * 2 + [soak.Sample(500, 23, 19, 8)] * 5 + [soak.Sample(*last)] * 3
    assert soak.problems_of(samples, outcomes) == found


@pytest.mark.slow
@pytest.mark.timeout(LONGEST_S + 10)
def test_the_node_stands_everything_at_once() -> None:
    options = {"minutes": MINUTES, "samples": 12 + round(4 * MINUTES), "model": "tiny"}
    command = [sys.executable, str(SCRIPT), *(f"--{name}={value}" for name, value in options.items())]
    with ros_domain() as domain:
        done = subprocess.run([*command, f"--domain={domain}"], capture_output=True, text=True, timeout=LONGEST_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all held\n")
