"""From camera frames to ViT patches, on the model's device.

Shapes: n grid steps of two frames, H x W pixels, P patches of a frame, p x p pixels of a patch, C = 3 * 2 * p * p
values of a patch pair. Multiples of pixels are given for p = 14; for p = 16, 28 becomes 32 and 56 becomes 64.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fvs_ros.memory.geometry import FRAME_PATCHES, FRAMES_PER_STEP, LEAST_PIXELS, MERGE, PATCH
from fvs_ros.memory.snapshot import PatchGrid

MAX_ASPECT_RATIO = 200
# Published as the most that Qwen2-VL and Qwen3-VL take.
MOST_TOKENS = 16_384
MOST_PIXELS = (PATCH * MERGE) ** 2 * MOST_TOKENS
# Of means and standard deviations of channels, published from 0.26 to 0.49.
MOST_NORMAL = 1_000.0


@dataclass(frozen=True)
class PixelConfig:
    """A checkpoint's `preprocessor_config.json`, as far as pixels need it.

    Attributes:
        mean, std: of each RGB channel, on a scale of 0 to 1.
        min_pixels, max_pixels: the checkpoint's own bounds on a frame's area.
        patch: pixels along each side of a patch.
    """

    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    min_pixels: int = LEAST_PIXELS
    max_pixels: int = MOST_PIXELS
    patch: int = PATCH

    def __post_init__(self) -> None:
        # Further out lie only features of infinity, or of NaN.
        for name, values, least in (("image_mean", self.mean, -MOST_NORMAL), ("image_std", self.std, 1 / MOST_NORMAL)):
            if not all(least <= value <= MOST_NORMAL for value in values):
                raise ValueError(f"{name} is {list(values)}; its numbers must be from {least:g} to {MOST_NORMAL:g}")
        if not 1 <= self.min_pixels <= self.max_pixels or self.min_pixels > MOST_PIXELS:
            raise ValueError(
                f"min_pixels is {self.min_pixels}, max_pixels {self.max_pixels}; they must be from 1 up, in order, and "
                f"min_pixels at most {MOST_PIXELS}"
            )

    @classmethod
    def from_preprocessor(cls, values: Mapping[str, object], default: PixelConfig | None = None) -> PixelConfig:
        """Reads `preprocessor_config.json` in the layouts of transformers 4 (pixels at the top) and 5 (`size`).

        Args:
            values: of the file.
            default: of the model's family: what it does not say, and the patch; None for those of Qwen2-VL.
        """
        default = default or QWEN2_VL_PIXELS
        size = values.get("size")
        size = size if isinstance(size, Mapping) else {}
        least = values.get("min_pixels") or size.get("shortest_edge") or default.min_pixels
        most = values.get("max_pixels") or size.get("longest_edge") or default.max_pixels
        return cls(
            mean=_three(values.get("image_mean", default.mean), "image_mean"),
            std=_three(values.get("image_std", default.std), "image_std"),
            min_pixels=_area(least, "min_pixels"),
            max_pixels=_area(most, "max_pixels"),
            patch=default.patch,
        )

    @property
    def first_multiple(self) -> int:
        """Pixels of a token's side: what the first of the published two resizes goes by."""
        return self.patch * MERGE

    @property
    def frame_multiple(self) -> int:
        """What the sides of a frame are multiples of after the second."""
        return self.patch * FRAME_PATCHES

    def to_preprocessor(self) -> dict[str, object]:
        """The dict that `from_preprocessor` reads, in the published layout."""
        return {
            "image_processor_type": "Qwen2VLImageProcessor",
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "min_pixels": self.min_pixels,
            "max_pixels": self.max_pixels,
            "patch_size": self.patch,
            "temporal_patch_size": FRAMES_PER_STEP,
            "merge_size": MERGE,
        }


QWEN2_VL_PIXELS = PixelConfig()
QWEN3_VL_PIXELS = PixelConfig(
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), max_pixels=(16 * MERGE) ** 2 * MOST_TOKENS, patch=16
)
"""As Qwen2-VL and Qwen3-VL are published."""


def _three(values: object, name: str) -> tuple[float, float, float]:
    try:
        red, green, blue = map(float, values if isinstance(values, Sequence) and not isinstance(values, str) else ())
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} of the preprocessor config is {values!r}; it must hold three numbers") from None
    return red, green, blue


def _area(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} of the preprocessor config is {value!r}; it must be a whole number of pixels")
    return value


def resized_size(height: int, width: int, multiple: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The nearest size in multiples of `multiple` whose area is within the bounds, as Qwen2-VL computes it.

    Raises:
        ValueError: a side is 200 times the other or more.
    """
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(
            f"the frame is {width} x {height}; one side may be at most {MAX_ASPECT_RATIO} times the other, so crop it"
        )
    new_height, new_width = round(height / multiple) * multiple, round(width / multiple) * multiple
    if new_height * new_width > max_pixels:
        scale = math.sqrt(height * width / max_pixels)
        new_height = max(multiple, math.floor(height / scale / multiple) * multiple)
        new_width = max(multiple, math.floor(width / scale / multiple) * multiple)
    elif new_height * new_width < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * scale / multiple) * multiple
        new_width = math.ceil(width * scale / multiple) * multiple
    return new_height, new_width


def frame_grid(height: int, width: int, min_pixels: int, max_pixels: int, pixels: PixelConfig) -> PatchGrid:
    """Patches of a frame of that size after the published two resizes.

    They are: to multiples of 28 pixels within the caller's bounds, then to multiples of 56 within the checkpoint's own.
    Only the final size is taken from them: one resize straight to it replaces two, which blurred twice. `resize_first`
    does the first as well, where results are compared with published ones.

    Raises:
        ValueError: a side is 200 times the other or more, before or after the first resize.
    """
    first = resized_size(height, width, pixels.first_multiple, min_pixels, max_pixels)
    if max(first) > MAX_ASPECT_RATIO * min(first):
        raise ValueError(
            f"the frame is {width} x {height}, which becomes {first[1]} x {first[0]} in whole patches; one side may be "
            f"at most {MAX_ASPECT_RATIO} times the other, so crop it"
        )
    final = resized_size(*first, pixels.frame_multiple, pixels.min_pixels, pixels.max_pixels)
    return PatchGrid.of_frames(*final, patch=pixels.patch)


def resize_first(frame: np.ndarray, min_pixels: int, max_pixels: int, patch: int = PATCH) -> np.ndarray:
    """The first of the published two resizes: RGB uint8 [H, W, 3], to multiples of 28 pixels within the bounds.

    `resize_frames` to the grid of the original frame is then the second.

    Raises:
        ValueError: a side is 200 times the other or more.
    """
    height, width = frame.shape[:2]
    size = resized_size(height, width, patch * MERGE, min_pixels, max_pixels)
    pixels = torch.from_numpy(np.require(frame, requirements=["C", "W"])).permute(2, 0, 1)[None]
    return _resize(pixels, size)[0].permute(1, 2, 0).to(torch.uint8).numpy()


def resize_frames(frames: Sequence[np.ndarray | Tensor], grid: PatchGrid, device: torch.device) -> Tensor:
    """RGB uint8 frames [H, W, 3] of any sizes, resized to the grid: float32 [2n, 3, H, W] in 0 to 255.

    Bicubic with antialiasing as Pillow gives it, which the published preprocessing uses: first the columns, then the
    rows, each in whole values of 0 to 255. Another order of rounding differs by one at most.
    """
    size = grid.frame_size
    resized = []
    for frame in frames:
        if isinstance(frame, np.ndarray):
            # It may be a view of a received message, and so read-only, which torch refuses to wrap.
            frame = torch.from_numpy(np.require(frame, requirements=["C", "W"]))
        resized.append(_resize(frame.to(device).permute(2, 0, 1)[None], size))
    return torch.cat(resized)


def _resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [1, 3, H, W] to float32 [1, 3, *size]."""
    if pixels.shape[-2:] == size:
        return pixels.float()
    if pixels.device.type == "cpu":
        # In whole numbers: 1080p to 448 x 448 takes 3 ms on one core instead of 41, and 2 instead of 56 to 112 x 112.
        return functional.interpolate(pixels, size, mode="bicubic", antialias=True).float()
    return resize_in_floats(pixels, size)


def resize_in_floats(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """What `_resize` computes in whole numbers on a CPU, for devices where torch does not."""
    resized = pixels.float()
    for passed in ((pixels.shape[-2], size[1]), size):
        resized = functional.interpolate(resized, passed, mode="bicubic", antialias=True).clamp(0, 255).round()
    return resized


def normalise(frames: Tensor, pixels: PixelConfig) -> Tensor:
    """Frames [2n, 3, H, W] in 0 to 255, scaled to the channel statistics that the ViT was trained with."""
    mean, std = _statistics(pixels, frames.device)
    return (frames / 255 - mean) / std


# Kept on the device: a copy from the host would wait for it.
@functools.lru_cache(maxsize=16)
def _statistics(pixels: PixelConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (pixels.mean, pixels.std))
    return mean, std


def sampled_indices(count: int, max_frames: int) -> list[int]:
    """Which of a clip's `count` frames are taken, as published.

    All, or `max_frames` (an even number) at equal distances; of an odd number the last one is repeated, since a grid
    step is two frames.
    """
    if count > max_frames:
        return [int(index) for index in np.linspace(0, count - 1, max_frames).round()]
    return [*range(count), *([count - 1] if count % 2 else [])]


def patchify(frames: Tensor, patch: int = PATCH) -> Tensor:
    """Normalised frames [2n, 3, H, W] as patches [n, P, C] of `patch` x `patch` pixels.

    A patch holds (channel, frame of the step, row, column). Patches come in merge-block order: blocks of 2 x 2 row by
    row, the four patches of a block after each other.
    """
    count, channels, height, width = frames.shape
    rows, columns = height // (patch * MERGE), width // (patch * MERGE)
    shape = (count // FRAMES_PER_STEP, FRAMES_PER_STEP, channels, rows, MERGE, patch, columns, MERGE, patch)
    blocks = frames.reshape(shape).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return blocks.reshape(count // FRAMES_PER_STEP, rows * columns * MERGE**2, -1)
