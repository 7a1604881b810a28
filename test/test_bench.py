import json

import pytest
import torch

from fvs_ros import cli
from fvs_ros.bench import memory, shapes
from fvs_ros.bench.measure import Measure, Stopwatch, describe_machine, summarise
from fvs_ros.bench.memory import MixedScenes, bench_memory
from fvs_ros.bench.published_streaming import PublishedStreamingMemory
from fvs_ros.bench.shapes import MemoryShape
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import PatchGrid

CPU = torch.device("cpu")
SMALL = MemoryShape(PatchGrid(4, 4), 4, FlashMemoryConfig(csm_slots=3, dam_slots=2))


@pytest.fixture(scope="module")
def machine():
    return describe_machine(CPU, torch.float32)


def test_a_summary_orders_its_samples():
    measure = summarise("x", "ms", [5.0, 1.0, 3.0, 2.0, 100.0], floor=1.5)
    assert (measure.samples, measure.median, measure.p95, measure.maximum) == (5, 3.0, 100.0, 100.0)
    assert measure.ratio == 2.0


@pytest.mark.parametrize(("least", "met"), [(False, True), (True, False)])
def test_a_target_is_a_most_or_a_least(least, met):
    assert summarise("x", "ms", [1.0], target=2.0, least=least).met is met
    assert summarise("x", "ms", [1.0]).met is None


def test_the_stopwatch_counts_milliseconds():
    deadline = torch.zeros(1)
    assert 0 <= Stopwatch(CPU).milliseconds(lambda: deadline.add_(1)) < 1_000
    assert deadline == 1


def test_the_machine_is_measured(machine):
    assert machine.read_bytes_per_s > 1e8
    assert machine.copy_bytes_per_s > 1e8
    assert machine.flops_per_s > 1e8
    assert machine.device


def test_scenes_repeat_with_their_seed_and_differ_from_step_to_step():
    one, other = (MixedScenes(SMALL, CPU, torch.float32, seed=3) for _ in range(2))
    first = one.step()[1]
    assert torch.equal(first, other.step()[1])
    assert not torch.equal(first, one.step()[1])


def test_the_published_method_keeps_every_step_and_its_slots():
    published = PublishedStreamingMemory(SMALL.config, torch.Generator().manual_seed(0))
    scenes = MixedScenes(SMALL, CPU, torch.float32, seed=0)
    details = [published.append(*scenes.step()) for _ in range(9)]
    assert [detail.shape[0] for detail in details] == [1] + [2] * 8
    assert published._high.shape[0] == published._low.shape[0] == 9
    assert published._centroids.shape[0] == 3
    assert published._weights.sum() == 9


def test_the_memory_is_measured_early_and_late(machine, monkeypatch):
    monkeypatch.setattr(memory, "BASELINE_STEPS", 20)
    measures = {m.name: m for m in bench_memory(SMALL, machine, CPU, torch.float32, steps=700, seed=0)}
    update = measures["update (last 100)"]
    assert update.samples == 100
    assert update.median > 0
    assert update.floor > 0
    assert measures["update / floor"].median == pytest.approx(update.median / update.floor)
    assert measures["snapshot"].samples == 7
    assert "published, step 300" not in measures
    assert measures["published, step 20"].samples == 10


def test_too_few_steps_are_refused(machine):
    with pytest.raises(ValueError, match="at least 700"):
        bench_memory(SMALL, machine, CPU, torch.float32, steps=699, seed=0)


def test_the_command_prints_writes_and_fails_where_a_target_is_missed(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(shapes.MEMORY_SHAPES, "tiny", SMALL)
    monkeypatch.setattr(memory, "BASELINE_STEPS", 20)
    out = tmp_path / "memory.json"
    # So small a memory is all overhead: it cannot come near its floor of a few bytes.
    command = ["bench", "memory", "--device", "cpu", "--model", "tiny", "--steps", "700", "--json", str(out)]
    assert cli.main(command) == 1
    printed = capsys.readouterr().out
    assert "MISSED" in printed
    assert max(map(len, printed.splitlines())) <= 80
    written = json.loads(out.read_text())
    assert written["settings"]["model"] == "tiny"
    assert written["machine"]["torch"] == torch.__version__
    by_name = {measure["name"]: measure for measure in written["measures"]}
    assert by_name["update / floor"]["met"] is False
    fields = {key: value for key, value in by_name["snapshot"].items() if key not in ("ratio", "met")}
    assert Measure(**fields).samples == 7
