import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from training_videos import TINY

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import PatchGrid, StepFeatures
from fvs_ros.memory.streaming import StreamingFlashMemory
from fvs_ros.model.checkpoint import Checkpoint
from fvs_ros.training.config import CacheConfig, ScratchConfig
from fvs_ros.training.data.cache import TensorCache
from fvs_ros.training.data.dataset import Sample
from fvs_ros.training.data.episodes import Conversation, ShownSegments, TrainingEpisode, TrainingMoment
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.model import EpisodeModel
from fvs_ros.training.objectives.memory_probe import MEMBERS_WEIGHT, MemoryProbe, ProbeLabels, slot_labels
from fvs_ros.training.scratch import new_checkpoint
from fvs_ros.training.trainable import load_trained_weights, train_everything

GRID = PatchGrid(8, 8)
GROUPS, SETS = {"new": 2, "count": 5}, {"here": 3}
STEP_NS = 2 * 10**9


def features(steps: int) -> StepFeatures:
    generator = torch.Generator().manual_seed(0)
    return StepFeatures(
        torch.randn(steps, GRID.patches, 64, generator=generator),
        torch.randn(steps, GRID.low_patches, 64, generator=generator),
    )


def labelled(steps: int) -> ProbeLabels:
    """Cell c of step t is `new` t % 2, and counts (t + c) % 5 where that is not 4; t % 3 is in the set."""
    step, cell = np.meshgrid(np.arange(steps), np.arange(4), indexing="ij")
    count = (step + cell) % 5
    labels = np.stack([step % 2, np.where(count == 4, -1, count)], axis=-1)
    return ProbeLabels(labels, np.eye(3, dtype=np.int64)[np.arange(steps) % 3])


def test_slots_of_single_steps_have_their_labels_and_all_else_has_none() -> None:
    config = FlashMemoryConfig(csm_slots=6, dam_slots=2, window_slots=1)
    memory = StreamingFlashMemory(config, GRID, 64, device=torch.device("cpu"), dtype=torch.float32)
    seen = features(6)
    memory.append(seen.high, seen.low, [STEP_NS * step for step in range(6)], [STEP_NS * step + 1 for step in range(6)])
    labels = slot_labels(labelled(6), memory.snapshot(), before=3, after=5)
    ahead = 3 + 2 * GRID.dam_tokens
    slots = 6 * GRID.csm_tokens
    assert labels.shape == (ahead + slots + GRID.dam_tokens + 5, 5)
    assert torch.equal(labels[ahead : ahead + slots, :2], torch.from_numpy(labelled(6).labels).flatten(0, 1))
    members = torch.eye(3, dtype=torch.int64)[[0, 1, 2, 0, 1, 2]]
    assert torch.equal(labels[ahead : ahead + slots, 2:], members.repeat_interleave(GRID.csm_tokens, 0))
    assert (torch.cat([labels[:ahead], labels[ahead + slots :]]) == -1).all()


def test_slots_of_steps_far_apart_have_no_labels() -> None:
    config = FlashMemoryConfig(csm_slots=2, dam_slots=1)
    memory = StreamingFlashMemory(config, GRID, 64, device=torch.device("cpu"), dtype=torch.float32)
    seen = features(8)
    # The first and the last step look alike, and so do all others.
    look = [0, 1, 1, 1, 1, 1, 1, 0]
    stamps = [STEP_NS * step for step in range(8)]
    memory.append(seen.high[look], seen.low[look], stamps, stamps)
    snapshot = memory.snapshot()
    labels = slot_labels(labelled(8), snapshot, before=0, after=0)
    spans = (snapshot.csm_end_ns - snapshot.csm_start_ns).tolist()
    assert max(spans) == 7 * STEP_NS
    for slot, span in enumerate(spans):
        first = GRID.dam_tokens + slot * GRID.csm_tokens
        assert (labels[first : first + GRID.csm_tokens, 0] == -1).all() == (span > 8 * 10**9)


def test_the_loss_is_of_the_labels_that_are_there() -> None:
    hidden = torch.eye(4)
    probe = MemoryProbe(4, GROUPS, SETS)
    reader = probe.reader
    none = [-1, -1, -1]
    labels = torch.tensor([[0, -1, 1, 0, 1], [1, 3, 1, -1, 0], [-1, -1, *none], [-1, 2, *none]])
    with torch.no_grad():
        reader.bias.zero_()
        reader.weight.zero_()
        reader.weight[0, 0] = reader.weight[1, 1] = reader.weight[2 + 3, 1] = 50.0
        reader.weight[2 + 4, 3] = 50.0
        reader.weight[7:, :2] = torch.tensor([[50.0, 50.0], [-50.0, 50.0], [50.0, 50.0]])
    loss, right = probe(hidden, labels)
    shares = {name: float(share) for name, share in right.items()}
    assert shares == {"probe_new": 1.0, "probe_count": 0.5, "probe_here": 0.5}
    # What is wrong is so by 50: one of two counts, and one of the five members that are known.
    assert loss.item() == pytest.approx((0 + 25 + MEMBERS_WEIGHT * 10) / 3)
    loss, right = probe(hidden, torch.full((4, 5), -1))
    assert (loss.item(), right) == (0.0, {})


def test_a_label_weighs_with_the_square_root_of_its_number() -> None:
    """Nine tokens of one label and one of another: 3 to 1 in the loss, and 1 to 1 in the share that is right."""
    probe = MemoryProbe(2, {"change": 2}, {})
    with torch.no_grad():
        probe.reader.weight.copy_(torch.tensor([[2.0, 2.0], [0.0, 0.0]]))
        probe.reader.bias.zero_()
    labels = torch.tensor([0] * 9 + [1])[:, None]
    loss, right = probe(torch.tensor([[1.0, 0.0]] * 10), labels)
    frequent, rare = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert loss.item() == pytest.approx((3 * frequent + rare) / 4)
    assert right["probe_change"].item() == pytest.approx(0.5)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return new_checkpoint(ScratchConfig(**{**TINY, "text_depth": 5}), seed=0)


def model(checkpoint: Checkpoint, *, probed: bool) -> EpisodeModel:
    probe = MemoryProbe(checkpoint.network.config.text_config.hidden_size, GROUPS, SETS) if probed else None
    cache = TensorCache(CacheConfig())
    return EpisodeModel(checkpoint, tower_trained=False, max_tokens=4000, cache=cache, probe=probe, probe_weight=0.5)


def sample(steps: int = 5) -> Sample:
    stamps = tuple(range(0, steps * STEP_NS, STEP_NS // 2))
    moments = (
        TrainingMoment(3, (Conversation((("what?", "a cone"),)),)),
        TrainingMoment(5, (Conversation((("who?", "me"),)),)),
    )
    episode = TrainingEpisode("drawn", "drawn", stamps, moments, probe_labels=labelled(steps))
    return Sample(episode, GRID, None, features=features(steps))


def test_it_adds_to_the_loss_and_teaches_the_lower_layers_alone(checkpoint: Checkpoint) -> None:
    train_everything(checkpoint.network, tower=False)
    plain, probed = model(checkpoint, probed=False)([sample()]), model(checkpoint, probed=True)
    both = probed([sample()])
    assert set(both.shares) == {"probe_new", "probe_count", "probe_here"}
    assert torch.equal(both.right, plain.right)
    extra = both.loss - plain.loss
    assert extra.item() > 0.1
    layers = checkpoint.network.model.language_model.layers
    checkpoint.network.zero_grad()
    extra.backward()
    moved = [max(float(weight.grad.abs().max()) for weight in layer.parameters()) > 1e-6 for layer in layers]
    assert moved == [True, True, True, False, False]
    assert probed.probe is not None
    gradient = probed.probe.reader.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def recalling() -> Sample:
    """A memory of three steps of a day, which no labels are of."""
    shown = ShownSegments((0, 2, 4), (4,), 4000, (5.0, 2000.0, 3999.0), (0, 9, 18), (1, 10, 19))
    moment = TrainingMoment(4000, (Conversation((("when?", "at noon"),)),), shown)
    whole = sample()
    return dataclasses.replace(whole, episode=dataclasses.replace(whole.episode, moments=(moment,), probe_labels=None))


def test_memories_of_what_was_recalled_have_nothing_to_know(checkpoint: Checkpoint) -> None:
    """They learn from their answers, alone and beside memories that the probe reads."""
    plain, probed = model(checkpoint, probed=False), model(checkpoint, probed=True)
    alone = probed([recalling()])
    assert alone.shares == {}
    torch.testing.assert_close(alone.loss, plain([recalling()]).loss)
    both, ordinary = probed([recalling(), sample()]), probed([sample()])
    assert both.shares.keys() == ordinary.shares.keys()
    torch.testing.assert_close(list(both.shares.values()), list(ordinary.shares.values()))
    extra = ordinary.loss - plain([sample()]).loss
    torch.testing.assert_close(both.loss - plain([recalling(), sample()]).loss, extra, atol=1e-4, rtol=1e-4)


def test_only_episodes_with_labels_can_be_used(checkpoint: Checkpoint) -> None:
    silent = sample()
    silent = dataclasses.replace(silent, episode=dataclasses.replace(silent.episode, probe_labels=None))
    with pytest.raises(TrainingError, match="drawn has no labels for the memory probe; only patrols have"):
        model(checkpoint, probed=True)([silent])


def test_the_probe_is_left_out_of_what_a_stage_leaves(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from fvs_ros.training.trainable import trained_weights

    train_everything(checkpoint.network, tower=False)
    probed, plain = model(checkpoint, probed=True), model(checkpoint, probed=False)
    weights = {name: weight.detach().clone() for name, weight in trained_weights(probed).items()}
    assert set(weights) - set(trained_weights(plain)) == {"probe.reader.weight", "probe.reader.bias"}
    save_file(weights, tmp_path / "trained.safetensors")
    load_trained_weights(plain, tmp_path / "trained.safetensors")
    save_file({**weights, "other.weight": torch.zeros(1)}, tmp_path / "strange.safetensors")
    with pytest.raises(TrainingError, match=r"other weights than are trained here, other\.weight among them"):
        load_trained_weights(plain, tmp_path / "strange.safetensors")
