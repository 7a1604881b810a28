"""Arguments that name a model, for every command that has one; nothing heavy is imported before it loads."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fvs_ros.model.flash_vstream import FlashVStream

EMBEDDED = "embedded"


def add_checkpoint_arguments(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    """Declares the model and where it runs.

    Args:
        parser: gets the arguments.
        optional: whether there is work without a model.
    """
    # Looked for as a file: to find a module its package would be imported, with all that it needs.
    embedded = any(Path(__file__).parent.glob("embedded*"))
    parser.add_argument(
        "--model",
        metavar="M",
        required=not embedded and not optional,
        default=EMBEDDED if embedded else None,
        help="checkpoint, a folder or a hub name" + (" (default: the embedded one)" if embedded else ""),
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 (%(default)s)")


def load_model(arguments: argparse.Namespace) -> FlashVStream:
    """The model that the arguments name.

    Raises:
        CheckpointError: it cannot be used.
    """
    from transformers.utils.logging import disable_progress_bar

    from fvs_ros.model.flash_vstream import FlashVStream

    disable_progress_bar()
    return FlashVStream.load(arguments.model, device=arguments.device, dtype=arguments.dtype)
