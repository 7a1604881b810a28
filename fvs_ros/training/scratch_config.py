"""Sizes of a model that is trained from nothing."""

from __future__ import annotations

from dataclasses import dataclass

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.geometry import LEAST_PIXELS
from fvs_ros.patrol.config import FRAME_SIZE
from fvs_ros.training.checks import one_of, positive


@dataclass(frozen=True)
class ScratchConfig:
    """A new Qwen2-VL with random weights and a tokenizer of its own.

    The defaults are 5.4 M parameters, 21 MB: a ViT of 1.4 M, its merger 0.8 M, a language model of 3.2 M.

    Attributes:
        vision_depth, vision_width, vision_heads: layers, width and heads of the ViT.
        text_depth, text_width, text_mlp, text_heads, text_kv_heads: of the language model.
        rope_section: how many of the rotary frequencies turn with time, row and column; time comes first and gets the
            fastest ones. With 12 of 32 and a base of 10,000, the slowest one of time turns once in 150 steps, which
            the memory's slots fit in.
        frame_pixels: area of a processed frame.
        csm_slots, dam_slots: of the Flash Memory, in grid steps.
        window_slots: newest grid steps that the memory also keeps as they are, in high resolution.
        time_code: length of the time code on the memory's tokens, see `FlashMemoryConfig`; words have a length of 0.19.
        time_weight: how time counts in joining steps, see `FlashMemoryConfig`. Two frames of one view are about 100
            apart within a stay and 2,000 between stays, frames of different views 17,000.
        tied_embeddings: whether the output shares its weights with the words' embeddings, as in Qwen2-VL-2B. Token
            naming needs it.
        vocabulary: where the words come from: `patrol`, or `bytes` for one token a byte.
    """

    vision_depth: int = 4
    vision_width: int = 192
    vision_heads: int = 6
    text_depth: int = 5
    text_width: int = 256
    text_mlp: int = 512
    text_heads: int = 4
    text_kv_heads: int = 2
    rope_section: tuple[int, ...] = (12, 10, 10)
    frame_pixels: int = FRAME_SIZE**2
    csm_slots: int = 120
    dam_slots: int = 8
    window_slots: int = 1
    time_code: float = 0.0
    time_weight: float = 0.0
    tied_embeddings: bool = True
    vocabulary: str = "patrol"

    def __post_init__(self) -> None:
        one_of("vocabulary", self.vocabulary, ("patrol", "bytes"))
        for width, heads in (("vision_width", "vision_heads"), ("text_width", "text_heads")):
            positive(self, width, heads)
            if getattr(self, width) % (4 * getattr(self, heads)):
                raise ValueError(
                    f"{width} is {getattr(self, width)}, {heads} {getattr(self, heads)}; it must be a multiple of "
                    f"4 * {heads}"
                )
        positive(self, "vision_depth", "text_depth", "text_mlp", "text_kv_heads", "csm_slots")
        if self.text_heads % self.text_kv_heads:
            raise ValueError(f"text_heads is {self.text_heads}; it must be a multiple of {self.text_kv_heads} kv heads")
        half = self.text_width // self.text_heads // 2
        if len(self.rope_section) != 3 or sum(self.rope_section) != half:
            raise ValueError(
                f"rope_section is {list(self.rope_section)}; it must hold three numbers that make {half}, half a head"
            )
        FlashMemoryConfig(time_code=self.time_code, time_weight=self.time_weight)  # refuses what no memory can have
        if self.frame_pixels < LEAST_PIXELS:
            raise ValueError(f"frame_pixels is {self.frame_pixels}; it must be at least {LEAST_PIXELS}")
