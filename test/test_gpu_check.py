"""`scripts/gpu_check.sh`: it goes on where it ended, holds its limits, and does on a CPU what a CPU can do."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fvs_ros.errors import ReadableError

ROOT = Path(__file__).resolve().parents[1]
WRITE_FIGURES = """
import json, sys
row = {"name": "a step", "unit": "ms", "median": 31.0, "p95": 32.0, "floor": 4.0, "target": 12.0, "least": False,
       "of": "median", "met": False}
values = {"measurements": [row], "machine": {"read_bytes_per_s": 2e12, "flops_per_s": 7e14}}
json.dump(values, open(sys.argv[1], "w"))
sys.exit(1)
"""


@pytest.fixture(scope="module")
def gpu_check() -> ModuleType:
    specification = importlib.util.spec_from_file_location("gpu_check", ROOT / "scripts" / "gpu_check.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["gpu_check"] = module
    specification.loader.exec_module(module)
    return module


def fresh(gpu_check: ModuleType, commit: str = "c0ffee") -> Any:
    return gpu_check.Check("NVIDIA H100 80GB", "cuda", commit, "2026-11-27")


def test_a_second_call_goes_on_where_the_first_ended(
    gpu_check: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = tmp_path / "ran"
    append = f"open({str(ran)!r}, 'a').write"
    parts = [
        gpu_check.Part("first", 60.0, ("-c", f"{append}('1')")),
        gpu_check.Part("second", 600.0, ("-c", f"{append}('2')")),
        gpu_check.Part("third", 60.0, ("-c", f"{append}('3')")),
    ]
    state, out = tmp_path / "state" / "gpu_check.json", tmp_path / "pages"
    # Cut off by the end of the first call.
    slow = [parts[0], gpu_check.Part("second", 600.0, ("-c", "import time; time.sleep(600)")), parts[2]]
    assert gpu_check.run_check(fresh(gpu_check), slow, state, out, gpu_check.LEAST_S + 5.0) == gpu_check.PARTS_LEFT
    assert "2 parts are left, second first; call it again" in capsys.readouterr().out
    assert ran.read_text() == "1"
    (written,) = out.iterdir()
    assert "| second | not run yet | |" in written.read_text()
    check = gpu_check.load_check(state, fresh(gpu_check))
    assert [one.name for one in check.outcomes] == ["first"]
    assert gpu_check.run_check(check, parts, state, out, 120.0) == gpu_check.ALL_PASSED
    assert ran.read_text() == "123"
    assert [path.name for path in out.iterdir()] == ["2026-11-27-nvidia-h100-80gb.md"]
    assert "not run yet" not in written.read_text()


def test_a_part_ends_at_its_own_limit_and_the_next_one_runs(gpu_check: ModuleType, tmp_path: Path) -> None:
    parts = [
        gpu_check.Part("hangs", 0.5, ("-c", "import time; time.sleep(600)")),
        gpu_check.Part("fails", 60.0, ("-c", "raise SystemExit('the reason')")),
        gpu_check.Part("misses a target", 60.0, ("-c", WRITE_FIGURES, gpu_check.FIGURES)),
    ]
    check = fresh(gpu_check)
    assert gpu_check.run_check(check, parts, tmp_path / "state.json", tmp_path, 120.0) == gpu_check.FAILED
    assert [one.ended for one in check.outcomes] == ["took too long", "failed", "passed"]
    page = (tmp_path / "2026-11-27-nvidia-h100-80gb.md").read_text()
    assert "## fails: failed\n\n```\nthe reason\n```" in page
    assert "| a step (ms) | 31 | 32 | 4 | median <= 12, MISSED |" in page
    assert "reads 2000 GB/s and multiplies 700.0 TFLOP/s" in page


def test_another_commit_begins_anew_and_a_damaged_state_is_named(gpu_check: ModuleType, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    check = fresh(gpu_check)
    check.outcomes.append(gpu_check.Outcome("first", "-c 0", "passed", 1.0, []))
    gpu_check.save_check(check, state)
    assert gpu_check.load_check(state, fresh(gpu_check)) == check
    assert gpu_check.load_check(state, fresh(gpu_check, "decaf")).outcomes == []
    state.write_text(json.dumps({"outcomes": 3}))
    with pytest.raises(ReadableError, match="remove it to begin a new check"):
        gpu_check.load_check(state, fresh(gpu_check))


def test_the_whole_check_has_what_was_asked_for(gpu_check: ModuleType) -> None:
    parts = gpu_check.cuda_parts()
    names = [part.name for part in parts]
    assert len(set(names)) == len(names)
    for model in ("embedded", "qwen2-vl-7b", "qwen3-vl-8b"):
        for what in ("ingest", "memory", "answer"):
            assert f"{what}, {model}, bfloat16" in names
        assert {f"answer, {model}, int8", f"answer, {model}, int4"} <= set(names)
    # A call must always be able to finish the longest part.
    assert max(part.limit_s for part in parts) < gpu_check.BUDGET_S < 600
    for part in parts:
        assert all((ROOT / word).exists() for word in part.command if word.startswith("test/"))


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_on_a_cpu_it_does_what_a_cpu_can_do(tmp_path: Path) -> None:
    """All of it passes, whatever targets this machine misses."""
    command = [str(ROOT / "scripts" / "gpu_check.sh"), "--device", "cpu", "--budget", "1000"]
    options = ["--out", str(tmp_path), "--state", str(tmp_path / "state.json")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (page,) = tmp_path.glob("*.md")
    assert "| ingest, embedded, int8 | passed |" in page.read_text()
    assert "| a step to memory (ms) |" in page.read_text()
