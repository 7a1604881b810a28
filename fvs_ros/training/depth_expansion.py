"""Adds layers to a trained language model that at first change nothing.

Which of two objects was seen first, or what stood here before, takes several steps from token to token, one a layer at
best. A copy of a layer whose outputs are zero passes its input on, so that a deeper model answers as before and learns
from there (LLaMA Pro, Wu et al. 2024, section 3.2).
"""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace

import torch

from fvs_ros.model.checkpoint import Checkpoint, ModelConfig, load_network
from fvs_ros.training.errors import TrainingError

_LAYER = re.compile(r"model\.language_model\.layers\.(\d+)\.(.+)")
_OUTPUTS = ("self_attn.o_proj.weight", "mlp.down_proj.weight")


def expand_depth(checkpoint: Checkpoint, layers: int) -> Checkpoint:
    """The checkpoint with a deeper language model: its first layers are each followed by an idle copy.

    Args:
        checkpoint: stays unchanged.
        layers: of the deeper model, from the present number to twice that.

    Raises:
        TrainingError: for any other number.
    """
    text = checkpoint.config.network.text_config
    there = text.num_hidden_layers
    if not there <= layers <= 2 * there:
        raise TrainingError(
            f"depth_expansion is {layers}; the language model has {there} layers, so give {there} to {2 * there}"
        )
    weights = _with_copies(checkpoint.network.state_dict(), layers - there)
    network = deepcopy(checkpoint.config.network)
    network.text_config.num_hidden_layers = layers
    network.text_config.layer_types = ["full_attention"] * layers
    config = ModelConfig(network, checkpoint.config.memory)
    old = checkpoint.network
    deeper = load_network(
        config,
        weights=weights,
        device=old.device,
        dtype=old.dtype,
        attention=old.config._attn_implementation,
    )
    return replace(checkpoint, config=config, network=deeper)


def _with_copies(weights: dict[str, torch.Tensor], copies: int) -> dict[str, torch.Tensor]:
    """Weights by their published names, where an idle copy follows each of the first `copies` layers."""
    deeper = {}
    for name, weight in weights.items():
        found = _LAYER.fullmatch(name)
        if found is None:
            # Names that a network was loaded under are those that it is saved under.
            saved = name.replace("model.language_model.", "model.", 1).replace("model.visual.", "visual.", 1)
            deeper[saved] = weight
            continue
        layer, rest = int(found[1]), found[2]
        place = layer + min(layer, copies)
        deeper[f"model.layers.{place}.{rest}"] = weight
        if layer < copies:
            idle = torch.zeros_like(weight) if rest in _OUTPUTS else weight.clone()
            deeper[f"model.layers.{place + 1}.{rest}"] = idle
    return deeper
