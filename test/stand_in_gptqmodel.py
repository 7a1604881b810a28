"""What `packed_weights.py` calls of GPTQModel, where that is not installed: the same layouts in plain torch.

It has shown the same logits as GPTQModel 7.7.0 itself, with which these tests run where it is installed.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Column of each four bits of a packed number, from the lowest. GPTQ has them in order, of four or eight bits."""


def pack_columns(values: Tensor, order: tuple[int, ...]) -> Tensor:
    """Numbers [m, n] as int32 [m, n / c], c of them in each."""
    several, bits = values.to(torch.int64).unflatten(1, (-1, len(order))), 32 // len(order)
    packed = sum(several[..., column] << bits * place for place, column in enumerate(order))
    assert isinstance(packed, Tensor)
    # As the same bits with a sign.
    return torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)


def unpack_columns(packed: Tensor, order: tuple[int, ...]) -> Tensor:
    """The inverse of `pack_columns`."""
    numbers = packed.to(torch.int64) & 0xFFFFFFFF
    values, bits = torch.empty(*packed.shape, len(order), dtype=torch.int64), 32 // len(order)
    for place, column in enumerate(order):
        values[..., column] = numbers >> bits * place & (1 << bits) - 1
    return values.flatten(1)


class StandInLinear(nn.Module):
    """A packed layer."""

    bias: Tensor | None

    def __init__(self, method: str, settings: dict[str, Any]) -> None:
        super().__init__()
        self.gptq = method == "gptq"
        self.order = tuple(range(32 // settings["bits"])) if self.gptq else AWQ_ORDER
        many = len(self.order)
        self.in_features, self.out_features = settings["in_features"], settings["out_features"]
        inputs, outputs, groups = self.in_features, self.out_features, self.in_features // settings["group_size"]
        shape = (inputs // many, outputs) if self.gptq else (inputs, outputs // many)
        self.register_buffer("qweight", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("qzeros", torch.zeros(groups, outputs // many, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(groups, outputs, dtype=torch.float16))
        if self.gptq:
            self.register_buffer("g_idx", torch.zeros(inputs, dtype=torch.int32))
        self.register_buffer("bias", torch.zeros(outputs, dtype=torch.float16) if settings["bias"] else None)
        self.offset, self.optimized, self.ready = 0, False, False

    def forward(self, inputs: Tensor) -> Tensor:
        """As `nn.Linear` with the unpacked weights."""
        assert self.ready
        assert self.optimized, "it would compile its operations"
        if self.gptq:
            values = unpack_columns(self.get_buffer("qweight").T, self.order).T
            zeros = unpack_columns(self.get_buffer("qzeros"), self.order) + self.offset
            groups = self.get_buffer("g_idx").long()
        else:
            values = unpack_columns(self.get_buffer("qweight"), self.order)
            zeros = unpack_columns(self.get_buffer("qzeros"), self.order)
            groups = torch.arange(self.in_features) * len(zeros) // self.in_features
        weights = (values - zeros[groups]) * self.get_buffer("scales")[groups]
        return nn.functional.linear(inputs, weights.T.to(inputs.dtype), self.bias)


def use_gptqmodel(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPTQModel itself, or this in its place."""
    if importlib.util.find_spec("gptqmodel") is not None:
        return

    def select(*, quant_method: str, **settings: object) -> type[nn.Module]:
        class Kernel(StandInLinear):
            def __init__(self, **more: object) -> None:
                super().__init__(quant_method, more)

        return Kernel

    def convert(layers: nn.Module, bits: int, kernel: type[nn.Module], layout: str, meta: None) -> None:
        for module in layers.modules():
            if isinstance(module, StandInLinear) and layout == "gptq":
                module.offset = 1

    def finish(layers: nn.Module, use_act_order: bool) -> None:
        for module in layers.modules():
            if isinstance(module, StandInLinear):
                module.ready = True

    functions: dict[str, dict[str, object]] = {
        "gptqmodel": {},
        "gptqmodel.utils": {},
        "gptqmodel.utils.importer": {"hf_select_quant_linear_v2": select},
        "gptqmodel.utils.model": {"hf_convert_gptq_v1_to_v2_format": convert, "hf_gptqmodel_post_init": finish},
    }
    for name, members in functions.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        for member, function in members.items():
            setattr(module, member, function)
        monkeypatch.setitem(sys.modules, name, module)
