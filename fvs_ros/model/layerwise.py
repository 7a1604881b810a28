"""Decoder layers that are read from a checkpoint's files one weight at a time, each quantised before the next is read.

So that loading takes no more memory than the quantised network and one weight in full precision.
"""

from __future__ import annotations

import copy
import ctypes
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedConfig

from fvs_ros.model.backbone import Backbone
from fvs_ros.model.checkpoint_errors import CheckpointError
from fvs_ros.model.checkpoint_files import weight_paths
from fvs_ros.model.families import FAMILIES, backbone_of
from fvs_ros.model.packed_weights import PackedLayers
from fvs_ros.model.quantization import PARTS, Quantization
from fvs_ros.model.quantized_weights import check_parts, linear_layers, quantize, restore

# Blocks of the vision tower have another name in all families.
_LAYER_WEIGHT = re.compile(r"(?:^|\.)layers\.(\d+)\.(.+)$")


class WeightFiles:
    """The tensors of a checkpoint, by the names in its files.

    Args:
        folder: whose files were found to be whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths = weight_paths(folder)
        self._layers: dict[int, dict[str, str]] = {}
        for name in self._paths:
            if match := _LAYER_WEIGHT.search(name):
                self._layers.setdefault(int(match[1]), {})[match[2]] = name

    def outside_layers(self) -> dict[str, Tensor]:
        """All weights but those of the decoder's layers, mapped from their files."""
        return {name: self.mapped(name) for name in self._paths if not _LAYER_WEIGHT.search(name)}

    def layer(self, index: int) -> dict[str, str]:
        """Names in the files by the names of one layer's weights."""
        return self._layers.get(index, {})

    def mapped(self, name: str) -> Tensor:
        """One tensor, mapped from its file: whoever keeps it copies it."""
        # Opened anew each time: pages of a file that were read stay with the process as long as it is open.
        with safe_open(self._paths[name], framework="pt") as file:
            return file.get_tensor(name)


def without_layers(config: PreTrainedConfig) -> PreTrainedConfig:
    """A network's configuration with a decoder of no layers."""
    bare = copy.deepcopy(config)
    _set_layers(bare.text_config, 0, [])
    return bare


def add_layers(
    backbone: Backbone,
    config: PreTrainedConfig,
    files: WeightFiles,
    quantization: Quantization,
    *,
    stored: bool,
    packed: PackedLayers | None = None,
) -> None:
    """Gives a network of `without_layers` its layers, quantised or packed, on its device.

    Args:
        backbone: of the network.
        config: with all layers.
        files: where their weights are.
        quantization: of the linear layers; none for those that are packed.
        stored: whether the files hold quantised weights.
        packed: makes the linear layers that the files hold packed.

    Raises:
        CheckpointError: weights are missing, superfluous or of another shape than the configuration says.
    """
    with torch.device("meta"):
        network = FAMILIES[config.model_type].network._from_config(
            copy.deepcopy(config), attn_implementation=backbone.text_config._attn_implementation
        )
    text, layers = backbone.text_config, backbone_of(network).layers
    _set_layers(text, config.text_config.num_hidden_layers, getattr(config.text_config, "layer_types", None))
    for module in layers.modules():
        if hasattr(module, "config"):
            module.config = text
    reader = _LayerReader(files, backbone.device, backbone.dtype, quantization, stored, packed)
    for index in range(len(layers)):
        reader.fill(layers, index)
    if packed is not None:
        packed.finish(layers)
    backbone.language_model.layers = layers.eval()


def _set_layers(text: PreTrainedConfig, count: int, types: list[str] | None) -> None:
    text.num_hidden_layers = count
    # Not all families have them.
    if getattr(text, "layer_types", None) is not None:
        text.layer_types = types


def _give_back_freed() -> None:
    """Gives the system what is free between the weights, which glibc keeps: as much again as the quantised weights."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class _LayerReader:
    """Puts weights in the place of those on the meta device."""

    def __init__(
        self,
        files: WeightFiles,
        device: torch.device,
        dtype: torch.dtype,
        quantization: Quantization,
        stored: bool,
        packed: PackedLayers | None,
    ) -> None:
        self._files, self._device, self._dtype = files, device, dtype
        self._quantization, self._stored, self._packed = quantization, stored, packed

    def fill(self, layers: nn.ModuleList, index: int) -> None:
        """Reads all weights of a layer."""
        layer, names = layers[index], self._files.layer(index)
        taken = set() if self._packed is None else self._fill_packed(self._packed, layer, names)
        quantised = self._quantization is not Quantization.NONE
        linears = {f"{name}.weight" for name, _ in linear_layers(layer)} if quantised else set()
        parts = PARTS.get(self._quantization, ()) if self._stored else ()
        wanted = {
            name: [f"{name}.{part}" for part in parts] if parts and name in linears else [name]
            for name, _ in layer.named_parameters()
        }
        expected = {one for some in wanted.values() for one in some} | taken
        for problem, keys in (("lacks", expected - names.keys()), ("has unknown", names.keys() - expected)):
            if keys:
                some = ", ".join(sorted(keys)[:3])
                raise CheckpointError(f"{self._files.folder} {problem} {len(keys)} weights of layer {index}: {some}")
        for name, weight in list(layer.named_parameters()):
            tensors = tuple(self._files.mapped(names[one]) for one in wanted[name])
            owner, _, leaf = name.rpartition(".")
            made = self._parameter(names[wanted[name][0]], tensors, weight.shape, name in linears)
            setattr(layer.get_submodule(owner), leaf, made)
            if name in linears:
                _give_back_freed()

    def _fill_packed(self, packed: PackedLayers, layer: nn.Module, names: Mapping[str, str]) -> set[str]:
        """Puts packed layers in the place of linear ones, where the files have them so; returns the names they took."""
        taken: set[str] = set()
        for name, linear in linear_layers(layer):
            parts = {part: f"{name}.{part}" for part in (*packed.parts, "bias") if f"{name}.{part}" in names}
            if not parts.keys() & set(packed.parts):
                continue
            # Some files have a bias of zeros where the model has none.
            wanted = set(packed.parts) | ({"bias"} if linear.bias is not None else set())
            if lacking := sorted(wanted - parts.keys()):
                raise CheckpointError(f"{self._files.folder} lacks {name}.{lacking[0]}, but has {name}.{min(parts)}")
            tensors = {part: self._files.mapped(names[one]) for part, one in parts.items()}
            in_file = names[parts[packed.parts[0]]].rpartition(".")[0]
            layer.set_submodule(name, packed.make(in_file, linear, tensors))
            taken |= set(parts.values())
        return taken

    def _parameter(self, name: str, tensors: tuple[Tensor, ...], shape: torch.Size, linear: bool) -> nn.Parameter:
        if linear and self._stored:
            values, scales = tensors
            check_parts(name, (values, scales), shape, self._quantization)
            parts = (values.to(self._device, copy=True), scales.to(self._device, copy=True))
            return restore(parts, shape, self._dtype, self._quantization)
        (weight,) = tensors
        if weight.shape != shape:
            raise CheckpointError(
                f"{self._files.folder} has misshapen weights: {name} is {list(weight.shape)}, and config.json says "
                f"{list(shape)}"
            )
        if linear:
            return quantize(name, weight.to(self._device, self._dtype), self._quantization)
        return nn.Parameter(weight.to(self._device, self._dtype, copy=True), requires_grad=False)
