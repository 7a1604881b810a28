"""How frames become grid steps, patches and tokens, in Qwen2-VL and everything built on it. Imports nothing."""

from __future__ import annotations

# Consecutive frames of a grid step.
FRAMES_PER_STEP = 2
# Pixels along each side of a patch.
PATCH = 14
# Patches along each side of the block that the merger joins into one language-model token.
MERGE = 2
# The low-resolution pathway pools pixels 2 x 2 and so has a quarter of the patches.
POOL = 2
# A resized frame's sides are multiples of 56 pixels, so that the pooled frame still merges.
FRAME_MULTIPLE = PATCH * MERGE * POOL
LEAST_PIXELS = FRAME_MULTIPLE**2
