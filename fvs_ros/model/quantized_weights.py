"""Weight-only quantisation by torchao: weights to its tensors, these to plain ones for a file, and back.

torchao's tensors stand in `nn.Linear.weight`, and calling the module computes with them; nothing else may read them.

Shapes: n output features, k input features of a linear layer.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor, nn

from fvs_ros.model.backbone import Backbone
from fvs_ros.model.checkpoint_errors import CheckpointError
from fvs_ros.model.checkpoint_files import INDEX
from fvs_ros.model.quantization import PARTS, Quantization

INSTALL = "pip install 'torchao>=0.15'"
# Of int8: weights that are quantised at once, which takes some 20 MB for a moment, and not several times a layer.
AT_ONCE = 2**20
# Of a written file, about.
FILE_BYTES = 10**9
# Of int4: weights that share a scale, and the least compute capability whose tensor cores its kernel uses.
GROUP = 128
LEAST_CAPABILITY = (8, 0)


def check_usable(quantization: Quantization, device: torch.device, dtype: torch.dtype) -> None:
    """Refuses what a device, a dtype or this installation cannot compute with.

    Args:
        quantization: of the weights.
        device: where they are to be.
        dtype: of the rest of the model.

    Raises:
        CheckpointError: torchao is missing, or int4 on another device than CUDA of compute capability 8.0 or above, or
            in another dtype than bfloat16.
    """
    if quantization is Quantization.NONE:
        return
    if quantization is Quantization.INT4:
        found = device.type
        if found == "cuda":
            major, minor = torch.cuda.get_device_capability(device)
            found = f"{device} with compute capability {major}.{minor}"
        if device.type != "cuda" or torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
            raise CheckpointError(
                f"quantization int4 needs CUDA of compute capability 8.0 or above, and the model is to run on {found}; "
                "use int8, which runs on any device"
            )
        if dtype != torch.bfloat16:
            raise CheckpointError(f"quantization int4 computes in bfloat16, and dtype is {dtype}; use bfloat16 or int8")
    if importlib.util.find_spec("torchao") is None:
        raise CheckpointError(f"quantization {quantization.value} needs torchao, which is not installed: {INSTALL}")


def usable(quantization: Quantization, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a device and this installation can compute with it."""
    try:
        check_usable(quantization, device, dtype)
    except CheckpointError:
        return False
    return True


def quantize(name: str, weight: Tensor, quantization: Quantization) -> nn.Parameter:
    """A quantised weight, where the full one is.

    Args:
        name: for the message.
        weight: [n, k], in the model's dtype, on its device.
        quantization: int8 or int4.

    Raises:
        CheckpointError: int4, and k is no multiple of `GROUP`.
    """
    torchao = _torchao()
    if quantization is Quantization.INT8:
        row = importlib.import_module("torchao.quantization.granularity").PerRow()
        values, scales = torch.empty_like(weight, dtype=torch.int8, memory_format=torch.contiguous_format), []
        rows = max(1, AT_ONCE // weight.shape[1])
        for some, into in zip(weight.split(rows), values.split(rows), strict=True):
            made = torchao.Int8Tensor.from_hp(some, granularity=row)
            into.copy_(made.qdata)
            scales.append(made.scale)
        return restore((values, torch.cat(scales)), weight.shape, weight.dtype, quantization)
    if weight.shape[1] % GROUP:
        raise CheckpointError(
            f"{name} has {weight.shape[1]} input features, and int4 needs a multiple of {GROUP}; use int8"
        )
    # HQQ fits scales and zeros to the weights, instead of to their extremes.
    settings = torchao.Int4WeightOnlyConfig(
        group_size=GROUP,
        int4_packing_format="tile_packed_to_4d",
        int4_choose_qparams_algorithm="hqq",
        set_inductor_config=False,
    )
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    torchao.quantize_(linear, settings)
    return linear.weight


def restore(
    parts: tuple[Tensor, Tensor], shape: torch.Size, dtype: torch.dtype, quantization: Quantization
) -> nn.Parameter:
    """A quantised weight of the plain tensors that `parts_of` gave.

    Args:
        parts: in the order of `PARTS`.
        shape: [n, k] of the weight.
        dtype: of the model.
        quantization: int8 or int4.
    """
    torchao = _torchao()
    if quantization is Quantization.INT8:
        made = torchao.Int8Tensor(*parts, [1, shape[1]], dtype)
    else:
        made = torchao.Int4TilePackedTo4dTensor(*parts, [1, GROUP], shape)
    return nn.Parameter(made, requires_grad=False)


def parts_of(weight: Any) -> dict[str, Tensor]:
    """The plain tensors that a weight is made of by their names: its own and no name where it is not quantised."""
    if not hasattr(weight, "qdata"):
        return {"": weight}
    if hasattr(weight, "scale_and_zero"):
        return dict(zip(PARTS[Quantization.INT4], (weight.qdata, weight.scale_and_zero), strict=True))
    return dict(zip(PARTS[Quantization.INT8], (weight.qdata, weight.scale), strict=True))


def check_parts(name: str, parts: tuple[Tensor, Tensor], shape: torch.Size, quantization: Quantization) -> None:
    """Refuses plain tensors that are not those of a weight of `shape`, which a kernel would read beyond their end.

    Raises:
        CheckpointError: another shape or dtype.
    """
    outputs, inputs = shape
    expected: tuple[tuple[torch.dtype, tuple[int, ...]], ...]
    if quantization is Quantization.INT8:
        expected = ((torch.int8, (outputs, inputs)), (parts[1].dtype, (outputs, 1)))
    else:
        outputs, inputs = _multiple(outputs, 8), _multiple(inputs, 1_024)
        expected = (
            (torch.int32, (outputs // 8, inputs // 128, 32, 4)),
            (torch.bfloat16, (inputs // GROUP, outputs, 2)),
        )
    for part, (dtype, size) in zip(parts, expected, strict=True):
        if part.dtype != dtype or part.shape != size or not (part is parts[0] or part.is_floating_point()):
            raise CheckpointError(
                f"{name} is {part.dtype} {list(part.shape)} and config.json says {dtype} {list(size)}; quantise the "
                "checkpoint again (fvs quantize)"
            )


def quantized_bytes(shape: torch.Size, quantization: Quantization) -> int:
    """Bytes of a quantised weight [n, k]."""
    outputs, inputs = shape
    if quantization is Quantization.INT8:
        return outputs * (inputs + 4)
    outputs, inputs = _multiple(outputs, 8), _multiple(inputs, 1_024)
    return outputs * inputs // 2 + 2 * 2 * outputs * inputs // GROUP


def _multiple(count: int, of: int) -> int:
    return -(-count // of) * of


def weight_bytes(network: nn.Module) -> int:
    """Bytes of all parameters, as they are stored; tied ones count once."""
    return sum(part.nbytes for weight in network.parameters() for part in parts_of(weight).values())


def save_quantized(network: nn.Module, folder: Path) -> None:
    """Writes all weights as plain tensors in safetensors, with an index where they take several files."""
    tensors: dict[str, Tensor] = {}
    written = set()
    for name, weight in network.state_dict().items():
        for part, tensor in parts_of(weight).items():
            # A head that is the embeddings is written once.
            if tensor.data_ptr() not in written:
                written.add(tensor.data_ptr())
                tensors[f"{name}.{part}" if part else name] = tensor.contiguous()
    # safetensors copies a file's tensors before it writes them, so files are small.
    split = split_torch_state_dict_into_shards(tensors, max_shard_size=FILE_BYTES)
    for file, names in split.filename_to_tensors.items():
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def quantize_layers(backbone: Backbone, quantization: Quantization) -> None:
    """Quantises the linear layers of a language model that is there already, one after the other.

    Raises:
        CheckpointError: as `check_usable` and `quantize`.
    """
    check_usable(quantization, backbone.device, backbone.dtype)
    if quantization is Quantization.NONE:
        return
    for name, linear in linear_layers(backbone.layers):
        linear.weight = quantize(name, linear.weight.detach(), quantization)


def linear_layers(layers: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Those that are quantised, by their names in `layers`."""
    return [(name, module) for name, module in layers.named_modules() if isinstance(module, nn.Linear)]


def _torchao() -> Any:
    return importlib.import_module("torchao.quantization")
