"""Arguments that every evaluation with a model has in common."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from fvs_ros.commands.model_arguments import add_checkpoint_arguments
from fvs_ros.stream.config import StreamConfig

if TYPE_CHECKING:
    from fvs_ros.evaluation.timed.stream_run import RunOptions
    from fvs_ros.model.flash_vstream import FlashVStream

CONTROLS = ("last4", "uniform", "question-only", "csm-only", "dam-only")
_DEFAULTS = StreamConfig()


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the model, how it takes frames in and what it is compared with; loads no heavy library."""
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--controls",
        metavar="NAME",
        nargs="*",
        default=(),
        help="ask the same questions of these too: lastN (the newest N frames), uniform (evenly spaced steps, as many "
        "tokens as the memory), question-only, csm-only, dam-only; without a name, all of them with last4",
    )
    parser.add_argument(
        "--fps", type=float, default=_DEFAULTS.fps, help="frames kept per second of stamps, 0 for all (%(default)s)"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=_DEFAULTS.max_new_tokens, help="longest answer (%(default)s)"
    )
    for name, value in (("min", _DEFAULTS.min_pixels), ("max", _DEFAULTS.max_pixels)):
        parser.add_argument(
            f"--{name}-pixels", type=int, default=value, help=f"{name}imum area of a processed frame (%(default)s)"
        )
    parser.add_argument(
        "--batch-steps", type=int, default=_DEFAULTS.batch_steps, help="grid steps encoded at once (%(default)s)"
    )


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """The options that the arguments ask for.

    Raises:
        ValueError: a value out of its range, or a control that is none.
    """
    from fvs_ros.evaluation.timed.controls import MEMORY, View
    from fvs_ros.evaluation.timed.stream_run import RunOptions

    names = CONTROLS if arguments.controls == [] else arguments.controls
    stream = replace(
        _DEFAULTS,
        fps=arguments.fps,
        min_pixels=arguments.min_pixels,
        max_pixels=arguments.max_pixels,
        batch_steps=arguments.batch_steps,
        max_new_tokens=arguments.max_new_tokens,
        max_new_tokens_limit=max(arguments.max_new_tokens, _DEFAULTS.max_new_tokens_limit),
    )
    return RunOptions(stream, (MEMORY, *map(View.parse, names)))


def model_settings(model: FlashVStream) -> dict[str, object]:
    """What answers depend on of a model; its name is not among it, the same weights may lie anywhere."""
    sizes = model.memory_config
    return {
        "weights": model.fingerprint(),
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "csm_slots": sizes.csm_slots,
        "dam_slots": sizes.dam_slots,
        "window_slots": sizes.window_slots,
        "horizon": sizes.horizon,
        "time_code": sizes.time_code,
        "time_weight": sizes.time_weight,
    }
