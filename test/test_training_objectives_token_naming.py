import dataclasses

import numpy as np
import pytest
import torch
from training_videos import TINY

from fvs_ros.memory.snapshot import StepFeatures
from fvs_ros.model.checkpoint import Checkpoint
from fvs_ros.training.config import ScratchConfig
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.objectives.token_naming import TokenNames, token_naming_loss, word_tokens
from fvs_ros.training.scratch import new_checkpoint

GROUPS = (("cone", "ball", "nothing"), ("red", "blue"))
# Two steps, four tokens of high and one of low resolution.
LABELS = TokenNames(
    GROUPS,
    high=np.array([[[0, 0], [1, 1], [2, 0], [2, 1]], [[1, 0], [1, 0], [0, 1], [2, 1]]]),
    low=np.array([[[0, 1]], [[2, 0]]]),
)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    config = ScratchConfig(**{**TINY, "vocabulary": "patrol", "tied_embeddings": True})
    return new_checkpoint(config, seed=0)


def features(width: int = 64) -> StepFeatures:
    generator = torch.Generator().manual_seed(0)
    high, low = torch.randn(2, 16, width, generator=generator), torch.randn(2, 4, width, generator=generator)
    return StepFeatures(high, low)


class Says(torch.nn.Module):
    """A merger that says the words of some labels, whatever it is given."""

    def __init__(self, checkpoint: Checkpoint, labels: np.ndarray) -> None:
        super().__init__()
        words = checkpoint.network.get_input_embeddings().weight.detach()
        forms = [word_tokens(checkpoint.tokenizer, group) for group in GROUPS]
        # Embeddings at random are nearly at right angles, so that a sum points to each of its words.
        self.said = torch.stack(
            [sum(words[forms[group][:, index]].sum(0) for group, index in enumerate(label)) for label in labels]
        )

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        assert len(patches) == 4 * len(self.said)
        return 1e4 * self.said


def test_a_token_that_points_to_its_words_has_no_loss(checkpoint: Checkpoint) -> None:
    labels = np.concatenate([LABELS.high.reshape(-1, 2), LABELS.low.reshape(-1, 2)])
    network = checkpoint.network
    merger = network.model.visual.merger
    for spoilt, right in ((None, [True] * 10), (9, [True] * 9 + [False])):
        said = labels.copy()
        if spoilt is not None:
            said[spoilt, 1] = 1 - said[spoilt, 1]
        network.model.visual.merger = Says(checkpoint, said)
        try:
            loss = token_naming_loss(checkpoint.backbone, checkpoint.tokenizer, features(), [LABELS])
        finally:
            network.model.visual.merger = merger
        assert loss.right.tolist() == right
        assert (loss.loss.item() < 1e-3) == all(right)
    names = ["high_object", "high_object", "high", "high", "high_object", "high_object", "high_object", "high"]
    assert list(loss.families) == [*names, "low_object", "low"]


def test_it_teaches_the_merger_and_the_words_but_not_the_layers(checkpoint: Checkpoint) -> None:
    network = checkpoint.network
    network.zero_grad()
    token_naming_loss(checkpoint.backbone, checkpoint.tokenizer, features(), [LABELS]).loss.backward()
    assert network.model.visual.merger.mlp[0].weight.grad.abs().sum() > 0
    assert network.get_input_embeddings().weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.model.language_model.layers.parameters())
    network.zero_grad()


def test_words_of_more_than_one_token_are_refused(checkpoint: Checkpoint) -> None:
    tokens = word_tokens(checkpoint.tokenizer, ("red", "blue"))
    assert checkpoint.tokenizer.decode(tokens[0].tolist()) == " red blue"
    assert checkpoint.tokenizer.decode(tokens[1].tolist()) == "redblue"
    with pytest.raises(TrainingError, match=r"'unicorn' is .* tokens, but a visual token can name whole words only"):
        word_tokens(checkpoint.tokenizer, ("red", "unicorn"))


def test_only_episodes_with_token_names_can_be_used(checkpoint: Checkpoint) -> None:
    from fvs_ros.memory.snapshot import PatchGrid
    from fvs_ros.training.config import CacheConfig
    from fvs_ros.training.data.cache import TensorCache
    from fvs_ros.training.data.dataset import Sample
    from fvs_ros.training.data.episodes import TrainingEpisode
    from fvs_ros.training.model import EpisodeModel

    frames = torch.zeros(4, 3, 56, 56, dtype=torch.uint8)
    told = Sample(TrainingEpisode("drawn", "drawn", None, (), LABELS), PatchGrid(4, 4), None, frames=frames)
    cache = TensorCache(CacheConfig())
    model = EpisodeModel(checkpoint, tower_trained=True, max_tokens=100, cache=cache, objective="token_naming")
    one, two = model([told]), model([told, told])
    torch.testing.assert_close(one.loss, two.loss)
    assert len(two.families) == 2 * len(one.families) == 20
    silent = dataclasses.replace(told, episode=dataclasses.replace(told.episode, token_names=None))
    with pytest.raises(TrainingError, match="drawn has no names for its visual tokens; only patrols have"):
        model([silent])
