from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, Qwen2VLForConditionalGeneration

from fvs_ros.model.backbone import cache_argument
from fvs_ros.model.qwen2_vl import Qwen2VLBackbone
from fvs_ros.model.tiny import tiny_network_config


class FakeLanguageModel(nn.Module):
    """Keeps what it was given as its cache; adds one to the embeddings."""

    taken: Any = None

    def answer(self, cache: Any, embeddings: Tensor) -> SimpleNamespace:
        self.taken = cache
        return SimpleNamespace(last_hidden_state=embeddings + 1)


class OlderLanguageModel(FakeLanguageModel):
    """As of transformers 5.0 to 5.23."""

    def forward(
        self, inputs_embeds: Tensor, position_ids: Tensor, attention_mask: Any, past_key_values: Any, use_cache: bool
    ) -> SimpleNamespace:
        return self.answer(past_key_values, inputs_embeds)


class NewerLanguageModel(FakeLanguageModel):
    """As of transformers 5.24, which takes the older name too, and warns."""

    def forward(
        self, inputs_embeds: Tensor, position_ids: Tensor, attention_mask: Any, cache: Any, use_cache: bool, **more: Any
    ) -> SimpleNamespace:
        assert not more
        return self.answer(cache, inputs_embeds)


@pytest.fixture
def network() -> Any:
    return Qwen2VLForConditionalGeneration(tiny_network_config()).eval()


@pytest.mark.parametrize("kind", [OlderLanguageModel, NewerLanguageModel])
def test_the_cache_goes_by_the_name_that_transformers_has_for_it(kind: type[FakeLanguageModel], network: Any) -> None:
    fake = kind()
    network.model.language_model = fake
    cache = DynamicCache()
    embeddings, positions = torch.zeros(1, 2, 64), torch.zeros(3, 1, 2, dtype=torch.int64)
    hidden = Qwen2VLBackbone(network).hidden_states(embeddings, positions, cache=cache)
    assert fake.taken is cache
    assert torch.equal(hidden, torch.ones(1, 2, 64))


@torch.no_grad()
def test_the_installed_transformers_takes_the_cache_without_a_warning(network: Any) -> None:
    backbone = Qwen2VLBackbone(network)
    cache = DynamicCache(config=backbone.text_config)
    embeddings = torch.randn(1, 2, backbone.text_config.hidden_size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone.hidden_states(embeddings, torch.zeros(3, 1, 2, dtype=torch.int64), cache=cache)
    assert cache.get_seq_length() == 2


def test_a_forward_is_inspected_once() -> None:
    cache_argument.cache_clear()
    for _ in range(3):
        cache_argument(OlderLanguageModel.forward)
    assert cache_argument.cache_info().misses == 1
