"""The kernels of the reduction: in Triton's interpreter where there is no GPU, and on one."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from kernels_interpreted import disagreements
from needs import needed
from reduction_problems import KINDS, without

from fvs_ros.memory import reduction_by_tensors, slot_reduction
from fvs_ros.memory.slot_reduction import check, implementation, prepare

CUDA = torch.device("cuda")
NEEDS_TRITON = "needs Triton, which comes with torch for CUDA and not with torch for the CPU: pip install triton"


@pytest.fixture
def without_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with without(monkeypatch, "triton", "reduction_by_kernels", slot_reduction._kernels.cache_clear):
        yield


@pytest.mark.usefixtures("without_triton")
def test_without_triton_tensors_take_over_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    assert implementation(CUDA, 136) is reduction_by_tensors
    assert implementation(CUDA, 136) is reduction_by_tensors
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "Triton does not work here" in record.message


@pytest.mark.parametrize("part", ["agglomerate", "segment_time", "refine"])
def test_what_decides_otherwise_is_found_before_it_is_used(part: str) -> None:
    wrong = ModuleType("wrong")
    vars(wrong).update(
        {name: getattr(reduction_by_tensors, name) for name in ("agglomerate", "segment_time", "refine")}
    )
    check(wrong, torch.device("cpu"))
    right = getattr(wrong, part)
    setattr(wrong, part, lambda *arguments: right(*arguments).roll(1))
    with pytest.raises(RuntimeError, match=f"{part} of wrong gives"):
        check(wrong, torch.device("cpu"))


@pytest.mark.slow
def test_kernels_decide_as_tensors_do_in_the_interpreter() -> None:
    """In a process of its own: Triton asks at its import whether to interpret."""
    needed("triton", NEEDS_TRITON)
    script = Path(__file__).with_name("kernels_interpreted.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_kernels_decide_as_tensors_do() -> None:
    needed("triton", NEEDS_TRITON)
    kernels = implementation(CUDA, 136)
    assert kernels is not reduction_by_tensors
    sizes = [(1, 1), (2, 1), (9, 9), (33, 16), (136, 60), (137, 60), (256, 120), (257, 120)]
    for (count, slots), kind in itertools.product(sizes, KINDS):
        prepare(CUDA, count, slots)
        # Repeated, since threads that do not wait for each other need not show it each time.
        for seed in range(3):
            assert disagreements(kernels, kind, count, slots, seed, CUDA) == []
