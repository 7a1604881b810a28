"""Arguments that name a model; heavy libraries are imported only when it is loaded."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fvs_ros.memory.config import AUTO, KEEP_SLOTS, SPATIAL_METHODS, TEMPORAL_METHODS
from fvs_ros.model.names import EMBEDDED, TINY, is_tiny
from fvs_ros.model.quantization import QUANTIZATIONS, Quantization

if TYPE_CHECKING:
    from fvs_ros.model.flash_vstream import FlashVStream

SLOTS = {
    "csm_slots": "most slots of the memory's synopsis",
    "dam_slots": "most keyframes of the memory in full detail",
    "window_slots": "newest grid steps of the memory in full detail",
}
CHECKPOINT_ARGUMENTS = (
    "model",
    "device",
    "dtype",
    "quantization",
    "temporal_method",
    "spatial_method",
    "no_deepstack",
    *SLOTS,
)
"""What `load_model` reads."""


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the model, its device and its dtype."""
    parser.add_argument(
        "--model",
        metavar="M",
        default=EMBEDDED,
        help=f"checkpoint: a folder, a hub name, {TINY} for random weights (default: %(default)s, the small one that "
        "ships and knows simulated patrols alone)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 (%(default)s)")
    parser.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        default=Quantization.NONE.value,
        help="bits of the language model's weights; int8 and int4 need torchao, int4 CUDA too (%(default)s)",
    )
    parser.add_argument(
        "--temporal-method",
        choices=(AUTO, *TEMPORAL_METHODS),
        default=AUTO,
        help="how the memory sums up more steps than its context slots; auto takes the checkpoint's (%(default)s)",
    )
    parser.add_argument(
        "--spatial-method",
        choices=(AUTO, *SPATIAL_METHODS),
        default=AUTO,
        help="how the memory chooses keyframes; auto takes the checkpoint's (%(default)s)",
    )
    add_memory_arguments(parser)


def add_memory_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what decides the size of a model's memory."""
    parser.add_argument(
        "--no-deepstack",
        action="store_true",
        help="of Qwen3-VL: do without DeepStack's features, so that the memory takes a quarter and shows less detail",
    )
    for name, what in SLOTS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            metavar="N",
            default=KEEP_SLOTS,
            help=f"{what}; {KEEP_SLOTS} takes the checkpoint's (%(default)s)",
        )


def load_model(arguments: argparse.Namespace) -> FlashVStream:
    """The model that the arguments name; says so if its answers mean nothing, and how far a download is.

    Raises:
        CheckpointError: it cannot be used.
    """
    from rich.console import Console
    from rich.markup import escape
    from transformers.utils.logging import disable_progress_bar

    from fvs_ros.model.flash_vstream import FlashVStream

    disable_progress_bar()
    console = Console(stderr=True, soft_wrap=True)
    if is_tiny(arguments.model):
        note = f"--model {TINY} has random weights: its answers are NOISE; name a checkpoint for real ones"
        console.print(note, markup=False, highlight=False)
    with console.status(f"Loading {escape(arguments.model)}") as status:
        return FlashVStream.load(
            arguments.model,
            device=arguments.device,
            dtype=arguments.dtype,
            quantization=arguments.quantization,
            temporal_method=arguments.temporal_method,
            spatial_method=arguments.spatial_method,
            **{name: getattr(arguments, name) for name in SLOTS},
            deepstack=not arguments.no_deepstack,
            on_progress=lambda line: status.update(f"Loading {escape(arguments.model)}: {escape(line)}"),
        )
