from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import Qwen2VLForConditionalGeneration

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.offline import build_memory
from fvs_ros.memory.positions import memory_positions
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.memory.time_code import memory_time_code
from fvs_ros.model import reference as reference_module
from fvs_ros.model.backbone import Backbone
from fvs_ros.model.qwen2_vl import Qwen2VLBackbone
from fvs_ros.model.reference import ReferenceDecoder, ReferencePrefix
from fvs_ros.model.sequence import memory_segment, text_positions
from fvs_ros.model.tiny import tiny_network_config

CONFIG = FlashMemoryConfig(csm_slots=4, dam_slots=2)
GRID = PatchGrid(4, 4)
HEAD, SUFFIX = (3, 5, 7), (11, 13, 17, 19)


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return Qwen2VLForConditionalGeneration(tiny_network_config()).eval()


@pytest.fixture(scope="module")
def backbone(network: Any) -> Backbone:
    return Qwen2VLBackbone(network)


def snapshot(seed: int = 0, steps: int = 6) -> MemorySnapshot:
    generator = torch.Generator().manual_seed(seed)
    features = StepFeatures(
        torch.randn(steps, GRID.patches, 64, generator=generator),
        torch.randn(steps, GRID.low_patches, 64, generator=generator),
    )
    return build_memory(features, GRID, CONFIG, generator=generator)


@torch.no_grad()
def whole_sequence(network: Any, memory: MemorySnapshot, suffix: Sequence[int], count: int) -> list[int]:
    """Greedy tokens from the whole sequence, run anew for every token."""
    merged = network.model.visual.merger(memory.features())
    tokens: list[int] = []
    for _ in range(count):
        text = torch.tensor([*suffix, *tokens])
        embeddings = torch.cat(
            [network.get_input_embeddings()(torch.tensor(HEAD)), merged, network.get_input_embeddings()(text)]
        )
        start = len(HEAD) + memory.dam.shape[0] * GRID.dam_tokens + min(memory.steps, CONFIG.csm_slots)
        cpu = torch.device("cpu")
        positions = torch.cat(
            [
                text_positions(0, len(HEAD), cpu),
                memory_positions(memory, len(HEAD), CONFIG.horizon),
                text_positions(start, len(text), cpu),
            ],
            dim=1,
        )
        output = network.model.language_model(inputs_embeds=embeddings[None], position_ids=positions[:, None])
        tokens.append(int(network.lm_head(output.last_hidden_state[0, -1]).argmax()))
    return tokens


def prefix_of(decoder: ReferenceDecoder, memory: MemorySnapshot) -> ReferencePrefix:
    prefix = decoder.prefix(memory, HEAD)
    assert prefix is not None, "nothing stops it"
    return prefix


def generated(decoder: ReferenceDecoder, memory: MemorySnapshot, suffix: Sequence[int], count: int) -> list[int]:
    return list(itertools.islice(decoder.generate(prefix_of(decoder, memory), suffix), count))


def test_tokens_equal_those_of_the_whole_sequence(network: Any, backbone: Backbone) -> None:
    memory = snapshot()
    assert generated(ReferenceDecoder(backbone, CONFIG, ()), memory, SUFFIX, 12) == whole_sequence(
        network, memory, SUFFIX, 12
    )


def test_a_prefix_serves_one_question_after_another(network: Any, backbone: Backbone) -> None:
    decoder, memory = ReferenceDecoder(backbone, CONFIG, ()), snapshot()
    prefix = prefix_of(decoder, memory)
    for suffix in (SUFFIX, (23, 29), SUFFIX):
        assert decoder.prefix(memory, HEAD) is prefix
        tokens = list(itertools.islice(decoder.generate(prefix, suffix), 6))
        assert tokens == whole_sequence(network, memory, suffix, 6)
    decoder.rewind(prefix)
    assert prefix.cache.get_seq_length() == prefix.length


def test_another_memory_gets_its_own_prefix(network: Any, backbone: Backbone) -> None:
    decoder = ReferenceDecoder(backbone, CONFIG, ())
    for seed in (0, 1):
        memory = snapshot(seed)
        assert generated(decoder, memory, SUFFIX, 6) == whole_sequence(network, memory, SUFFIX, 6)


def test_prefill_in_small_chunks_is_the_same(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = snapshot()
    whole = prefix_of(ReferenceDecoder(backbone, CONFIG, ()), memory)
    monkeypatch.setattr(reference_module, "PREFILL_CHUNK", 5)
    chunked = prefix_of(ReferenceDecoder(backbone, CONFIG, ()), memory)
    torch.testing.assert_close(whole.logits, chunked.logits, atol=1e-4, rtol=1e-4)


def test_an_end_token_ends_the_answer(network: Any, backbone: Backbone) -> None:
    memory = snapshot()
    tokens = whole_sequence(network, memory, SUFFIX, 12)
    end = next(token for token in tokens if token != tokens[0])
    assert generated(ReferenceDecoder(backbone, CONFIG, (end,)), memory, SUFFIX, 12) == tokens[: tokens.index(end)]


def test_a_stop_ends_prefill_and_decoding(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_module, "PREFILL_CHUNK", 5)
    decoder, memory = ReferenceDecoder(backbone, CONFIG, ()), snapshot()
    calls = itertools.count()
    assert decoder.prefix(memory, HEAD, should_stop=lambda: next(calls) >= 2) is None
    prefix = prefix_of(decoder, memory)
    calls = itertools.count()
    assert len(list(decoder.generate(prefix, SUFFIX, should_stop=lambda: next(calls) >= 3))) == 3


@torch.no_grad()
def test_a_time_code_is_added_to_the_memory_alone(backbone: Backbone) -> None:
    memory, coded = snapshot(), replace(CONFIG, time_code=0.5)
    plain, timed = (memory_segment(backbone, memory, HEAD, config) for config in (CONFIG, coded))
    code = memory_time_code(memory, coded, plain.embeddings.shape[1])
    torch.testing.assert_close(timed.embeddings[len(HEAD) :], plain.embeddings[len(HEAD) :] + code)
    assert torch.equal(timed.embeddings[: len(HEAD)], plain.embeddings[: len(HEAD)])
    assert torch.equal(timed.positions, plain.positions)
