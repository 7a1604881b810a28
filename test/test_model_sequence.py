"""The memory as the language model's input: which slot each of its tokens belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_networks import model_of, qwen2_5_vl, qwen3_vl
from video_streams import frames_of, stream

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.model.families import FAMILIES, backbone_of
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.model.sequence import memory_segment


@pytest.mark.parametrize("make", [qwen2_5_vl, qwen3_vl], ids=["Qwen2.5-VL", "Qwen3-VL"])
def test_tokens_belong_to_their_slots_in_the_order_in_which_they_are_shown(make: Callable[[], Any]) -> None:
    """What is told twice is shown once, the rest in order of time, whatever the order in which the memory holds it."""
    network = make()
    pixels = FAMILIES[network.config.model_type].pixels
    model = model_of(network, FlashMemoryConfig(csm_slots=4, dam_slots=3, window_slots=2), pixels)
    size = (4 * pixels.frame_multiple // 2, 6 * pixels.frame_multiple // 2)
    snapshot = stream(model, frames_of(25, *size), PatchGrid.of_frames(*size, patch=pixels.patch), 1.0)
    backbone = backbone_of(network)
    prompts = PromptBuilder(model.tokenizer, backbone.prompt_style)
    segment = memory_segment(backbone, snapshot, prompts.head, model.memory_config, prompts.words)
    assert len(segment.slots) == len(segment.embeddings) == segment.positions.shape[1]
    assert (segment.slots[: len(prompts.head)] == -1).all()
    features = snapshot.features().split([4 * count for count in snapshot.slot_tokens])
    shown = segment.slots[segment.slots >= 0].unique_consecutive().tolist()
    assert 5 < len(shown) == len(set(shown))
    assert shown != sorted(shown)
    for slot in shown:
        expected = backbone.merge(features[slot]).embeddings
        torch.testing.assert_close(segment.embeddings[segment.slots == slot], expected)
