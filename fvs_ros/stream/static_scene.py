"""Which grid steps show what the last one showed, so that the model need not look again."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

# Frames are compared by the means of so many blocks: noise averages out in a block, what moves does not.
COLUMNS, ROWS = 64, 36


class StaticSceneFilter:
    """Tells whether both frames of a step repeat the last step that was encoded, to within a camera's noise.

    Frames are compared with one that was encoded, never with each other in a chain, so that a slow change adds up until
    it is seen. A step counts as the last one only if its own two frames were alike: else its features show a movement
    that a still scene after it does not.

    Args:
        tolerance: largest difference of any block's mean, on a scale of 0 to 255; 0 takes no frame for a repetition.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._reference: np.ndarray | None = None

    @property
    def active(self) -> bool:
        """Whether any frame can be taken for a repetition."""
        return self._tolerance > 0

    def repeats(self, frames: Sequence[np.ndarray], *, provisional: bool = False) -> bool:
        """Whether a step of RGB uint8 frames [H, W, 3] repeats the reference; one that does not becomes the next.

        Args:
            frames: of the step.
            provisional: the step leaves no trace: it is compared only.
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
        """Lets no step repeat what came before."""
        self._reference = None

    def _alike(self, one: np.ndarray, other: np.ndarray) -> bool:
        return bool(np.abs(one - other).max() <= self._tolerance)


def _block_means(frame: np.ndarray) -> np.ndarray:
    """Means [36, 64, 3] float32 of a frame's blocks."""
    small = cv2.resize(frame, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)
