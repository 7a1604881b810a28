"""Plans of memory, against what models take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_networks import SmallShape, model_of, qwen2_5_vl, qwen3_vl
from test_model_prefix_cache import prefill
from wide_networks import wide_config, write_empty_checkpoint

from fvs_ros.bench.shapes import SHAPES
from fvs_ros.cli import main
from fvs_ros.commands.memory_plan import MAX_PIXELS, frames_of, smallest_device
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.model import checkpoint, memory_plan
from fvs_ros.model.checkpoint import CheckpointError, load_checkpoint
from fvs_ros.model.families import backbone_of
from fvs_ros.model.memory_plan import BATCH_STEPS, FRAME_PIXELS, MemoryPlanner, check_room
from fvs_ros.model.quantization import Quantization
from fvs_ros.model.quantized_weights import quantize_layers, weight_bytes
from fvs_ros.model.tiny import write_tiny_checkpoint
from fvs_ros.stream.config import StreamConfig

CPU = torch.device("cpu")
MEMORY = FlashMemoryConfig(csm_slots=12, dam_slots=12, window_slots=2)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen2_5_vl, tied", "qwen3_vl"])
def test_weights_memory_and_buffers_are_those_of_the_model(kind: str) -> None:
    network = qwen3_vl() if kind == "qwen3_vl" else qwen2_5_vl(SmallShape(layers=3, tied="tied" in kind))
    planner, model = MemoryPlanner(network.config, MEMORY), model_of(network, MEMORY)
    grid = PatchGrid(12, 8, 16 if kind == "qwen3_vl" else 14)
    plan = planner.plan(grid, torch.float32, Quantization.NONE, "cpu")
    assert plan.weights == weight_bytes(network)
    memory = model.new_memory(grid)
    assert plan.memory == memory.bytes
    features = model.encode_pixels(torch.zeros(2, 3, grid.height * grid.patch, grid.width * grid.patch))
    memory.append(features.high, features.low, [0], [1])
    cache = model.new_prefix_cache()
    prefill(cache, memory.snapshot())
    # Other tokenizers need other numbers of tokens for the words around the memory.
    assert abs(plan.buffers / cache.bytes - 1) < 0.25
    quantize_layers(backbone_of(network), Quantization.INT8)
    assert planner.weight_bytes(torch.float32, Quantization.INT8) == weight_bytes(network)


def test_four_bits_are_padded_as_their_kernel_wants_it() -> None:
    """Of Qwen2-VL-7B: linear layers of 6.5 G weights, whose inputs of 3,584 and 18,944 become 4,096 and 19,456."""
    shape = SHAPES["qwen2-vl-7b"]
    planner = MemoryPlanner(shape.network_config(), shape.memory.config)
    sizes = [planner.weight_bytes(torch.bfloat16, one) / 1e9 for one in Quantization]
    assert sizes == pytest.approx([16.6, 10.1, 7.4], abs=0.1)


MEASURE = """
import json, sys, numpy
from transformers.utils.logging import disable_progress_bar
from fvs_ros.model.flash_vstream import FlashVStream
disable_progress_bar()
def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
def run(folder):
    sizes = {"csm_slots": 8, "dam_slots": 4, "window_slots": 1}
    model = FlashVStream.load(folder, device="cpu", dtype="float32", quantization=sys.argv[3], **sizes)
    grid = model.frame_grid(336, 336, 112_896, 112_896)
    memory, frames = model.new_memory(grid), [numpy.zeros((336, 336, 3), numpy.uint8)] * 8
    # More steps than slots, and than the micro-clusters that they are made of.
    for first in range(0, 48, 4):
        stamps = list(range(first, first + 4))
        features = model.encode_steps(frames, grid)
        memory.append(features.high, features.low, stamps, stamps)
    snapshots = [memory.snapshot() for _ in range(3)]
    cache = model.new_prefix_cache()
    prefilled = cache.allocate(snapshots[0])
    while not prefilled.prefill_chunk():
        pass
    prefilled.start("What?", 4)
    return model, memory, snapshots, cache
run(sys.argv[1])
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS:")
kept = run(sys.argv[2])
print(json.dumps(status("VmHWM:") - before))
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("quantization", [Quantization.NONE, Quantization.INT8])
def test_the_peak_is_what_a_process_takes(
    quantization: Quantization, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = {
        "hidden_size": 1_024,
        "intermediate_size": 4_096,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
    }
    config = wide_config(text, layers=3)
    config.vision_config.embed_dim, config.vision_config.num_heads = 640, 8
    write_tiny_checkpoint(tmp_path / "warm")
    write_empty_checkpoint(tmp_path / "model", config)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "warm"), str(tmp_path / "model"), quantization.value]
    taken = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    planner = MemoryPlanner(config, FlashMemoryConfig(csm_slots=8, dam_slots=4, window_slots=1))
    plan = planner.plan(PatchGrid(24, 24), torch.float32, quantization, "cpu")
    with capsys.disabled():
        print(f"\n{quantization.value}: {taken / 1e6:.0f} MB were taken, {plan.peak / 1e6:.0f} planned: {plan}")
    assert 0.9 < taken / plan.peak < 1.15


def test_before_loading_it_says_which_setting_fits(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = SHAPES["qwen2-vl-7b"]
    planner = MemoryPlanner(shape.network_config(), shape.memory.config)
    others, device = [Quantization.INT8, Quantization.INT4], torch.device("cuda:0")

    def check(free_gb: float, quantization: Quantization = Quantization.NONE) -> str:
        monkeypatch.setattr(memory_plan, "free_bytes", lambda device: int(free_gb * 1e9))
        caplog.clear()
        check_room(planner, shape.family.pixels, torch.bfloat16, quantization, device, others)
        return caplog.text

    assert check(24) == ""
    assert "set quantization to int8, which needs 14.5 GB" in check(18)
    with pytest.raises(CheckpointError, match=r"weights take 16\.6 GB, .*cuda:0 has 16\.0 GB free; .* to int8"):
        check(16)
    with pytest.raises(CheckpointError, match=r"cuda:0 has 12\.0 GB free; set quantization to int4, which needs 11\.7"):
        check(12)
    with pytest.raises(CheckpointError, match="choose a smaller model, fewer slots or smaller frames"):
        check(8)
    assert check(14.7, Quantization.INT8) == ""


def test_a_checkpoint_that_does_not_fit_is_refused_before_its_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_checkpoint(tmp_path)
    monkeypatch.setattr(checkpoint, "LARGE", 0)
    monkeypatch.setattr(checkpoint, "load_network", None)
    monkeypatch.setattr(memory_plan, "free_bytes", lambda device: 1_000)
    with pytest.raises(CheckpointError, match=r"cpu has 0\.0 GB free; choose a smaller model"):
        load_checkpoint(str(tmp_path), device=CPU, dtype=torch.float32)


PUBLISHED = {
    "Qwen2-VL-2B": "qwen2-vl-2b",
    "Qwen3-VL-4B": "qwen3-vl-4b",
    "Qwen2-VL-7B": "qwen2-vl-7b",
    "Qwen3-VL-8B": "qwen3-vl-8b",
}


def test_the_readme_has_what_the_command_prints() -> None:
    lines = [
        "| model | `quantization` | weights | small frames | default | large frames |",
        "|---|---|---|---|---|---|",
    ]
    for name, shape in PUBLISHED.items():
        config, pixels = SHAPES[shape].network_config(), SHAPES[shape].family.pixels
        planner = MemoryPlanner(config, SHAPES[shape].memory.config)
        for quantization in Quantization:
            plans = [planner.plan(frames_of(most, pixels), torch.bfloat16, quantization, "cuda") for most in MAX_PIXELS]
            cells = [f"{plan.peak / 1e9:.1f}: {smallest_device(plan)}" for plan in plans]
            row = [name, f"`{quantization.value}`", f"{plans[0].weights / 1e9:.1f}", *cells]
            lines.append(f"| {' | '.join(row)} |")
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    table = readme.split("test_model_memory_plan.py compares -->\n")[1].split("\n<!-- end -->")[0]
    assert table.splitlines() == lines


def test_what_it_takes_for_granted_are_the_defaults_of_the_node() -> None:
    node = StreamConfig()
    assert (*FRAME_PIXELS, BATCH_STEPS) == (node.min_pixels, node.max_pixels, node.batch_steps)


def test_without_deepstack_the_memory_takes_a_quarter() -> None:
    shape = SHAPES["qwen3-vl-2b"]
    full, without = (
        MemoryPlanner(shape.network_config(), shape.memory.config, deepstack=deepstack).plan(
            PatchGrid(20, 36, 16), torch.bfloat16, Quantization.NONE, "cuda"
        )
        for deepstack in (True, False)
    )
    assert without.snapshots == full.snapshots // 4
    assert without.memory < 0.26 * full.memory
    with pytest.raises(ValueError, match="has no DeepStack"):
        MemoryPlanner(SHAPES["embedded"].network_config(), MEMORY, deepstack=False)


def test_the_command_needs_a_configuration_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_checkpoint(tmp_path / "full")
    (tmp_path / "config").mkdir()
    (tmp_path / "full" / "config.json").rename(tmp_path / "config" / "config.json")
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["memory-plan", str(tmp_path / "config"), "--max-pixels", "200704"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "560 x 336" in line]
    assert [(row[3], row[-2:]) for row in rows] == [(one.value, ["8", "GB"]) for one in Quantization]
    assert main(["memory-plan", "qwen9"]) == 1
    assert "qwen9 is no folder here and not in the hub's local cache; name" in capsys.readouterr().err
