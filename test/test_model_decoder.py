"""What the decoder refuses to compute, and how much it computes at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn
from transformers import Qwen2VLForConditionalGeneration

from fvs_ros.model.decoder import Decoder, chunk_tokens
from fvs_ros.model.qwen2_vl import Qwen2VLBackbone
from fvs_ros.model.tiny import tiny_network_config


def test_a_tiny_network_is_known() -> None:
    network = Qwen2VLForConditionalGeneration(tiny_network_config())
    assert Decoder(Qwen2VLBackbone(network)).allocate(3, 5).keys.shape == (2, 3, 5, 2, 16)


def normed_queries(network: Any) -> None:
    network.model.language_model.layers[1].self_attn.q_norm = nn.RMSNorm(16)


def normed_keys(network: Any) -> None:
    network.model.language_model.layers[1].self_attn.k_norm = nn.RMSNorm(16)


def a_third_norm(network: Any) -> None:
    network.model.language_model.layers[0].pre_feedforward_layernorm = nn.RMSNorm(64)


def no_biases(network: Any) -> None:
    for name in ("q_proj", "v_proj"):
        getattr(network.model.language_model.layers[1].self_attn, name).bias = None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (normed_queries, "layer 1 has q_norm"),
        (normed_keys, "layer 1 has k_norm"),
        (a_third_norm, "layer 0 has pre_feedforward_layernorm"),
        (no_biases, "layer 1 has no bias in q_proj, v_proj"),
    ],
)
def test_parts_that_would_be_left_out_are_refused(change: Callable[[Any], None], message: str) -> None:
    network = Qwen2VLForConditionalGeneration(tiny_network_config())
    change(network)
    with pytest.raises(ValueError, match=message):
        Decoder(Qwen2VLBackbone(network))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "layer 1 .* window of 8 tokens"),
        ({"hidden_act": "gelu"}, "activation .* is 'gelu'"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6, "mrope_section": [2, 3, 3]}},
            "rope type is 'linear'",
        ),
    ],
)
def test_settings_that_would_be_ignored_are_refused(settings: dict[str, Any], message: str) -> None:
    config = tiny_network_config()
    text = {**config.text_config.to_dict(), **settings}
    text.pop("layer_types", None)
    network = Qwen2VLForConditionalGeneration(type(config)(text_config=text, vision_config=config.vision_config))
    with pytest.raises(ValueError, match=message):
        Decoder(Qwen2VLBackbone(network))


@pytest.mark.parametrize(
    ("parameters", "device", "tokens"),
    [
        (4e6, "cpu", 64),
        (3e6, "cpu", 128),
        (3e5, "cpu", 1024),
        (6.5e9, "cpu", 16),
        (6.5e9, "cuda", 512),
        (1e6, "cuda", 2048),
    ],
)
def test_a_chunk_takes_about_as_long_on_every_model(parameters: float, device: str, tokens: int) -> None:
    assert chunk_tokens(int(parameters), device) == tokens
