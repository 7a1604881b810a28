"""Sizes of the Flash Memory, and their spelling in published checkpoints."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fvs_ros.memory.snapshot import PatchGrid

logger = logging.getLogger(__name__)

# What the published code writes into `vision_config.flash_memory_config`; each key carries this prefix.
PUBLISHED_PREFIX = "flash_memory_"
PUBLISHED_METHODS = {"temporal_method": "kmeans_ordered", "spatial_method": "klarge_retrieve"}
# Our own additions, written only where they are not 0.
WINDOW_KEY, TIME_CODE_KEY, TIME_WEIGHT_KEY = "window_length", "time_code", "time_weight"


@dataclass(frozen=True)
class FlashMemoryConfig:
    """Sizes of a Flash Memory, in grid steps. A grid step is two frames.

    Attributes:
        csm_slots: K, clusters in the Context Synopsis Memory.
        dam_slots: M, keyframes in the Detail Augmentation Memory; at most K, since each stands for a cluster.
        horizon: longest stream, in grid steps, whose temporal positions are its step indices; longer streams are
            rescaled onto it. The published model was trained and evaluated on at most 240 frames.
        window_slots: W, newest steps kept in high resolution beside CSM and DAM. The published memory has none and
            loses sight of a step that joins a large cluster, or none of the M largest. Most questions are about what is
            in view now, so models trained for a robot can have a window; weights trained without one must not.
        time_code: root mean square of the time code added to each memory token, see `fvs_ros.memory.time_code`; 0, as
            published, adds none. Like the window it belongs to the weights that were trained with it.
        time_weight: squared feature distance that one squared position on the horizon counts for where the streaming
            memory merges steps. 0, as published, merges what looks alike however far apart in time, such as the first
            and the last visit to a room; above 0, neighbours in time are merged first and each slot has its own time.
    """

    csm_slots: int = 60
    dam_slots: int = 30
    horizon: int = 120
    window_slots: int = 0
    time_code: float = 0.0
    time_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.csm_slots < 1 or self.dam_slots < 1:
            raise ValueError(f"csm_slots is {self.csm_slots}, dam_slots {self.dam_slots}; both must be at least 1")
        if self.dam_slots > self.csm_slots:
            raise ValueError(
                f"dam_slots is {self.dam_slots}, csm_slots {self.csm_slots}; a detail slot stands for a cluster, "
                "so lower dam_slots or raise csm_slots"
            )
        if self.horizon < 2:
            raise ValueError(f"horizon is {self.horizon}; it must be at least 2 grid steps")
        if self.window_slots < 0:
            raise ValueError(f"window_slots is {self.window_slots}; it must be 0 or above")
        if not 0 <= self.time_code < math.inf:
            raise ValueError(f"time_code is {self.time_code}; it must be a finite number of 0 or above")
        if not 0 <= self.time_weight < math.inf:
            raise ValueError(f"time_weight is {self.time_weight}; it must be a finite number of 0 or above")

    def tokens(self, grid: PatchGrid) -> int:
        """Language-model tokens of a memory whose slots are all filled."""
        return (self.dam_slots + self.window_slots) * grid.dam_tokens + self.csm_slots * grid.csm_tokens

    @classmethod
    def from_published(cls, published: Mapping[str, object] | None) -> FlashMemoryConfig:
        """The sizes in a checkpoint's `vision_config.flash_memory_config`, whose lengths are in frames.

        Missing keys, or a missing dict (a plain Qwen2-VL checkpoint), take the published defaults. The published code
        stores `pca_dim` but uses it in none of its default paths.

        Raises:
            ValueError: an odd length, or a method other than the one that the weights were trained with.
        """
        values = {key.removeprefix(PUBLISHED_PREFIX): value for key, value in (published or {}).items()}
        for key, supported in PUBLISHED_METHODS.items():
            method = values.pop(key, supported)
            if method != supported:
                raise ValueError(f"{PUBLISHED_PREFIX}{key} is {method!r}; only {supported!r} is supported")
        pool = values.pop("temporal_poolsize", 2)
        if pool != 2:
            raise ValueError(f"{PUBLISHED_PREFIX}temporal_poolsize is {pool!r}; only 2 is supported")
        values.pop("temporal_pca_dim", None)
        csm_frames = _even_frames(values.pop("temporal_length", 2 * cls.csm_slots), "temporal_length")
        dam_frames = _even_frames(values.pop("spatial_length", 2 * cls.dam_slots), "spatial_length")
        window_frames = _even_frames(values.pop(WINDOW_KEY, 0), WINDOW_KEY, least=0)
        time_code = _number(values.pop(TIME_CODE_KEY, 0.0), TIME_CODE_KEY)
        time_weight = _number(values.pop(TIME_WEIGHT_KEY, 0.0), TIME_WEIGHT_KEY)
        for key in values:
            logger.warning("flash_memory_config holds the unknown key %r; it is ignored", key)
        return cls(
            csm_slots=csm_frames // 2,
            dam_slots=dam_frames // 2,
            window_slots=window_frames // 2,
            time_code=time_code,
            time_weight=time_weight,
        )

    def to_published(self) -> dict[str, object]:
        """The dict that `from_published` reads: the keys of the published code, and our own where they are not 0."""
        ours = {
            WINDOW_KEY: 2 * self.window_slots,
            TIME_CODE_KEY: self.time_code,
            TIME_WEIGHT_KEY: self.time_weight,
        }
        return {
            "flash_memory_temporal_length": 2 * self.csm_slots,
            "flash_memory_temporal_method": PUBLISHED_METHODS["temporal_method"],
            "flash_memory_temporal_poolsize": 2,
            "flash_memory_temporal_pca_dim": 32,
            "flash_memory_spatial_length": 2 * self.dam_slots,
            "flash_memory_spatial_method": PUBLISHED_METHODS["spatial_method"],
            **{PUBLISHED_PREFIX + key: value for key, value in ours.items() if value},
        }


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{PUBLISHED_PREFIX}{key} is {value!r}; it must be a number")
    return float(value)


def _even_frames(value: object, key: str, least: int = 2) -> int:
    if not isinstance(value, int) or value < least or value % 2:
        raise ValueError(f"{PUBLISHED_PREFIX}{key} is {value!r}; it counts frames and must be even, at least {least}")
    return value
