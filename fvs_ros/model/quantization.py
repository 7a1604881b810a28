"""How many bits the language model's weights have: the one setting, without anything heavy behind it.

`quantized_weights.py` does what it says.
"""

from __future__ import annotations

from enum import Enum


class Quantization(Enum):
    """Of the linear layers of the language model. The vision tower, embeddings, norms and head stay as they are."""

    NONE = "none"
    """As the checkpoint has them."""
    INT8 = "int8"
    """Eight bits a weight and one scale a row. Any device."""
    INT4 = "int4"
    """Four bits a weight, a scale and a zero for 128 of them. CUDA from compute capability 8.0, in bfloat16."""


METHOD = "fvs_ros"
"""The `quant_method` of checkpoints that `fvs quantize` writes, so that other libraries refuse them by name."""

PARTS = {Quantization.INT8: ("int8", "scale"), Quantization.INT4: ("int4", "scale_and_zero")}
"""Names, behind the weight's own, of the plain tensors that a quantised weight is in a file."""

QUANTIZATIONS = tuple(choice.value for choice in Quantization)
