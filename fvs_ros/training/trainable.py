"""Which weights are trained, as they are or by low-rank updates (LoRA), and their way to and from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from fvs_ros.model.backbone import Backbone, VisionTower
from fvs_ros.model.flash_vstream import fingerprint
from fvs_ros.training.config import EmbeddingTraining, LoraSettings
from fvs_ros.training.errors import TrainingError

if TYPE_CHECKING:
    from peft import PeftModel

LANGUAGE, MERGER = "model.language_model.", "model.visual.merger."
# With those that merge what DeepStack takes of earlier blocks, each by its number.
MERGERS = (MERGER, "model.visual.deepstack_merger_list.")
VISUAL = "model.visual."
EMBEDDINGS, OUTPUT = "model.language_model.embed_tokens.", "lm_head."
PROBE = "probe."
ADAPTER_FOLDER = "lora_model"


def apply_lora(network: PreTrainedModel, settings: LoraSettings) -> PeftModel:
    """Adds low-rank updates to a network, in place; only they and `fully_trained` require gradients.

    Returns:
        The `peft.PeftModel` around the network, which saves and merges the updates.

    Raises:
        TrainingError: peft is missing, or a target is not there.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise TrainingError("LoRA needs peft: pip install 'fvs_ros[train]'") from error
    tied = network.get_output_embeddings().weight is network.get_input_embeddings().weight
    if tied and "lm_head" in settings.fully_trained:
        raise TrainingError(
            "the checkpoint's lm_head shares its weights with the embeddings, so it cannot be trained alone; set "
            "lora.fully_trained to []"
        )
    return get_peft_model(
        network,
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            bias="none",
            target_modules=lora_targets(network, settings),
            modules_to_save=list(settings.fully_trained) or None,
            task_type="CAUSAL_LM",
        ),
    )


def lora_targets(network: PreTrainedModel, settings: LoraSettings) -> list[str]:
    """Full names of the modules that get updates.

    Raises:
        TrainingError: a name of the settings fits none.
    """
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    language = [name for name in names if name.startswith(LANGUAGE)]
    found = [name for name in language if name.rpartition(".")[2] in settings.language_targets]
    missing = set(settings.language_targets) - {name.rpartition(".")[2] for name in found}
    merger = [name for name in names if name.startswith(MERGERS)]
    if settings.merger_targets is not None:
        targets = {f".{target}" for target in settings.merger_targets}
        missing |= {MERGER + target for target in settings.merger_targets} - set(names)
        merger = [name for name in merger if any(name.endswith(target) for target in targets)]
    if missing:
        raise TrainingError(f"LoRA targets {', '.join(sorted(missing))} fit no linear layer of the network")
    return [*found, *merger]


def train_everything(network: PreTrainedModel, *, tower: bool, embeddings: EmbeddingTraining = "trained") -> None:
    """Makes all weights require gradients, but for two parts.

    Args:
        network: whose weights.
        tower: whether those of the ViT before its merger are trained too.
        embeddings: whether the merger and the words' embeddings are trained too, with the output that they are tied to,
            or the words' alone.
    """
    for name, parameter in network.named_parameters():
        if name.startswith(MERGERS):
            parameter.requires_grad_(embeddings == "trained")
        elif name.startswith((EMBEDDINGS, OUTPUT)):
            parameter.requires_grad_(embeddings != "frozen")
        else:
            parameter.requires_grad_(tower or not name.startswith(VISUAL))


@torch.no_grad()
def rescale_embeddings(backbone: Backbone, factor: float) -> None:
    """Multiplies the words' embeddings by a factor, and divides the merger's output and the output's norm by it.

    The products of visual tokens and words do not change, nor do the logits where output and embeddings are tied.
    """
    backbone.embeddings.weight.mul_(factor)
    output = [module for module in backbone.merger.modules() if isinstance(module, nn.Linear)][-1]
    for parameter in (*output.parameters(), *backbone.norm.parameters()):
        parameter.div_(factor)


def trained_in_float32(network: nn.Module) -> None:
    """Makes trained weights float32: in bfloat16, 1 + 0.001 is 1, so that small steps would be lost."""
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def set_activation_checkpointing(network: PreTrainedModel, on: bool) -> None:
    """Has a network recompute its layers in the backward pass instead of keeping their results, or not.

    transformers 5.24 calls this activation checkpointing and warns about the older name, gradient checkpointing.
    """
    newer = hasattr(network, "activation_checkpointing_enable")
    switch = getattr(network, f"{'activation' if newer else 'gradient'}_checkpointing_{'enable' if on else 'disable'}")
    switch(*([{"use_reentrant": False}] if on else []))


def tower_fingerprint(tower: VisionTower) -> str:
    """Changes with the weights, and so the features, of the vision tower before its merger."""
    # Features also depend on the precision that they are computed in.
    return fingerprint((f"{name} {weight.dtype}", weight) for name, weight in tower.named_weights())


def trained_weights(network: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that require gradients, by name."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def load_trained_weights(network: nn.Module, file: Path) -> None:
    """Writes weights of a file over those that require gradients; a memory probe's are left out where there is none.

    Raises:
        TrainingError: the file cannot be read, or holds other weights.
    """
    try:
        stored = load_file(file)
    except Exception as error:
        raise TrainingError(f"{file} cannot be read: {error}") from error
    wanted = trained_weights(network)
    helpers = {name for name in stored if name.startswith(PROBE) and name not in wanted}
    different = sorted(set(stored) - helpers ^ set(wanted))
    if different:
        raise TrainingError(f"{file} holds other weights than are trained here, {different[0]} among them")
    with torch.no_grad():
        for name, parameter in wanted.items():
            if stored[name].shape != parameter.shape:
                raise TrainingError(
                    f"{file} holds {name} as {tuple(stored[name].shape)}; here it is {tuple(parameter.shape)}"
                )
            parameter.copy_(stored[name])
