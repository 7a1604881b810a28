import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import require_ros
from small_networks import SmallShape, qwen3_vl_config

from fvs_ros import cli
from fvs_ros.bench import answer, measure, memory, recall, shapes
from fvs_ros.bench.answer import bench_answer
from fvs_ros.bench.costs import Cost, ModelCosts
from fvs_ros.bench.ingest import bench_ingest
from fvs_ros.bench.measure import Machine, Measurement, Setup, Stopwatch, describe_machine, summarise
from fvs_ros.bench.memory import MixedScenes, bench_memory
from fvs_ros.bench.published_streaming import PublishedStreamingMemory
from fvs_ros.bench.recall import bench_recall
from fvs_ros.bench.shapes import SHAPES, MemoryShape, ModelShape, random_checkpoint
from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.recalled import NEWEST, SPACED
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.model.checkpoint import load_checkpoint
from fvs_ros.model.families import QWEN2_VL, QWEN3_VL
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.model.quantization import Quantization
from fvs_ros.model.quantized_weights import linear_layers
from fvs_ros.model.tiny import tiny_network_config
from fvs_ros.training.config import ScratchConfig
from fvs_ros.training.scratch import new_checkpoint

CPU = torch.device("cpu")
BOTH_FAMILIES = pytest.mark.parametrize(
    "small_model", [QWEN2_VL, QWEN3_VL], ids=["qwen2_vl", "qwen3_vl"], indirect=True
)
SMALL = MemoryShape(PatchGrid(4, 4), 4, FlashMemoryConfig(csm_slots=3, dam_slots=2))


@pytest.fixture(scope="module")
def machine() -> Machine:
    return describe_machine(CPU, torch.float32)


@pytest.fixture
def small_model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a shape that is far smaller than any that ships; a Qwen2-VL, or what a test asks for."""
    if getattr(request, "param", QWEN2_VL) is QWEN3_VL:
        small = qwen3_vl_config(SmallShape())
        text, vision = {**small.text_config.to_dict(), "vocab_size": 300}, small.vision_config.to_dict()
        memory = MemoryShape(PatchGrid(4, 4, 16), 3 * 64, SMALL.config)
        monkeypatch.setitem(
            shapes.SHAPES, "embedded", ModelShape(text, vision, frame=64, memory=memory, family=QWEN3_VL)
        )
        return "embedded"
    config = tiny_network_config()
    text = {**config.text_config.to_dict(), "vocab_size": 300}
    shape = ModelShape(
        text, config.vision_config.to_dict(), frame=56, memory=MemoryShape(PatchGrid(4, 4), 64, SMALL.config)
    )
    monkeypatch.setitem(shapes.SHAPES, "embedded", shape)
    return "embedded"


def setup(machine: Machine, steps: int) -> Setup:
    return Setup(machine, CPU, torch.float32, steps, seed=0)


def by_name(measurements: list[Measurement]) -> dict[str, Measurement]:
    return {one.name: one for one in measurements}


def test_a_summary_orders_its_samples() -> None:
    row = summarise("x", "ms", [5.0, 1.0, 3.0, 2.0, 100.0], floor=1.5)
    assert (row.samples, row.median, row.p95, row.maximum) == (5, 3.0, 100.0, 100.0)
    assert row.ratio == 2.0


def test_the_median_of_an_even_count_lies_between_the_two_in_the_middle() -> None:
    assert summarise("x", "ms", [4.0, 1.0, 2.0, 10.0]).median == 3.0


def test_a_target_can_be_asked_of_the_tail() -> None:
    samples = [1.0] * 9 + [9.0]
    assert summarise("x", "ms", samples, target=2.0).met
    assert summarise("x", "ms", samples, target=2.0, of="p95").met is False
    assert summarise("x", "ms", samples, target=9.0, of="maximum").met


@pytest.mark.parametrize(("least", "met"), [(False, True), (True, False)])
def test_a_target_is_a_most_or_a_least(least: bool, met: bool) -> None:
    assert summarise("x", "ms", [1.0], target=2.0, least=least).met is met
    assert summarise("x", "ms", [1.0]).met is None


def test_the_stopwatch_counts_milliseconds() -> None:
    deadline = torch.zeros(1)
    watch = Stopwatch(CPU)
    assert 0 <= watch.milliseconds(lambda: deadline.add_(1)) < 60_000
    assert deadline == 1
    assert len(watch.samples(lambda: deadline.add_(1), 3)) == 3
    assert deadline == 5, "one call warms up"


def test_the_machine_is_measured(machine: Machine) -> None:
    assert machine.read_bytes_per_s > 1e8
    assert machine.copy_bytes_per_s > 1e8
    assert machine.flops_per_s > 1e8
    assert machine.device


def test_scenes_repeat_with_their_seed_and_differ_from_step_to_step() -> None:
    one, other = (MixedScenes(SMALL, CPU, torch.float32, seed=3) for _ in range(2))
    first = one.step()[1]
    assert torch.equal(first, other.step()[1])
    assert not torch.equal(first, one.step()[1])


def test_the_published_method_keeps_every_step_and_its_slots() -> None:
    published = PublishedStreamingMemory(SMALL.config, torch.Generator().manual_seed(0))
    scenes = MixedScenes(SMALL, CPU, torch.float32, seed=0)
    details = [published.append(*scenes.step()) for _ in range(9)]
    assert [detail.shape[0] for detail in details] == [1] + [2] * 8
    kept = (published._high, published._low, published._centroids)
    assert [tensor.shape[0] for tensor in kept if tensor is not None] == [9, 9, 3]
    assert published._weights is not None
    assert published._weights.sum() == 9


def test_the_memory_is_measured_early_and_late(
    machine: Machine, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "BASELINE_STEPS", 20)
    rows = by_name(bench_memory(small_model, setup(machine, steps=700)))
    update = rows["update (last 100)"]
    assert update.samples == 100
    assert update.median > 0
    assert update.floor is not None
    assert rows["update / floor"].median == pytest.approx(update.median / update.floor)
    assert rows["snapshot"].samples == 7
    assert "published, step 300" not in rows
    assert rows["published, step 20"].samples == 10


def test_too_few_steps_are_refused(machine: Machine, small_model: str) -> None:
    with pytest.raises(ValueError, match="at least 700"):
        bench_memory(small_model, setup(machine, steps=699))


def test_the_command_prints_writes_and_fails_where_a_target_is_missed(
    tmp_path: Path, small_model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "BASELINE_STEPS", 20)
    out = tmp_path / "memory.json"
    # So small a memory is all overhead: it cannot come near its floor of a few bytes.
    command = ["bench", "memory", "--device", "cpu", "--model", small_model, "--steps", "700", "--json", str(out)]
    assert cli.main(command) == 1
    printed = capsys.readouterr().out
    assert "MISSED" in printed
    assert max(map(len, printed.splitlines())) <= 80
    written = json.loads(out.read_text())
    assert written["settings"]["model"] == small_model
    assert written["machine"]["torch"] == torch.__version__
    rows = {row["name"]: row for row in written["measurements"]}
    assert rows["update / floor"]["met"] is False
    fields = {key: value for key, value in rows["snapshot"].items() if key not in ("ratio", "met")}
    assert Measurement(**fields).samples == 7


def test_the_embedded_shape_is_that_of_the_model_that_ships() -> None:
    shipped = load_checkpoint("embedded", device=CPU, dtype=torch.float32).config
    depth = shipped.network.text_config.num_hidden_layers
    embedded = new_checkpoint(ScratchConfig(text_depth=depth), seed=0).config
    ours = SHAPES["embedded"].network_config()
    for part in ("text_config", "vision_config"):
        expected = getattr(embedded.network, part).to_dict()
        found = getattr(ours, part).to_dict()
        for key in ("bos_token_id", "eos_token_id", "dtype", "pad_token_id", "vocab_size"):
            expected.pop(key, None)
            found.pop(key, None)
        assert found == expected
    assert ours.tie_word_embeddings == embedded.network.tie_word_embeddings
    shape = SHAPES["embedded"]
    assert shape.memory.config == shipped.memory
    assert shape.memory.feature_dim == ScratchConfig().vision_width
    assert shape.memory.grid.height * 14 == shape.frame
    assert shape.frame**2 == ScratchConfig().frame_pixels


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("qwen2.5-vl-3b", 3.75),
        ("qwen2-vl-2b", 2.21),
        ("qwen2-vl-7b", 8.29),
        ("qwen3-vl-2b", 2.13),
        ("qwen3-vl-4b", 4.44),
        ("qwen3-vl-8b", 8.77),
    ],
)
def test_the_published_shapes_have_their_parameters(name: str, billions: float) -> None:
    """Without the storage of any of them."""
    network = random_checkpoint(name, torch.device("meta"), torch.bfloat16, seed=0).network
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e9 == pytest.approx(billions, rel=0.01)


def test_random_models_are_the_same_for_a_seed_and_answer_in_letters(small_model: str) -> None:
    models = [FlashVStream(random_checkpoint(small_model, CPU, torch.float32, seed), "m") for seed in (1, 1, 2)]
    scenes = MixedScenes(SHAPES[small_model].memory, CPU, torch.float32, seed=0)
    memory = models[0].new_memory(PatchGrid(4, 4))
    memory.append(*scenes.step(), 0, 1)
    answers = [model.answer(memory.snapshot(), "What?", max_new_tokens=20) for model in models]
    assert answers[0] == answers[1] != answers[2]
    assert len(answers[0]) == 20
    assert answers[0].isalpha()


def test_a_floor_is_the_longer_of_arithmetic_and_memory(machine: Machine) -> None:
    assert Cost(machine.flops_per_s, 0).floor_ms(machine) == pytest.approx(1e3)
    assert Cost(1, 2 * machine.read_bytes_per_s).floor_ms(machine) == pytest.approx(2e3)
    assert Cost(1, 2) + Cost(3, 4) == Cost(4, 6)


def test_costs_of_the_7b_model_are_those_of_its_sizes() -> None:
    network = random_checkpoint("qwen2-vl-7b", torch.device("meta"), torch.bfloat16, seed=0).network
    costs = ModelCosts(network)
    # A grid step of 448 x 448: 1280 patches through 0.65 G parameters; the attention adds a tenth.
    assert costs.encode(PatchGrid(32, 32)).flop / 1e12 == pytest.approx(1.8, abs=0.1)
    # 6.5 G parameters in bfloat16, and half a gigabyte of logits' weights.
    token = costs.extend(10_000, 1)
    assert token.bytes / 1e9 == pytest.approx(14.7, abs=0.5)
    assert token.flop / 1e9 == pytest.approx(18, abs=2)
    assert costs.extend(10_000, 1, 4).bytes == token.bytes, "four answers read the weights and the prefix once"


@pytest.mark.parametrize("small_model", [QWEN3_VL], ids=["qwen3_vl"], indirect=True)
def test_a_quantised_model_is_measured_and_its_floors_are_those_of_fewer_bytes(
    small_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("YOUNG", 5), ("REPEATS", 4), ("TOKENS", 6), ("WARM_QUESTIONS", 2), ("FRESH_QUESTIONS", 2)):
        monkeypatch.setattr(answer, name, value)
    out = tmp_path / "answer.json"
    command = ["bench", "answer", "--device", "cpu", "--steps", "5", "--quantization", "int8", "--json", str(out)]
    cli.main(command)
    written = json.loads(out.read_text())
    assert written["settings"]["quantization"] == "int8"
    assert {"a token", "first token, 4 fps in"} <= {row["name"] for row in written["measurements"]}
    plain, int8 = (random_checkpoint(small_model, CPU, torch.float32, 0, one) for one in list(Quantization)[:2])
    assert int8.config.quantization is Quantization.INT8
    layers = sum(linear.weight.numel() for _, linear in linear_layers(plain.backbone.layers))
    rows = sum(linear.out_features for _, linear in linear_layers(plain.backbone.layers))
    saved = ModelCosts(plain.network).extend(100, 1).bytes - ModelCosts(int8.network).extend(100, 1).bytes
    assert saved == 3 * layers - 4 * rows


def test_memory_has_nothing_to_quantise(small_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "memory", "--device", "cpu", "--model", small_model, "--quantization", "int8"]) == 1
    assert "memory has no language model" in capsys.readouterr().err


@BOTH_FAMILIES
def test_answers_are_measured_young_and_old_and_under_load(
    machine: Machine, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("YOUNG", 5), ("REPEATS", 4), ("TOKENS", 6), ("WARM_QUESTIONS", 6), ("FRESH_QUESTIONS", 3)):
        monkeypatch.setattr(answer, name, value)
    monkeypatch.setattr(answer, "MOST_GAP_S", 0.12)
    rows = by_name(bench_answer(small_model, setup(machine, steps=20)))
    assert {"prefill, step 5", "prefill, step 20", "first token then", "first token, plain", "a token"} <= rows.keys()
    warm = rows["first token, 4 fps in"]
    assert (warm.samples, warm.of, warm.target) == (6, "p95", 100.0)
    assert warm.median > 0
    assert rows["fresh, 4 fps in"].samples == 3
    assert rows["frames not prefilled yet"].samples == 6
    assert (rows["prefill, step 20"].floor or 0) > 0
    tokenizer = random_checkpoint(small_model, CPU, torch.float32, seed=0).tokenizer
    assert len(PromptBuilder(tokenizer).build(answer.QUESTION).suffix) > 5
    with pytest.raises(ValueError, match="asked for 4 steps"):
        bench_answer(small_model, setup(machine, steps=4))


def test_recall_is_measured_on_a_store_that_was_opened_again(
    machine: Machine, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "QUESTIONS", 3)
    segments = 2 * NEWEST + SPACED
    many = replace(SMALL.config, csm_slots=NEWEST + SPACED + 2)
    shape = shapes.SHAPES[small_model]
    monkeypatch.setitem(shapes.SHAPES, small_model, replace(shape, memory=replace(shape.memory, config=many)))
    rows = by_name(bench_recall(small_model, setup(machine, segments)))
    assert rows["opening to the first answer"].target == 2.0
    recalling = rows["first token with recall, 4 fps in"]
    assert (recalling.samples, recalling.of, recalling.target) == (3, "p95", 150.0)
    assert rows["first token without, 4 fps in"].samples == 3
    with pytest.raises(ValueError, match="nothing is recalled of 50 or fewer"):
        bench_recall(small_model, setup(machine, 50))


@BOTH_FAMILIES
def test_ingest_is_measured_from_message_to_memory(machine: Machine, small_model: str) -> None:
    rows = by_name(bench_ingest(small_model, setup(machine, steps=200)))
    for name in ("decode 1080p, raw", "decode 1080p, JPEG", "resize it", "encode a step (ViT)", "a step to memory"):
        assert rows[name].median > 0
        assert rows[name].samples == measure.REPEATS
    floor = rows["encode a step (ViT)"].floor
    assert floor is not None
    assert rows["a step to memory"].floor == floor > 0
    assert rows["growth since step 100"].median < 0.05
    with pytest.raises(ValueError, match="at least 200"):
        bench_ingest(small_model, setup(machine, steps=199))


@pytest.mark.parametrize(("what", "steps"), [("ingest", 10), ("answer", 10), ("recall", 1), ("node", 1)])
def test_every_benchmark_is_reached_and_has_its_own_defaults(
    what: str, steps: int, small_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if what == "node":
        require_ros()
    assert cli.main(["bench", what, "--device", "cpu", "--steps", str(steps)]) == 1
    assert f"fvs bench: asked for {steps} s" in capsys.readouterr().err
