"""Weights in eight and four bits: what they compute, where they are refused, and what they do to answers."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from patrol_drawing import drawing
from small_networks import SmallShape, model_of, qwen2_5_vl, qwen3_vl
from test_model_prefix_cache import finish, prefill, snapshot
from wide_networks import QWEN2_VL_2B, wide_network

from fvs_ros.evaluation.timed.patrol import PatrolPlan, answer_episodes
from fvs_ros.evaluation.timed.stream_run import RunOptions
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.model.checkpoint import CheckpointError
from fvs_ros.model.decoder import Decoder, Prefix, SuffixChunk
from fvs_ros.model.families import backbone_of
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.names import EMBEDDED, TINY
from fvs_ros.model.quantization import Quantization
from fvs_ros.model.quantized_weights import (
    check_usable,
    linear_layers,
    parts_of,
    quantize,
    quantize_layers,
    restore,
    weight_bytes,
)
from fvs_ros.patrol.config import FRAME_SIZE, TEST_SEED
from fvs_ros.stream.config import StreamConfig

CPU = torch.device("cpu")
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def weight(outputs: int, inputs: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_is_the_nearest_of_255_steps_of_a_row(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    full = weight(50, 96, dtype)
    # In five pieces, the last one shorter.
    monkeypatch.setattr("fvs_ros.model.quantized_weights.AT_ONCE", 12 * 96)
    parts = parts_of(quantize("w", full, Quantization.INT8))
    assert (parts["int8"].dtype, parts["int8"].shape, parts["scale"].shape) == (torch.int8, (50, 96), (50, 1))
    steps = full.float().abs().amax(1, keepdim=True) / 127.5
    torch.testing.assert_close(parts["scale"].float(), steps, rtol=1e-2, atol=0)
    error = (parts["int8"] * parts["scale"].float() - full.float()).abs()
    assert bool((error <= 0.51 * parts["scale"].float() + 1e-2 * full.float().abs()).all())


def test_a_layer_computes_with_what_its_parts_say() -> None:
    linear = torch.nn.Linear(96, 50)
    linear.weight = quantize("w", linear.weight.detach(), Quantization.INT8)
    values, scales = parts_of(linear.weight).values()
    inputs = weight(7, 96)
    expected = inputs @ (values * scales).T + linear.bias
    torch.testing.assert_close(linear(inputs), expected, rtol=1e-5, atol=1e-5)
    again = restore((values, scales), torch.Size((50, 96)), torch.float32, Quantization.INT8)
    torch.testing.assert_close(torch.nn.functional.linear(inputs, again, linear.bias), linear(inputs), rtol=0, atol=0)


def test_the_language_models_linear_layers_are_quantised_and_nothing_else() -> None:
    network = qwen2_5_vl(SmallShape(layers=3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    full = weight_bytes(network)
    quantize_layers(backbone_of(network), Quantization.INT8)
    changed = {name for name, value in network.named_parameters() if "" not in parts_of(value)}
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    mlp = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert changed == {
        f"model.language_model.layers.{layer}.{part}.weight" for layer in range(3) for part in (*parts, *mlp)
    }
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items() if name not in changed)
    # A byte instead of four for each weight, and four for each row.
    rows = sum(before[name].shape[0] for name in changed)
    assert weight_bytes(network) == full - sum(3 * before[name].numel() for name in changed) + 4 * rows


def test_none_leaves_everything_as_it_is() -> None:
    network = qwen2_5_vl()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    quantize_layers(backbone_of(network), Quantization.NONE)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_prefilled_answers_of_a_quantised_model_are_those_of_the_reference_path() -> None:
    network = qwen2_5_vl()
    quantize_layers(backbone_of(network), Quantization.INT8)
    model = model_of(network, FlashMemoryConfig(csm_slots=6, dam_slots=3, window_slots=2))
    memory, cache = snapshot(model), model.new_prefix_cache()
    prefilled = prefill(cache, memory)
    questions = ("What?", "Where is the red box?")
    texts = finish(prefilled, *(prefilled.start(question, 20) for question in questions))
    assert texts == [model.answer(memory, question, max_new_tokens=20) for question in questions]


def test_prefilled_answers_of_a_quantised_qwen3_vl_are_those_of_the_reference_path() -> None:
    """With DeepStack, whose features stand behind those of the last block."""
    network = qwen3_vl()
    with torch.no_grad():
        full = logits(network)
        quantize_layers(backbone_of(network), Quantization.INT8)
        assert 0 < (logits(network) - full).std() < 0.1 * full.std()
    model = model_of(network, FlashMemoryConfig(csm_slots=6, dam_slots=3, window_slots=2))
    features = model.encode_pixels(torch.randn(24, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    stream = model.new_memory(PatchGrid(4, 4, 16))
    stream.append(features.high, features.low, list(range(12)), list(range(12)))
    memory = stream.snapshot()
    prefilled = prefill(model.new_prefix_cache(), memory)
    questions = ("What?", "Where is the red box?")
    texts = finish(prefilled, *(prefilled.start(question, 20) for question in questions))
    assert texts == [model.answer(memory, question, max_new_tokens=20) for question in questions]


def test_a_quantised_model_has_a_fingerprint_of_its_own() -> None:
    plain, first, second = (FlashVStream.load(TINY, quantization=name) for name in ("none", "int8", "int8"))
    assert first.fingerprint() == second.fingerprint() != plain.fingerprint()


def logits(network: Any) -> torch.Tensor:
    """Logits [1, V] after 64 tokens of a prefix and 16 of a question."""
    backbone = backbone_of(network)
    decoder = Decoder(backbone)
    tokens = torch.arange(64) % 200
    positions = torch.arange(64).expand(3, -1)
    prefix = decoder.prefill(Prefix(decoder.allocate(1, 64), 0), backbone.embeddings(tokens), positions)
    chunk = SuffixChunk(0, list(range(16)), 0, 64)
    return decoder.extend(prefix, decoder.allocate(1, 17), [chunk])


def test_logits_of_a_network_of_real_width_stay_close(capsys: pytest.CaptureFixture[str]) -> None:
    network = wide_network(QWEN2_VL_2B, layers=2)
    with torch.no_grad():
        full = logits(network)
        quantize_layers(backbone_of(network), Quantization.INT8)
        error = (logits(network) - full).square().mean().sqrt() / full.std()
    with capsys.disabled():
        print(f"\nint8 at the width of Qwen2-VL-2B, 2 layers: logits are off by {100 * error:.2f} percent (RMS)")
    assert 0 < error < 0.05


def accuracy(answers: Sequence[tuple[str, object]]) -> float:
    return 100 * sum(response == truth for response, truth in answers) / len(answers)


def test_held_out_accuracy_of_int8_is_within_a_point(capsys: pytest.CaptureFixture[str]) -> None:
    """The same 224 questions to both, about four patrols that no training sees."""
    plan = PatrolPlan(questions=56, moments=3, shortest=40, longest=40)
    stream = StreamConfig(min_pixels=FRAME_SIZE**2, max_pixels=FRAME_SIZE**2, max_new_tokens=32)
    seeds = range(TEST_SEED, TEST_SEED + 4)
    truths = {one.id: one.answer_text for seed in seeds for one in plan.ask(plan.episode(seed))}
    found: dict[str, dict[str, str]] = {}
    for name in ("none", "int8"):
        with drawing():
            load = partial(FlashVStream.load, EMBEDDED, device="cpu", quantization=name)
            episodes = list(answer_episodes(load, RunOptions(stream), plan, seeds, workers=1))
        found[name] = {row.id: str(row.response) for one in episodes for rows in one.rows.values() for row in rows}
    assert found["none"].keys() == found["int8"].keys() == truths.keys()
    none, int8 = (accuracy([(texts[one], truth) for one, truth in truths.items()]) for texts in found.values())
    same = accuracy([(found["int8"][one], text) for one, text in found["none"].items()])
    with capsys.disabled():
        print(
            f"\nembedded, {len(truths)} held-out questions: {none:.1f} percent, with int8 {int8:.1f}; "
            f"{same:.1f} percent of the answers are the same"
        )
    assert none > 50
    assert abs(int8 - none) <= 1


def test_int4_is_refused_where_its_kernel_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"compute capability 8\.0 or above, and the model is to run on cpu; use"):
        check_usable(Quantization.INT4, CPU, torch.bfloat16)
    with pytest.raises(CheckpointError, match="int4 needs CUDA"):
        FlashVStream.load(EMBEDDED, device="cpu", quantization="int4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(CheckpointError, match=r"cuda:0 with compute capability 7\.5"):
        check_usable(Quantization.INT4, torch.device("cuda:0"), torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 7))
    check_usable(Quantization.INT4, torch.device("cuda:0"), torch.bfloat16)
    with pytest.raises(CheckpointError, match=r"computes in bfloat16, and dtype is torch\.float16"):
        check_usable(Quantization.INT4, torch.device("cuda:0"), torch.float16)


def test_without_torchao_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="int8 needs torchao, which is not installed: pip install"):
        check_usable(Quantization.INT8, CPU, torch.float32)
    check_usable(Quantization.NONE, CPU, torch.float32)


def test_an_unknown_quantization_is_named() -> None:
    with pytest.raises(CheckpointError, match="quantization is 'fp8'; it must be none, int8 or int4"):
        FlashVStream.load(TINY, quantization="fp8")


@NEEDS_CUDA
@pytest.mark.parametrize(("quantization", "bound"), [(Quantization.INT8, 0.04), (Quantization.INT4, 0.25)])
def test_captured_answers_of_a_quantised_model_are_those_of_the_reference_path_on_cuda(
    quantization: Quantization, bound: float
) -> None:
    shape = SmallShape(width=256, heads=4, text={"intermediate_size": 512})
    network = qwen2_5_vl(shape).to("cuda", torch.bfloat16)
    with torch.no_grad():
        linears = [module for _, module in linear_layers(backbone_of(network).layers)]
        inputs = torch.randn(16, linears[0].in_features, device="cuda", dtype=torch.bfloat16)
        full = linears[0](inputs)
        quantize_layers(backbone_of(network), quantization)
        assert (linears[0](inputs) - full).float().std() < bound * full.float().std()
    model = model_of(network, FlashMemoryConfig(csm_slots=6, dam_slots=3, window_slots=2))
    features = model.encode_pixels(torch.randn(12, 3, 56, 56, device="cuda"))
    stream = model.new_memory(PatchGrid(4, 4))
    stream.append(features.high, features.low, list(range(6)), list(range(6)))
    memory, cache = stream.snapshot(), model.new_prefix_cache()
    prefilled = prefill(cache, memory)
    texts = finish(prefilled, *(prefilled.start(question, 8) for question in ("What?", "Where?")))
    plain = [model.answer(memory, question, max_new_tokens=8) for question in ("What?", "Where?")]
    assert sum(one == other for one, other in zip("".join(texts), "".join(plain), strict=False)) >= 8
