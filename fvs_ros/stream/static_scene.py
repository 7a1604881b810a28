"""Recognises grid steps of a static scene, which the model need not encode again."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

# Frames are compared by the means of 64 x 36 blocks: noise averages out within a block, movement does not.
COLUMNS, ROWS = 64, 36


class StaticSceneFilter:
    """Recognises steps that show the last encoded step's scene again, to within a camera's noise.

    Frames are compared with an encoded frame, never with each other in a chain, so that a slow change adds up until it
    exceeds the tolerance. An encoded step becomes the reference only if its own two frames are alike: otherwise its
    features show a movement that a static scene after it does not.

    Args:
        tolerance: largest difference of any block's mean, on a scale of 0 to 255; 0 takes no step for static.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._reference: np.ndarray | None = None

    @property
    def active(self) -> bool:
        """Whether any step can be taken for static."""
        return self._tolerance > 0

    def is_static(self, frames: Sequence[np.ndarray], *, provisional: bool = False) -> bool:
        """Whether a step of RGB uint8 frames [H, W, 3] shows the reference's scene; if not, it becomes the reference.

        Args:
            frames: of the step.
            provisional: only compare; the reference stays.
        """
        if not self.active:
            return False
        blocks = [_block_means(frame) for frame in frames]
        if self._reference is not None and all(self._alike(self._reference, one) for one in blocks):
            return True
        if not provisional:
            self._reference = blocks[-1] if self._alike(blocks[0], blocks[-1]) else None
        return False

    def forget(self) -> None:
        """Drops the reference; the next step is not static."""
        self._reference = None

    def _alike(self, one: np.ndarray, other: np.ndarray) -> bool:
        return bool(np.abs(one - other).max() <= self._tolerance)


def _block_means(frame: np.ndarray) -> np.ndarray:
    """Means [36, 64, 3] float32 of a frame's blocks."""
    small = cv2.resize(frame, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)
