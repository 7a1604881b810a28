"""Checks on a GPU what CI cannot, part by part, and writes one dated file a machine under docs/benchmarks/.

    scripts/gpu_check.sh                       # as many parts as fit ten minutes; call it again for the rest
    scripts/gpu_check.sh --device cpu          # what of it a CPU can do, for CI

Each part has a time limit of its own, and its outcome is in `gpu_check.json` as soon as it ends; a part that the end of
the ten minutes cut off is begun anew by the next call. Another machine, device or commit begins a new check. Exits with
0 where all parts passed, 1 where one failed or took too long, 3 where parts are left.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from fvs_ros.bench.measure import device_name
from fvs_ros.errors import ReadableError
from fvs_ros.files import read_bounded
from fvs_ros.model.flash_vstream import pick_device

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / ".gpu_check" / "gpu_check.json"
MOST_STATE_BYTES = 2**24
BUDGET_S = 570.0
# A part is not begun with less time than this.
LEAST_S = 15.0
LOG_LINES = 12
ALL_PASSED, FAILED, PARTS_LEFT = 0, 1, 3
FIGURES = "FIGURES"
"""In a command, the file that it writes its figures to."""
# Of the tests that need CUDA, those of captured answers; all others are of the memory and the towers.
EQUALITY_TESTS = ("test/test_model_prefix_cache.py", "test/test_model_quantized_weights.py")
CUDA_TESTS = (
    "test/test_memory_streaming_cuda.py",
    "test/test_memory_reduction_by_kernels.py",
    "test/test_model_frame_encoder.py",
    "test/test_model_embedded.py",
)


@dataclass(frozen=True)
class Part:
    """One check.

    Attributes:
        name: unique.
        limit_s: its own time limit.
        command: arguments of this Python.
    """

    name: str
    limit_s: float
    command: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a part ended.

    Attributes:
        name, command: of the part.
        ended: `passed`, `failed` or `took too long`. A benchmark that misses a target has passed: its figures say so.
        seconds: it took.
        log: its last lines.
        measurements: of a benchmark, see `Measurement`.
        limits: what the benchmark measured of the machine, see `Machine`.
    """

    name: str
    command: str
    ended: str
    seconds: float
    log: list[str]
    measurements: list[dict[str, Any]] = field(default_factory=list)
    limits: dict[str, Any] = field(default_factory=dict)


@dataclass
class Check:
    """A check on one machine, as far as it is done.

    Attributes:
        machine: its GPU or processor.
        device: `cuda` or `cpu`.
        commit: of the repository.
        begun: date of the first call.
        outcomes: of the parts that ended.
    """

    machine: str
    device: str
    commit: str
    begun: str
    outcomes: list[Outcome] = field(default_factory=list)

    def left(self, parts: Sequence[Part]) -> list[Part]:
        """Those that have not ended yet."""
        ended = {one.name for one in self.outcomes}
        return [part for part in parts if part.name not in ended]


def cuda_parts() -> list[Part]:
    """The whole check: first what must hold, then speed, the most wanted first."""
    parts = [
        _tests("captured against plain, int8 and int4", 180, EQUALITY_TESTS, "cuda"),
        _tests("tests on CUDA", 180, CUDA_TESTS, "cuda"),
        _parity(120),
    ]
    for model in ("qwen2-vl-7b", "qwen3-vl-8b", "embedded"):
        parts.append(_bench("ingest", model, "none", 400, 90))
        parts += [_bench("answer", model, quantization, 600, 150) for quantization in ("none", "int8", "int4")]
        parts.append(_bench("memory", model, "none", 1_000, 90))
    return parts


def cpu_parts() -> list[Part]:
    """What of it a CPU can do, in seconds."""
    return [
        _tests("prefilled against plain, int8", 200, EQUALITY_TESTS[1:], "reference_path and not cuda"),
        _parity(200),
        _bench("memory", "embedded", "none", 700, 200, "cpu"),
        _bench("ingest", "embedded", "int8", 200, 200, "cpu"),
    ]


def _tests(name: str, limit_s: float, files: Sequence[str], wanted: str) -> Part:
    return Part(name, limit_s, ("-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", wanted))


def _parity(limit_s: float) -> Part:
    golden = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "test" / "golden").glob("*.safetensors"))
    return Part("parity", limit_s, ("-m", "fvs_ros.cli", "parity", *golden))


def _bench(what: str, model: str, quantization: str, steps: int, limit_s: float, device: str = "cuda") -> Part:
    dtype = "bfloat16" if device == "cuda" else "float32"
    options = {"model": model, "dtype": dtype, "device": device, "steps": steps, "quantization": quantization}
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    name = f"{what}, {model}, {dtype if quantization == 'none' else quantization}"
    return Part(name, limit_s, ("-m", "fvs_ros.cli", "bench", what, *arguments, "--json", FIGURES))


def run_part(part: Part, limit_s: float) -> Outcome | None:
    """Runs a part; None where it was cut off by a limit shorter than its own."""
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as folder:
        figures, log = Path(folder) / "figures.json", Path(folder) / "log"
        command = [sys.executable, *(str(figures) if word == FIGURES else word for word in part.command)]
        begin = time.monotonic()
        with log.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, start_new_session=True)
            try:
                code = process.wait(min(limit_s, part.limit_s))
            except subprocess.TimeoutExpired:
                # With all that it has started.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if limit_s < part.limit_s:
                    return None
                code = None
        seconds = time.monotonic() - begin
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        written = json.loads(figures.read_text()) if figures.exists() else {}
    # A benchmark exits with 1 where a target is missed; that is a figure.
    passed = code == 0 or (code == 1 and bool(written))
    return Outcome(
        name=part.name,
        command=" ".join(part.command),
        ended="took too long" if code is None else "passed" if passed else "failed",
        seconds=round(seconds, 1),
        log=[] if passed else lines,
        measurements=written.get("measurements", []),
        limits=written.get("machine", {}),
    )


def load_check(path: Path, fresh: Check) -> Check:
    """The check that `path` has, if it is of the same machine, device and commit; else `fresh`."""
    try:
        values = json.loads(read_bounded(path, MOST_STATE_BYTES))
        values["outcomes"] = [Outcome(**one) for one in values["outcomes"]]
        found = Check(**values)
    except FileNotFoundError:
        return fresh
    except (ValueError, TypeError, KeyError) as error:
        raise ReadableError(f"{path} cannot be read ({error}); remove it to begin a new check") from error
    same = (found.machine, found.device, found.commit) == (fresh.machine, fresh.device, fresh.commit)
    return found if same else fresh


def save_check(check: Check, path: Path) -> None:
    """Writes it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(check), indent=1) + "\n")
    partial.replace(path)


def page(check: Check, parts: Sequence[Part]) -> str:
    """The check as a page."""
    limits = next((one.limits for one in check.outcomes if one.limits), {})
    lines = [f"# {check.machine}, {check.begun}", ""]
    lines.append(f"`scripts/gpu_check.sh --device {check.device}` at commit {check.commit}, torch {torch.__version__}.")
    if limits:
        lines.append(
            f"It reads {limits['read_bytes_per_s'] / 1e9:.0f} GB/s and multiplies {limits['flops_per_s'] / 1e12:.1f} "
            "TFLOP/s. Models have random weights; a floor is the least time that these limits allow."
        )
    lines += ["", "| part | | seconds |", "|---|---|---|"]
    lines += [f"| {one.name} | {one.ended} | {one.seconds:.0f} |" for one in check.outcomes]
    lines += [f"| {part.name} | not run yet | |" for part in check.left(parts)]
    for one in check.outcomes:
        if one.log:
            lines += ["", f"## {one.name}: {one.ended}", "", "```", *one.log, "```"]
        if one.measurements:
            lines += ["", f"## {one.name}", "", "| | median | p95 | floor | target |", "|---|---|---|---|---|"]
            lines += [_row(values) for values in one.measurements]
    return "\n".join(lines) + "\n"


def _row(values: dict[str, Any]) -> str:
    unit = "" if values["unit"] in ("", "x") else f" ({values['unit']})"
    target = ""
    if values["target"] is not None:
        sign = ">=" if values["least"] else "<="
        target = f"{values['of']} {sign} {values['target']:g}, {'met' if values['met'] else 'MISSED'}"
    floor = "" if values["floor"] is None else f"{values['floor']:.3g}"
    return f"| {values['name']}{unit} | {values['median']:.3g} | {values['p95']:.3g} | {floor} | {target} |"


def run_check(check: Check, parts: Sequence[Part], state: Path, out: Path, budget_s: float) -> int:
    """Runs what is left, as far as the time goes, and writes the page after each part."""
    end = time.monotonic() + budget_s
    target = out / f"{check.begun}-{re.sub(r'[^a-z0-9]+', '-', check.machine.lower()).strip('-')}.md"
    out.mkdir(parents=True, exist_ok=True)
    for part in check.left(parts):
        left_s = end - time.monotonic()
        if left_s < min(LEAST_S, part.limit_s):
            break
        print(f"{part.name}: at most {min(left_s, part.limit_s):.0f} s", flush=True)
        outcome = run_part(part, left_s)
        if outcome is None:
            break
        check.outcomes.append(outcome)
        save_check(check, state)
        target.write_text(page(check, parts))
        print(f"{part.name}: {outcome.ended} after {outcome.seconds:.0f} s", *outcome.log, sep="\n  ", flush=True)
    if left := check.left(parts):
        print(f"{len(left)} parts are left, {left[0].name} first; call it again")
        return PARTS_LEFT
    print(target)
    return ALL_PASSED if all(one.ended == "passed" for one in check.outcomes) else FAILED


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks", help="folder of the page")
    parser.add_argument("--state", type=Path, default=STATE, help="file that remembers which parts ended")
    parser.add_argument(
        "--budget", type=float, metavar="S", default=BUDGET_S, help="seconds of this call (%(default)s)"
    )
    parser.add_argument("--list", action="store_true", help="print the parts and their limits, and run none")
    chosen = parser.parse_args(arguments)
    parts = cuda_parts() if chosen.device == "cuda" else cpu_parts()
    if chosen.list:
        print(*(f"{part.limit_s:4.0f} s  {part.name}" for part in parts), sep="\n")
        return ALL_PASSED
    try:
        device = pick_device(chosen.device)
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()
        begun = time.strftime("%Y-%m-%d", time.gmtime())
        fresh = Check(device_name(device), chosen.device, commit or "unknown", begun)
        check = load_check(chosen.state, fresh)
    except ReadableError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return FAILED
    return run_check(check, parts, chosen.state, chosen.out, chosen.budget)


if __name__ == "__main__":
    sys.exit(main())
