from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen2VLForConditionalGeneration

from fvs_ros.model.preprocess import patchify
from fvs_ros.model.qwen2_vl import Qwen2VLTower
from fvs_ros.model.tiny import tiny_network_config


def vision_module() -> Any:
    torch.manual_seed(0)
    return Qwen2VLForConditionalGeneration(tiny_network_config()).eval().model.visual


def test_both_pathways_match_transformers_on_a_frame_that_is_not_square() -> None:
    """Transformers' own tower on the same patches, and on patches of the pooled pixels."""
    vision = vision_module()
    tower = Qwen2VLTower(vision)
    frames = torch.randn(6, 3, 112, 168)
    found = tower.encode(frames)
    pooled = torch.nn.functional.avg_pool2d(frames, 2)
    for features, pixels, grid in ((found.high, frames, (3, 8, 12)), (found.low, pooled, (3, 4, 6))):
        with torch.no_grad():
            expected = vision(patchify(pixels).flatten(0, 1), grid_thw=torch.tensor([grid])).last_hidden_state
        torch.testing.assert_close(features.flatten(0, 1), expected, atol=1e-4, rtol=1e-4)


def test_steps_do_not_see_each_other() -> None:
    tower = Qwen2VLTower(vision_module())
    frames = torch.randn(4, 3, 56, 56)
    together, alone = tower.encode(frames), tower.encode(frames[2:])
    torch.testing.assert_close(together.high[1], alone.high[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.low[1], alone.low[0], atol=1e-4, rtol=1e-4)
