"""`fvs quantize`: writes a checkpoint whose language model has 8 or 4 bits a weight."""

from __future__ import annotations

import argparse
from pathlib import Path

from fvs_ros.model.quantization import QUANTIZATIONS, Quantization


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what to read, what to write, and in how many bits."""
    parser.add_argument("model", metavar="MODEL", help="checkpoint in full precision: a folder, a hub name, embedded")
    parser.add_argument("out", metavar="OUT", type=Path, help="new folder for the quantised checkpoint")
    parser.add_argument(
        "--quantization",
        choices=[name for name in QUANTIZATIONS if name != Quantization.NONE.value],
        default=Quantization.INT8.value,
        help="bits of the language model's weights; int4 needs CUDA (%(default)s)",
    )
    parser.add_argument("--device", default="auto", help="where to do it: auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument(
        "--dtype", default="bfloat16", help="of all other weights: float32, bfloat16 or float16 (%(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Reads, quantises weight by weight, writes, and says how large it is.

    Raises:
        CheckpointError: the checkpoint, the device or the quantization cannot be used, or the folder is taken.
    """
    from rich.console import Console
    from rich.markup import escape
    from transformers.utils.logging import disable_progress_bar

    from fvs_ros.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
    from fvs_ros.model.flash_vstream import pick_device, pick_dtype
    from fvs_ros.model.quantized_weights import weight_bytes

    out: Path = arguments.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is there already; name a new folder")
    device = pick_device(arguments.device)
    disable_progress_bar()
    console = Console(stderr=True, soft_wrap=True)
    with console.status(f"Reading {escape(arguments.model)}") as status:
        checkpoint = load_checkpoint(
            arguments.model,
            device=device,
            dtype=pick_dtype(arguments.dtype, device),
            quantization=Quantization(arguments.quantization),
            on_progress=lambda line: status.update(f"Reading {escape(arguments.model)}: {escape(line)}"),
        )
        status.update(f"Writing {escape(str(out))}")
        # Under another name until it is whole.
        partial = out.with_name(f"{out.name}.partial")
        save_checkpoint(checkpoint, partial)
        partial.replace(out)
    size = weight_bytes(checkpoint.network)
    console.print(f"{out}: {size / 1e9:.2f} GB of weights as {arguments.quantization}", markup=False, highlight=False)
    return 0
