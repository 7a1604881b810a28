"""A checkpoint's `config.json`: the published Flash-VStream layout, or that of a family of `families.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from transformers import PreTrainedConfig

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.time_code import check_clock_width
from fvs_ros.model.checkpoint_checks import check_supported, check_values, stored_quantization
from fvs_ros.model.checkpoint_errors import CheckpointError, described
from fvs_ros.model.conditions import NO_RULES, ConditionRules
from fvs_ros.model.confidence import PLAIN_ANSWERS, AnswerRules, Calibration, not_seen_from_json
from fvs_ros.model.families import FAMILIES, PUBLISHED_MODEL_TYPE, QWEN2_VL
from fvs_ros.model.packed_weights import PackedWeights
from fvs_ros.model.quantization import METHOD, Quantization
from fvs_ros.model.relevance import RelevanceWeights

# Our own additions to `config.json`.
RELEVANCE, CALIBRATION, NOT_SEEN = "relevance_weights", "confidence_calibration", "not_seen_answers"
CONDITIONS = "condition_questions"


@dataclass(frozen=True)
class ModelConfig:
    """A checkpoint's `config.json`.

    Attributes:
        network: the vision-language model's part, as transformers reads it.
        memory: the Flash Memory's sizes.
        relevance: trained weights of what an answer rests on, None where it has none.
        quantization: of the language model's linear layers.
        answers: what its confidence is worth, and which of its answers say "not seen".
        conditions: how it is asked whether something is true now.
        packed: how AWQ or GPTQ has packed its linear layers, None where they have not.
    """

    network: PreTrainedConfig
    memory: FlashMemoryConfig
    relevance: RelevanceWeights | None = None
    quantization: Quantization = Quantization.NONE
    answers: AnswerRules = PLAIN_ANSWERS
    conditions: ConditionRules = NO_RULES
    packed: PackedWeights | None = None

    @property
    def quantised_as(self) -> str | None:
        """What its linear layers are, in words; None for full precision."""
        if self.packed is not None:
            return str(self.packed)
        return None if self.quantization is Quantization.NONE else self.quantization.value

    @classmethod
    def from_json(cls, values: dict) -> ModelConfig:
        """Reads `config.json` in the published layout or that of a family.

        Raises:
            CheckpointError: another kind of model, or settings that are not supported.
        """
        model_type = values.get("model_type")
        family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
        if family is None:
            *most, last = FAMILIES
            raise CheckpointError(
                f"config.json has model_type {model_type!r}; supported are {', '.join(most)} and {last}"
            )
        stored, packed = stored_quantization(values), PackedWeights.from_json(values.get("quantization_config"))
        unread = {"model_type", "architectures", "auto_map"}
        if stored is not Quantization.NONE or packed is not None:
            unread.add("quantization_config")
        values = {key: value for key, value in values.items() if key not in unread}
        check_values(values)
        ours = {name: values.pop(name) for name in (RELEVANCE, CALIBRATION, NOT_SEEN, CONDITIONS) if name in values}
        vision = values.get("vision_config") or {}
        if not isinstance(vision, Mapping):
            raise CheckpointError(f"config.json has vision_config {vision!r}; it must be an object")
        published = vision.get("flash_memory_config")
        if published is not None and not isinstance(published, Mapping):
            raise CheckpointError(f"config.json has flash_memory_config {published!r}; it must be an object")
        values["vision_config"] = {
            **{key: value for key, value in vision.items() if key != "flash_memory_config"},
            "model_type": family.vision_model_type,
        }
        try:
            trained = published is not None or model_type == PUBLISHED_MODEL_TYPE
            memory = FlashMemoryConfig.from_published(published) if trained else FlashMemoryConfig.untrained()
            config = cls(family.config.from_dict(values), memory, quantization=stored, packed=packed)
            if config.memory.clock_code:
                check_clock_width(config.network.text_config.hidden_size)
        except Exception as error:
            # transformers checks with exceptions of its own, whose only base is Exception, and not everything.
            raise CheckpointError(f"config.json cannot be used: {described(error)}") from error
        check_supported(config.network)
        try:
            return config._with_ours(ours)
        except ValueError as error:
            raise CheckpointError(f"config.json cannot be used: {error}") from error

    def _with_ours(self, values: Mapping[str, object]) -> ModelConfig:
        """With what we add to `config.json`."""
        text = self.network.text_config
        relevance, calibration, not_seen = (values.get(name) for name in (RELEVANCE, CALIBRATION, NOT_SEEN))
        return replace(
            self,
            relevance=None
            if relevance is None
            else RelevanceWeights.from_json(relevance, text.num_hidden_layers, text.num_attention_heads),
            answers=AnswerRules(
                calibration=None if calibration is None else Calibration.from_json(calibration),
                not_seen=None if not_seen is None else not_seen_from_json(not_seen),
            ),
            conditions=ConditionRules.from_json(values[CONDITIONS]) if CONDITIONS in values else NO_RULES,
        )

    def _ours(self) -> dict[str, object]:
        """What `_with_ours` reads, and how weights are stored."""
        values: dict[str, object] = {
            RELEVANCE: None if self.relevance is None else self.relevance.to_json(),
            CALIBRATION: None if self.answers.calibration is None else self.answers.calibration.to_json(),
            NOT_SEEN: None if self.answers.not_seen is None else list(self.answers.not_seen),
            CONDITIONS: None if self.conditions is NO_RULES else self.conditions.to_json(),
        }
        if self.quantization is not Quantization.NONE:
            values["quantization_config"] = {"quant_method": METHOD, "weights": self.quantization.value}
        return {name: value for name, value in values.items() if value is not None}

    def to_json(self) -> dict:
        """What `from_json` reads. Of Qwen2-VL the published layout: the language model's settings at the top."""
        values = self.network.to_dict()
        memory = {"flash_memory_config": self.memory.to_published()}
        if self.network.model_type != QWEN2_VL.model_type:
            return {**values, "vision_config": {**values["vision_config"], **memory}, **self._ours()}
        text = values.pop("text_config")
        rope = text.pop("rope_parameters")
        return {
            **text,
            **values,
            "rope_theta": rope["rope_theta"],
            "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
            "vision_config": {**values["vision_config"], **memory},
            **self._ours(),
            "model_type": PUBLISHED_MODEL_TYPE,
            "architectures": ["FlashVStreamQwen2VLModel"],
        }
