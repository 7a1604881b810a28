"""What an answer rests on: attention to slots, and the probability that it makes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.model.checkpoint import CheckpointError
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.generation import Generation
from fvs_ros.model.prefix_cache import PrefilledMemory, PrefixCache
from fvs_ros.model.relevance import RelevanceRule, RelevanceWeights, RowAttention, slots_of_tokens
from fvs_ros.model.tiny import write_tiny_checkpoint

MEMORY = FlashMemoryConfig(csm_slots=6, dam_slots=3, window_slots=2)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(folder, memory=MEMORY)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> FlashVStream:
    return FlashVStream.load(str(folder), device="cpu")


def filled(model: FlashVStream, steps: int) -> StreamingFlashMemory:
    grid = model.frame_grid(56, 112, 56 * 112, 56 * 112)
    memory = model.new_memory(grid)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        high, low = (
            torch.randn(count, model._backbone.tower.width, generator=generator)
            for count in (grid.patches, grid.low_patches)
        )
        memory.append(high, low, 2 * step, 2 * step + 1)
    return memory


def prefilled(cache: PrefixCache, model: FlashVStream, steps: int = 40) -> PrefilledMemory:
    memory = cache.allocate(filled(model, steps).snapshot())
    while not memory.prefill_chunk():
        pass
    return memory


def finish(memory: PrefilledMemory, *generations: Generation) -> list[tuple[float, ...]]:
    while not all(one.done for one in generations):
        memory.decode_step()
    for one in generations:
        one.close()
    return [one.relevance or () for one in generations]


def test_it_is_a_probability_over_all_slots_of_the_memory(model: FlashVStream) -> None:
    cache = model.new_prefix_cache()
    for steps, slots in ((1, 3), (2, 6), (40, 11)):
        memory = prefilled(cache, model, steps)
        for tokens in (1, 4):
            (relevance,) = finish(memory, memory.start("Where is it?", tokens))
            assert len(relevance) == slots
            assert sum(relevance) == pytest.approx(1, abs=1e-5)
            assert min(relevance) >= 0
        memory.close()


def test_answers_given_at_once_rest_on_what_they_rest_on_alone(model: FlashVStream) -> None:
    questions = ["Where is it?", "What was on the table before that, and how many were there?", "Which?"] * 2
    cache = model.new_prefix_cache()
    memory = prefilled(cache, model)
    alone = [finish(memory, memory.start(question, 5))[0] for question in questions]
    together = finish(memory, *(memory.start(question, 5) for question in questions))
    for one, other in zip(alone, together, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert alone[0] != pytest.approx(alone[1], abs=1e-6)


def test_the_rule_without_weights_is_the_mean_over_the_upper_half() -> None:
    rule = RelevanceRule(None, 5, CPU)
    assert rule.layers == (2, 3, 4)
    question = torch.zeros(3, 2, 4)
    question[..., 1] = 0.3
    answer = torch.zeros(3, 2, 4)
    answer[..., 2] = 0.1
    assert rule.of(question, answer, 3).tolist() == pytest.approx([0, 0.75, 0.25])
    assert rule.of(question, None, 3).tolist() == pytest.approx([0, 1, 0])


def test_without_any_attention_to_the_memory_nothing_is_relevant() -> None:
    relevance = RelevanceRule(None, 2, CPU).of(torch.zeros(1, 2, 4), None, 3)
    assert relevance.tolist() == [0.0, 0.0, 0.0]


def test_weights_choose_layers_and_heads() -> None:
    weights = RelevanceWeights(question=((0.0, 0.0), (0.0, 1.0)), answer=((0.0, 0.0), (0.0, 0.0)))
    rule = RelevanceRule(weights, 2, CPU)
    assert rule.layers == (1,)
    question = torch.tensor([[[0.9, 0.1, 0.0], [0.1, 0.3, 0.0]]])
    assert rule.of(question, None, 2).tolist() == pytest.approx([0.25, 0.75], abs=1e-4)


def test_a_row_without_a_question_stays_as_it_is() -> None:
    attention = RowAttention.zeros(3, (0,), 1, 2, CPU)
    rows, taking = torch.tensor([2, 0]), torch.tensor([True, False])
    attention.keep(rows, torch.ones(2, 1, 1, 2), taking, answering=False)
    attention.keep(rows, torch.ones(2, 1, 1, 2), taking, answering=True)
    attention.keep(rows, torch.ones(2, 1, 1, 2), taking, answering=True)
    assert attention.question[:, 0, 0, 0].tolist() == [0, 0, 1]
    assert attention.answer[:, 0, 0, 0].tolist() == [0, 0, 2]
    grown = attention.grown(4)
    assert grown.answer[:, 0, 0, 0].tolist() == [0, 0, 2, 0]
    attention.keep(rows, torch.ones(2, 1, 1, 2), taking, answering=False)
    assert attention.answer.sum() == 0, "a new question begins anew"


def test_each_token_belongs_to_its_slot() -> None:
    owners = slots_of_tokens(torch.tensor([-1, -1, 0, 0, 1]), 6, 3)
    assert owners.nonzero().tolist() == [[2, 0], [3, 0], [4, 1]]


def test_weights_in_a_checkpoint_are_used_and_kept(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "weighed"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    table = [[0.0] * heads for _ in range(layers)]
    config["relevance_weights"] = {"question": [*table[:-1], [1.0] * heads], "answer": table}
    (copy / "config.json").write_text(json.dumps(config))
    model = FlashVStream.load(str(copy), device="cpu")
    assert model.new_prefix_cache().relevance.layers == (layers - 1,)
    assert model.relevance is not None
    assert model.relevance.to_json() == config["relevance_weights"]


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ([], "must be an object"),
        ({"question": []}, "must be an object"),
        ({"question": [[1.0]], "answer": [[1.0]]}, "relevance_weights.question must have"),
        ({"question": "nan", "answer": "nan"}, "relevance_weights.question holds something"),
    ],
)
def test_unusable_weights_are_refused(folder: Path, tmp_path: Path, weights: object, problem: str) -> None:
    copy = tmp_path / "weighed"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    if isinstance(weights, dict) and weights.get("question") == "nan":
        heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
        weights = dict.fromkeys(weights, [[float("nan")] * heads] * layers)
    config["relevance_weights"] = weights
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=problem):
        FlashVStream.load(str(copy), device="cpu")
