"""Linear layers that AWQ or GPTQ has packed, computed by GPTQModel, which is no dependency and only imported for them.

Shapes: n output features, k input features of a linear layer.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fvs_ros.model.checkpoint_errors import CheckpointError

INSTALL = "pip install gptqmodel"
PACKED_PARTS = {"gptq": ("qweight", "qzeros", "scales", "g_idx"), "awq": ("qweight", "qzeros", "scales")}
"""Names, behind the layer's own, of a packed layer's tensors in a file, by the method."""
FORMATS = {"gptq": ("gptq", "gptq_v2"), "awq": ("gemm",)}
BITS = {"gptq": (4, 8), "awq": (4,)}
DTYPES = (torch.float16, torch.bfloat16)
# GPTQModel's own choice compiles kernels when it is first used, and some of these keep scratch memory that captured
# graphs must not share. These are made of torch's operations alone.
KERNELS = {"gptq": "gptq_torch", "awq": "awq_torch"}


@dataclass(frozen=True)
class PackedWeights:
    """How the linear layers of a checkpoint are packed.

    Attributes:
        method: `gptq` or `awq`.
        layout: of its tensors, as the method names it.
        bits: of a weight.
        group: weights along k that share a scale; -1 for all.
        symmetric: whether zero stands in the middle of the range.
        reordered: whether groups are those of GPTQ's `desc_act`, not neighbours.
    """

    method: str
    layout: str
    bits: int
    group: int
    symmetric: bool
    reordered: bool

    @classmethod
    def from_json(cls, settings: object) -> PackedWeights | None:
        """Reads a `quantization_config`; None where another method, or none, has written it.

        Raises:
            CheckpointError: a setting is missing or not supported.
        """
        method = settings.get("quant_method") if isinstance(settings, Mapping) else None
        if not isinstance(settings, Mapping) or not isinstance(method, str) or method not in PACKED_PARTS:
            return None
        layout = settings.get("checkpoint_format") or settings.get("format") or settings.get("version")
        values = {
            "bits": settings.get("bits", settings.get("w_bit")),
            "group_size": settings.get("group_size", settings.get("q_group_size", 128)),
            "the layout": str(layout or FORMATS[method][0]).lower(),
            "desc_act": settings.get("desc_act", False),
            "sym": settings.get("sym", method == "gptq"),
        }
        for name, known in (
            ("bits", BITS[method]),
            ("group_size", (-1, 16, 32, 64, 128, 256, 512, 1_024)),
            ("the layout", FORMATS[method]),
            ("desc_act", (False, True)),
            ("sym", (False, True)),
        ):
            if values[name] not in known:
                some = ", ".join(map(str, known))
                raise CheckpointError(
                    f"the checkpoint is quantised by {method}, and its quantization_config has {name} "
                    f"{values[name]!r}; supported are {some}"
                )
        return cls(
            method,
            values["the layout"],
            int(values["bits"]),
            int(values["group_size"]),
            bool(values["sym"]),
            bool(values["desc_act"]),
        )

    def __str__(self) -> str:
        return f"{self.method} with {self.bits} bits"


def check_packed_usable(packed: PackedWeights, dtype: torch.dtype) -> None:
    """Refuses what this installation cannot compute with.

    Args:
        packed: of the checkpoint.
        dtype: of the rest of the model.

    Raises:
        CheckpointError: GPTQModel is missing, or it does not compute in this dtype.
    """
    if importlib.util.find_spec("gptqmodel") is None:
        raise CheckpointError(
            f"the checkpoint is quantised by {packed}, which needs GPTQModel, and that is not installed: {INSTALL}; or "
            "name the checkpoint in full precision with quantization int8"
        )
    if dtype not in DTYPES:
        raise CheckpointError(
            f"the checkpoint is quantised by {packed}, whose kernels compute in float16 and bfloat16, and dtype is "
            f"{dtype}; set dtype to bfloat16"
        )


class PackedLayers:
    """Makes packed linear layers on one device.

    Args:
        packed: of the checkpoint.
        device: where they are to be.
        dtype: of scales and biases.

    Raises:
        CheckpointError: GPTQModel has no kernel for them.
    """

    def __init__(self, packed: PackedWeights, device: torch.device, dtype: torch.dtype) -> None:
        self.parts = PACKED_PARTS[packed.method]
        self._packed, self._device, self._dtype = packed, device, dtype
        self._library: Any = importlib.import_module("gptqmodel.utils.model")
        importer: Any = importlib.import_module("gptqmodel.utils.importer")
        try:
            self._kernel: Any = importer.hf_select_quant_linear_v2(
                bits=packed.bits,
                group_size=packed.group,
                desc_act=packed.reordered,
                sym=packed.symmetric,
                format=packed.layout,
                quant_method=packed.method,
                zero_point=not packed.symmetric if packed.method == "awq" else None,
                dtype=dtype,
                pack=False,
                device_map={"": device},
                backend=KERNELS[packed.method],
            )
        except Exception as error:
            # Of many kinds, as each kernel has its own conditions.
            raise CheckpointError(f"GPTQModel cannot compute with {packed} here: {error}") from error

    def make(self, name: str, linear: nn.Linear, tensors: Mapping[str, Tensor]) -> nn.Module:
        """A packed layer in the place of a linear one.

        Args:
            name: for the message.
            linear: whose features it has.
            tensors: by the names of `parts`, and `bias` where the file has one.

        Raises:
            CheckpointError: a tensor is missing, or has another shape or dtype than the layer's settings say.
        """
        packed = self._packed
        with torch.device(self._device):
            made: nn.Module = self._kernel(
                bits=packed.bits,
                group_size=packed.group,
                sym=packed.symmetric,
                desc_act=packed.reordered,
                in_features=linear.in_features,
                out_features=linear.out_features,
                bias="bias" in tensors,
                register_buffers=True,
            )
        for part in (*self.parts, *(["bias"] if "bias" in tensors else [])):
            tensor, place = tensors[part], made.get_buffer(part)
            if tensor.shape != place.shape or tensor.is_floating_point() != place.is_floating_point():
                raise CheckpointError(
                    f"{name}.{part} is {tensor.dtype} {list(tensor.shape)}, and config.json says {place.dtype} "
                    f"{list(place.shape)} ({packed}, group_size {packed.group}); they are of two models, so download "
                    "the whole checkpoint"
                )
            made.register_buffer(
                part, tensor.to(self._device, self._dtype if tensor.is_floating_point() else place.dtype, copy=True)
            )
        self._check_groups(name, linear, tensors)
        return made

    def finish(self, layers: nn.Module) -> None:
        """What GPTQModel does once all of them have their tensors."""
        packed = self._packed
        if packed.method == "gptq":
            # Zeros of the older layout are one less than those of the newer one.
            self._library.hf_convert_gptq_v1_to_v2_format(layers, packed.bits, self._kernel, packed.layout, None)
        for module in layers.modules():
            if isinstance(module, self._kernel):
                # Else it would compile its operations when it is first called.
                module.optimized = True
        self._library.hf_gptqmodel_post_init(layers, use_act_order=packed.reordered)

    def _check_groups(self, name: str, linear: nn.Linear, tensors: Mapping[str, Tensor]) -> None:
        """Groups index scales; beyond the last one kernels would read foreign memory."""
        groups = tensors.get("g_idx")
        if groups is None:
            return
        count = tensors["scales"].shape[0]
        if int(groups.min()) < 0 or int(groups.max()) >= count:
            raise CheckpointError(
                f"{name}.g_idx names groups from {int(groups.min())} to {int(groups.max())}, and there are {count}; "
                "download the checkpoint again"
            )
