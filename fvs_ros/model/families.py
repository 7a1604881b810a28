"""The families of vision-language models that are supported, by the `model_type` of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from fvs_ros.model.backbone import Backbone
from fvs_ros.model.preprocess import QWEN2_VL_PIXELS, QWEN3_VL_PIXELS, PixelConfig
from fvs_ros.model.qwen2_5_vl import Qwen25VLBackbone
from fvs_ros.model.qwen2_vl import Qwen2VLBackbone
from fvs_ros.model.qwen3_vl import Qwen3VLBackbone

PUBLISHED_MODEL_TYPE = "flash_vstream_qwen2_vl"


@dataclass(frozen=True)
class Family:
    """What a model of one family is made of.

    Attributes:
        model_type: transformers' name of it.
        vision_model_type: that of its vision tower.
        config, network: transformers' classes.
        backbone: the parts that the memory's world needs.
        tower_width, tower_output: names of a block's width and of H in its `vision_config`.
        pixels: how it takes frames, where a checkpoint does not say.
    """

    model_type: str
    vision_model_type: str
    config: type[PreTrainedConfig]
    network: type[PreTrainedModel]
    backbone: type[Backbone]
    tower_width: str
    tower_output: str
    pixels: PixelConfig = QWEN2_VL_PIXELS


QWEN2_VL = Family(
    model_type="qwen2_vl",
    vision_model_type="qwen2_vl",
    config=Qwen2VLConfig,
    network=Qwen2VLForConditionalGeneration,
    backbone=Qwen2VLBackbone,
    tower_width="embed_dim",
    tower_output="hidden_size",
)
QWEN2_5_VL = Family(
    model_type="qwen2_5_vl",
    vision_model_type="qwen2_5_vl_vision",
    config=Qwen2_5_VLConfig,
    network=Qwen2_5_VLForConditionalGeneration,
    backbone=Qwen25VLBackbone,
    tower_width="hidden_size",
    tower_output="out_hidden_size",
)
QWEN3_VL = Family(
    model_type="qwen3_vl",
    vision_model_type="qwen3_vl_vision",
    config=Qwen3VLConfig,
    network=Qwen3VLForConditionalGeneration,
    backbone=Qwen3VLBackbone,
    tower_width="hidden_size",
    tower_output="out_hidden_size",
    pixels=QWEN3_VL_PIXELS,
)

FAMILIES = {
    PUBLISHED_MODEL_TYPE: QWEN2_VL,
    "qwen2_vl": QWEN2_VL,
    "qwen2_5_vl": QWEN2_5_VL,
    "qwen3_vl": QWEN3_VL,
}
"""By the `model_type` in a checkpoint's `config.json`."""


def backbone_of(network: PreTrainedModel) -> Backbone:
    """The parts of a network of one of the families."""
    return FAMILIES[network.config.model_type].backbone(network)
