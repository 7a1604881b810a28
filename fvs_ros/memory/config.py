"""Sizes and methods of the Flash Memory, and their spelling in published checkpoints."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fvs_ros.memory.snapshot import PatchGrid

logger = logging.getLogger(__name__)

# What the published code writes into `vision_config.flash_memory_config`; each key carries this prefix.
PUBLISHED_PREFIX = "flash_memory_"
KMEANS_ORDERED, SAMPLE = "kmeans_ordered", "sample"
KLARGE_RETRIEVE, KLARGE_RETRIEVE_COS, NEAREST = "klarge_retrieve", "klarge_retrieve_cos", "nearest"
# The first of each is the published default.
TEMPORAL_METHODS = (KMEANS_ORDERED, SAMPLE)
SPATIAL_METHODS = (KLARGE_RETRIEVE, KLARGE_RETRIEVE_COS, NEAREST, SAMPLE)
# In place of a method: the one that the checkpoint names.
AUTO = "auto"
# The published low-resolution path; the checkpoints that are known have no other.
POOL_SIZE = 2
# In place of a number of slots: as many as the checkpoint has.
KEEP_SLOTS = -1
# Of weights that were trained without a Flash Memory: the newest four frames alone beat most memories where a question
# is about the present.
UNTRAINED_WINDOW_SLOTS = 2
# Of one kind. 5.6 hours of video at the trained rate, each grid step in a slot of its own; published are 60.
MOST_SLOTS = 10_000
# Our own additions, written only where they are not 0.
WINDOW_KEY, TIME_CODE_KEY, CLOCK_CODE_KEY, TIME_WEIGHT_KEY = "window_length", "time_code", "clock_code", "time_weight"


@dataclass(frozen=True)
class FlashMemoryConfig:
    """Sizes of a Flash Memory, in grid steps, and its methods. A grid step is two frames.

    Attributes:
        csm_slots: K, clusters in the Context Synopsis Memory; 0 for a memory without one.
        dam_slots: M, keyframes in the Detail Augmentation Memory; 0 for a memory without one.
        horizon: longest stream, in grid steps, whose temporal positions are its step indices; longer streams are
            rescaled onto it. The published model was trained and evaluated on at most 240 frames.
        window_slots: W, newest steps kept in high resolution beside CSM and DAM. The published memory has none and
            loses sight of a step that joins a large cluster, or none of the M largest. Most questions are about what is
            in view now, so models trained for a robot can have a window; weights trained without one must not.
        time_code: root mean square of the time code added to each memory token, see `fvs_ros.memory.time_code`; 0, as
            published, adds none. Like the window it belongs to the weights that were trained with it.
        clock_code: root mean square of the code of the time of day added to each memory token, see
            `fvs_ros.memory.time_code`; 0, as published, adds none.
        time_weight: squared feature distance that one squared position on the horizon counts for where the streaming
            memory merges steps. 0, as published, merges what looks alike however far apart in time, such as the first
            and the last visit to a room; above 0, neighbours in time are merged first and each slot has its own time.
        temporal_method: what the CSM keeps of more than K steps. `kmeans_ordered`: clusters; `sample`: K evenly spaced
            steps.
        spatial_method: what the DAM keeps of more than M steps. `klarge_retrieve`: for each of the M largest clusters,
            the step nearest to its centroid; `klarge_retrieve_cos`: the step whose cosine similarity to it is *least*,
            an accident of the published code; `nearest`: the step at its rounded mean time; `sample`: M evenly spaced
            steps. See `keyframe_method`.
    """

    csm_slots: int = 60
    dam_slots: int = 30
    horizon: int = 120
    window_slots: int = 0
    time_code: float = 0.0
    clock_code: float = 0.0
    time_weight: float = 0.0
    temporal_method: str = KMEANS_ORDERED
    spatial_method: str = KLARGE_RETRIEVE

    def __post_init__(self) -> None:
        if min(self.csm_slots, self.dam_slots) < 0 or self.csm_slots + self.dam_slots < 1:
            raise ValueError(
                f"csm_slots is {self.csm_slots}, dam_slots {self.dam_slots}; neither may be negative, and one must be "
                "at least 1"
            )
        if (most := max(self.csm_slots, self.dam_slots, self.window_slots)) > MOST_SLOTS:
            raise ValueError(f"the memory has {most} slots of one kind; at most {MOST_SLOTS} make sense")
        for name, method, methods in (
            ("temporal_method", self.temporal_method, TEMPORAL_METHODS),
            ("spatial_method", self.spatial_method, SPATIAL_METHODS),
        ):
            if method not in methods:
                raise ValueError(f"{name} is {method!r}; set it to one of {', '.join(methods)}")
        if self.horizon < 2:
            raise ValueError(f"horizon is {self.horizon}; it must be at least 2 grid steps")
        if self.window_slots < 0:
            raise ValueError(f"window_slots is {self.window_slots}; it must be 0 or above")
        for name in ("time_code", "clock_code", "time_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a finite number of 0 or above")

    def tokens(self, grid: PatchGrid) -> int:
        """Language-model tokens of a memory whose slots are all filled."""
        return (self.dam_slots + self.window_slots) * grid.dam_tokens + self.csm_slots * grid.csm_tokens

    @property
    def clusters(self) -> bool:
        """Whether the CSM holds clusters of a stream of more than K steps."""
        return self.csm_slots > 0 and self.temporal_method == KMEANS_ORDERED

    def keyframe_method(self, steps: int) -> str:
        """The spatial method that chooses M of `steps` > M steps.

        All but `sample` need M clusters and their weights. Where there are fewer, as beyond K steps with a sampled CSM,
        without a CSM, or with M > K, the published code fails; here the keyframes are evenly spaced, as by `sample`.
        """
        weighted = steps <= self.csm_slots or (self.clusters and self.dam_slots <= self.csm_slots)
        return self.spatial_method if weighted else SAMPLE

    def with_methods(self, temporal_method: str = AUTO, spatial_method: str = AUTO) -> FlashMemoryConfig:
        """This configuration with other methods; `auto` leaves one as it is.

        Raises:
            ValueError: a method that is not supported.
        """
        wanted = {"temporal_method": temporal_method, "spatial_method": spatial_method}
        changes = {key: method for key, method in wanted.items() if method != AUTO}
        if not changes:
            return self
        changed = replace(self, **changes)  # type: ignore[arg-type]
        changed._warn_of_spaced_keyframes()
        return changed

    def with_slots(
        self, csm_slots: int = KEEP_SLOTS, dam_slots: int = KEEP_SLOTS, window_slots: int = KEEP_SLOTS
    ) -> FlashMemoryConfig:
        """This configuration with other sizes; `KEEP_SLOTS` leaves one as it is.

        Raises:
            ValueError: a size that is not supported.
        """
        wanted = {"csm_slots": csm_slots, "dam_slots": dam_slots, "window_slots": window_slots}
        changes = {name: count for name, count in wanted.items() if count != KEEP_SLOTS}
        return replace(self, **changes)  # type: ignore[arg-type]

    @classmethod
    def untrained(cls) -> FlashMemoryConfig:
        """For weights that were trained without a Flash Memory: the published sizes, and a window."""
        return cls(window_slots=UNTRAINED_WINDOW_SLOTS)

    @classmethod
    def from_published(cls, published: Mapping[str, object] | None) -> FlashMemoryConfig:
        """The settings in a checkpoint's `vision_config.flash_memory_config`, whose lengths are in frames.

        Missing keys, or a missing dict, take the published defaults. What is not supported is replaced by what is
        nearest to it, with a warning: other methods, odd lengths, another pool size, a memory of no length at all. The
        published code stores `pca_dim` but uses it in none of its default paths.

        Raises:
            ValueError: a length that is no whole number of 0 or above, or a number of ours that is none.
        """
        values = {key.removeprefix(PUBLISHED_PREFIX): value for key, value in (published or {}).items()}
        temporal_method = _nearest_method(values.pop("temporal_method", AUTO), "temporal_method", TEMPORAL_METHODS)
        spatial_method = _nearest_method(values.pop("spatial_method", AUTO), "spatial_method", SPATIAL_METHODS)
        pool = values.pop("temporal_poolsize", POOL_SIZE)
        if pool != POOL_SIZE:
            logger.warning(
                f"{PUBLISHED_PREFIX}temporal_poolsize is {pool!r}; {POOL_SIZE} is used, the only one that is supported"
            )
        values.pop("temporal_pca_dim", None)
        csm_frames = _even_frames(values.pop("temporal_length", 2 * cls.csm_slots), "temporal_length")
        dam_frames = _even_frames(values.pop("spatial_length", 2 * cls.dam_slots), "spatial_length")
        if not csm_frames and not dam_frames:
            csm_frames, dam_frames = 2 * cls.csm_slots, 2 * cls.dam_slots
            logger.warning(
                f"{PUBLISHED_PREFIX}temporal_length and {PUBLISHED_PREFIX}spatial_length are 0, which is no memory; "
                f"the published {csm_frames} and {dam_frames} are used"
            )
        window_frames = _even_frames(values.pop(WINDOW_KEY, 0), WINDOW_KEY)
        time_code = _number(values.pop(TIME_CODE_KEY, 0.0), TIME_CODE_KEY)
        clock_code = _number(values.pop(CLOCK_CODE_KEY, 0.0), CLOCK_CODE_KEY)
        time_weight = _number(values.pop(TIME_WEIGHT_KEY, 0.0), TIME_WEIGHT_KEY)
        for key in values:
            logger.warning("flash_memory_config holds the unknown key %r; it is ignored", key)
        config = cls(
            csm_slots=csm_frames // 2,
            dam_slots=dam_frames // 2,
            window_slots=window_frames // 2,
            time_code=time_code,
            clock_code=clock_code,
            time_weight=time_weight,
            temporal_method=temporal_method,
            spatial_method=spatial_method,
        )
        config._warn_of_spaced_keyframes()
        return config

    def _warn_of_spaced_keyframes(self) -> None:
        steps = max(self.csm_slots, self.dam_slots) + 1
        if self.dam_slots and self.keyframe_method(steps) != self.spatial_method:
            clusters = self.csm_slots if self.clusters else 0
            logger.warning(
                f"spatial_method {self.spatial_method} needs {self.dam_slots} weighted clusters, one for each detail "
                f"slot, and the context memory has {clusters} ({self.temporal_method}, {self.csm_slots} slots); from "
                f"{steps} steps on, keyframes are evenly spaced instead. spatial_method {SAMPLE} says the same"
            )

    def to_published(self) -> dict[str, object]:
        """The dict that `from_published` reads: the keys of the published code, and our own where they are not 0."""
        ours = {
            WINDOW_KEY: 2 * self.window_slots,
            TIME_CODE_KEY: self.time_code,
            CLOCK_CODE_KEY: self.clock_code,
            TIME_WEIGHT_KEY: self.time_weight,
        }
        return {
            "flash_memory_temporal_length": 2 * self.csm_slots,
            "flash_memory_temporal_method": self.temporal_method,
            "flash_memory_temporal_poolsize": POOL_SIZE,
            "flash_memory_temporal_pca_dim": 32,
            "flash_memory_spatial_length": 2 * self.dam_slots,
            "flash_memory_spatial_method": self.spatial_method,
            **{PUBLISHED_PREFIX + key: value for key, value in ours.items() if value},
        }


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{PUBLISHED_PREFIX}{key} is {value!r}; it must be a number")
    return float(value)


def _even_frames(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{PUBLISHED_PREFIX}{key} is {value!r}; it counts frames, so it must be a whole number >= 0")
    if value % 2:
        logger.warning(
            f"{PUBLISHED_PREFIX}{key} is {value}; it counts frames and must be even, so {value + 1} are used"
        )
    return value + value % 2


def _nearest_method(value: object, key: str, supported: tuple[str, ...]) -> str:
    """The supported method that is spelled most like `value`; the published default where none is like it."""
    if value == AUTO:
        return supported[0]
    if value in supported:
        return str(value)
    similar = difflib.get_close_matches(str(value).lower(), supported, n=1)
    nearest = similar[0] if similar else supported[0]
    logger.warning(
        f"{PUBLISHED_PREFIX}{key} is {value!r}, which is not supported ({', '.join(supported)} are); {nearest} is "
        f"used. The parameter {key} (of the fvs command: --{key.replace('_', '-')}) chooses another"
    )
    return nearest
