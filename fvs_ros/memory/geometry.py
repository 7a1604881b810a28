"""How frames become grid steps, patches and tokens, in Qwen2-VL and everything built on it. Imports nothing.

Models differ in one of these numbers alone: the pixels of a patch, which `PatchGrid.patch` therefore carries.
"""

from __future__ import annotations

# Consecutive frames of a grid step.
FRAMES_PER_STEP = 2
# Pixels along each side of a patch, in Qwen2-VL and Qwen2.5-VL.
PATCH = 14
# Patches along each side of the block that the merger joins into one language-model token.
MERGE = 2
# The low-resolution pathway pools pixels 2 x 2 and so has a quarter of the patches.
POOL = 2
# A resized frame's sides are multiples of 4 patches, of 14 pixels 56, so that the pooled frame still merges.
FRAME_PATCHES = MERGE * POOL
FRAME_MULTIPLE = PATCH * FRAME_PATCHES
LEAST_PIXELS = FRAME_MULTIPLE**2
