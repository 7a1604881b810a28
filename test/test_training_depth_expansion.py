from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fvs_ros.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fvs_ros.model.tiny import write_tiny_checkpoint
from fvs_ros.training.depth_expansion import expand_depth
from fvs_ros.training.errors import TrainingError

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


@pytest.fixture
def shallow(tmp_path: Path) -> Checkpoint:
    write_tiny_checkpoint(tmp_path / "tiny")
    return load_checkpoint(str(tmp_path / "tiny"), device=torch.device("cpu"), dtype=torch.float32)


def logits(checkpoint: Checkpoint, **arguments: Any) -> Tensor:
    with torch.no_grad():
        return checkpoint.network(input_ids=TOKENS, **arguments).logits


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_a_deeper_model_answers_as_before(shallow: Checkpoint, layers: int) -> None:
    deeper = expand_depth(shallow, layers)
    assert len(deeper.network.model.language_model.layers) == layers
    assert torch.equal(logits(deeper), logits(shallow))
    assert torch.equal(logits(deeper, use_cache=True), logits(shallow))
    assert len(shallow.network.model.language_model.layers) == shallow.config.network.text_config.num_hidden_layers == 2


def test_new_layers_stand_behind_the_ones_they_copy_and_learn(shallow: Checkpoint) -> None:
    old = shallow.network.model.language_model.layers
    new = expand_depth(shallow, 3).network.model.language_model.layers
    for place, source in ((0, 0), (1, 0), (2, 1)):
        assert torch.equal(new[place].self_attn.q_proj.weight, old[source].self_attn.q_proj.weight)
    assert [bool(layer.mlp.down_proj.weight.any()) for layer in new] == [True, False, True]
    deeper = expand_depth(shallow, 3).network
    deeper(input_ids=TOKENS, labels=TOKENS).loss.backward()
    idle = deeper.model.language_model.layers[1]
    assert idle.self_attn.o_proj.weight.grad.any()
    assert idle.mlp.down_proj.weight.grad.any()


def test_a_deeper_checkpoint_is_saved_with_its_depth(shallow: Checkpoint, tmp_path: Path) -> None:
    deeper = expand_depth(shallow, 4)
    save_checkpoint(deeper, tmp_path / "deeper")
    loaded = load_checkpoint(str(tmp_path / "deeper"), device=torch.device("cpu"), dtype=torch.float32)
    assert torch.equal(logits(loaded), logits(deeper))
    names = load_file(tmp_path / "deeper/model.safetensors").keys()
    assert {"model.layers.3.mlp.up_proj.weight", "visual.patch_embed.proj.weight"} <= names


@pytest.mark.parametrize("layers", [1, 5])
def test_other_depths_are_refused(shallow: Checkpoint, layers: int) -> None:
    with pytest.raises(
        TrainingError, match=f"depth_expansion is {layers}; the language model has 2 layers, so give 2 to 4"
    ):
        expand_depth(shallow, layers)
