"""The frozen vision tower that encodes episodes, in the training process or beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.geometry import FRAMES_PER_STEP
from fvs_ros.memory.snapshot import StepFeatures
from fvs_ros.model.backbone import VisionTower
from fvs_ros.model.preprocess import PixelConfig, normalise

# Grid steps that are encoded at once: what a 7B model keeps meanwhile stays below 1 GB.
FROZEN_STEPS = 8


@dataclass(frozen=True)
class FrozenEncoder:
    """A vision tower that is not trained, as data processes on the CPU run it beside the one that trains.

    Attributes:
        tower: in evaluation mode.
        pixels: how the checkpoint takes frames.
        memory: sizes of its Flash Memory.
    """

    tower: VisionTower
    pixels: PixelConfig
    memory: FlashMemoryConfig

    @torch.no_grad()
    def encode(self, frames: Tensor) -> StepFeatures:
        """Features of T grid steps as at inference: without gradient, in the precision of the weights.

        Args:
            frames: uint8 [2T, 3, H, W] on the tower's device.
        """
        with torch.autocast(frames.device.type, enabled=False):
            parts = [
                self.tower.encode(normalise(part.float(), self.pixels))
                for part in frames.split(FROZEN_STEPS * FRAMES_PER_STEP)
            ]
        return StepFeatures(torch.cat([part.high for part in parts]), torch.cat([part.low for part in parts]))
