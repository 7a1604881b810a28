from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_networks import qwen3_vl
from training_videos import TINY
from transformers import Qwen2VLForConditionalGeneration

from fvs_ros.model.qwen2_vl import Qwen2VLBackbone
from fvs_ros.model.tiny import tiny_network_config
from fvs_ros.training.config import LoraSettings, ScratchConfig
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.scratch import new_checkpoint
from fvs_ros.training.trainable import (
    apply_lora,
    load_trained_weights,
    lora_targets,
    rescale_embeddings,
    set_activation_checkpointing,
    tower_fingerprint,
    train_everything,
    trained_in_float32,
    trained_weights,
)


def network(dtype: torch.dtype = torch.float32, **changes: Any) -> Qwen2VLForConditionalGeneration:
    torch.manual_seed(0)
    config = tiny_network_config()
    for key, value in changes.items():
        setattr(config, key, value)
    return Qwen2VLForConditionalGeneration(config).to(dtype)


def test_the_merger_is_trained_with_and_without_the_tower() -> None:
    found = network()
    for tower in (True, False):
        train_everything(found, tower=tower)
        assert found.model.visual.patch_embed.proj.weight.requires_grad == tower
        assert found.model.visual.blocks[1].mlp.fc1.weight.requires_grad == tower
        assert found.model.visual.merger.ln_q.weight.requires_grad
        assert found.lm_head.weight.requires_grad


def test_the_fingerprint_changes_with_the_tower_alone() -> None:
    found = network()
    before = tower_fingerprint(Qwen2VLBackbone(found).tower)
    with torch.no_grad():
        found.lm_head.weight += 1
        found.model.visual.merger.mlp[0].weight += 1
    assert tower_fingerprint(Qwen2VLBackbone(found).tower) == before
    with torch.no_grad():
        found.model.visual.blocks[0].norm1.bias[0] += 1e-3
    assert tower_fingerprint(Qwen2VLBackbone(found).tower) != before
    assert isinstance(tower_fingerprint(Qwen2VLBackbone(network(torch.bfloat16)).tower), str)


def test_only_trained_weights_become_float32() -> None:
    found = network(torch.bfloat16)
    apply_lora(found, LoraSettings(rank=2))
    trained_in_float32(found)
    assert {weight.dtype for weight in trained_weights(found).values()} == {torch.float32}
    assert found.model.language_model.layers[0].self_attn.q_proj.base_layer.weight.dtype == torch.bfloat16


def test_targets_that_fit_nothing_are_named() -> None:
    with pytest.raises(TrainingError, match="LoRA targets x_proj fit no linear layer"):
        apply_lora(network(), LoraSettings(language_targets=("q_proj", "x_proj")))
    with pytest.raises(TrainingError, match=r"model\.visual\.merger\.mlp\.7"):
        apply_lora(network(), LoraSettings(merger_targets=("mlp.7",)))


def test_all_mergers_of_qwen3_vl_get_updates() -> None:
    found = qwen3_vl()
    names = [f"merger.linear_fc{number}" for number in (1, 2)]
    names += [f"deepstack_merger_list.{merger}.linear_fc{number}" for merger in (0, 1) for number in (1, 2)]
    for settings in (LoraSettings(rank=2), LoraSettings(rank=2, merger_targets=("linear_fc1", "linear_fc2"))):
        targets = lora_targets(found, settings)
        assert [name for name in targets if "visual" in name] == [f"model.visual.{name}" for name in names]
        assert len(targets) == 2 * 7 + len(names)
    some = lora_targets(found, LoraSettings(merger_targets=("linear_fc2",)))
    assert sum("visual" in name for name in some) == 3
    train_everything(found, tower=False, embeddings="frozen")
    assert not any(weight.requires_grad for weight in found.model.visual.parameters())


def test_an_lm_head_that_shares_its_weights_is_not_trained_alone() -> None:
    with pytest.raises(TrainingError, match="shares its weights with the embeddings"):
        apply_lora(network(tie_word_embeddings=True), LoraSettings())
    apply_lora(network(tie_word_embeddings=True), LoraSettings(fully_trained=()))


def test_frozen_words_leave_the_layers_alone_to_be_trained() -> None:
    found = network()
    train_everything(found, tower=False, embeddings="frozen")
    trained = trained_weights(found)
    assert trained
    assert all(name.startswith(("model.language_model.layers.", "model.language_model.norm.")) for name in trained)


def test_words_can_be_trained_without_the_merger() -> None:
    found = network()
    train_everything(found, tower=False, embeddings="words")
    assert found.get_input_embeddings().weight.requires_grad
    assert found.lm_head.weight.requires_grad
    assert not any(weight.requires_grad for weight in found.model.visual.parameters())
    assert found.model.language_model.layers[0].mlp.up_proj.weight.requires_grad


def test_rescaled_words_leave_what_tokens_name_and_what_is_said() -> None:
    checkpoint = new_checkpoint(ScratchConfig(**{**TINY, "tied_embeddings": True}), seed=0)
    found = checkpoint.network
    patches, hidden = torch.randn(8, 64), torch.randn(3, 64)

    def named() -> tuple[torch.Tensor, torch.Tensor]:
        words = found.get_input_embeddings().weight
        return found.model.visual.merger(patches) @ words.T, found.lm_head(found.model.language_model.norm(hidden))

    with torch.no_grad():
        before, length = named(), found.get_input_embeddings().weight.norm()
        rescale_embeddings(Qwen2VLBackbone(found), 8.0)
        for one, other in zip(before, named(), strict=True):
            torch.testing.assert_close(one, other)
        assert found.get_input_embeddings().weight.norm() == 8 * length


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    found = network()
    train_everything(found, tower=False)
    weights = {name: weight.detach().clone() for name, weight in trained_weights(found).items()}
    file = tmp_path / "weights.safetensors"
    save_file({**weights, "lm_head.weight": weights["lm_head.weight"] + 1}, file)
    load_trained_weights(found, file)
    assert torch.equal(found.lm_head.weight, weights["lm_head.weight"] + 1)
    save_file({**weights, "lm_head.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(TrainingError, match=r"holds lm_head\.weight as \(2, 2\)"):
        load_trained_weights(found, file)
    del weights["lm_head.weight"]
    save_file(weights, file)
    with pytest.raises(TrainingError, match=r"other weights than are trained here, lm_head\.weight among them"):
        load_trained_weights(found, file)
    file.write_bytes(b"")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_trained_weights(found, file)


class _Switches:
    """Keeps how its checkpointing was switched."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []


class _OlderNetwork(_Switches):
    """As of transformers up to 5.23."""

    def gradient_checkpointing_enable(self, *arguments: object) -> None:
        self.calls.append(("older enable", *arguments))

    def gradient_checkpointing_disable(self) -> None:
        self.calls.append(("older disable",))


class _NewerNetwork(_OlderNetwork):
    """As of transformers 5.24, which has both names and warns about the older."""

    def activation_checkpointing_enable(self, *arguments: object) -> None:
        self.calls.append(("newer enable", *arguments))

    def activation_checkpointing_disable(self) -> None:
        self.calls.append(("newer disable",))


@pytest.mark.parametrize(("kind", "name"), [(_OlderNetwork, "older"), (_NewerNetwork, "newer")])
def test_activations_are_checkpointed_by_the_name_that_transformers_has_for_it(kind: Any, name: str) -> None:
    fake = kind()
    set_activation_checkpointing(fake, True)
    set_activation_checkpointing(fake, False)
    assert fake.calls == [(f"{name} enable", {"use_reentrant": False}), (f"{name} disable",)]
