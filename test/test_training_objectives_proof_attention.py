"""Drawing the attention of a question's last token to what proves its answer."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from training_videos import TINY

from fvs_ros.memory.snapshot import PatchGrid, StepFeatures
from fvs_ros.model.checkpoint import Checkpoint
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.model.sequence import memory_segment
from fvs_ros.training.config import CacheConfig, ScratchConfig
from fvs_ros.training.data.cache import TensorCache
from fvs_ros.training.data.dataset import Sample
from fvs_ros.training.data.episodes import Conversation, ShownSegments, TrainingEpisode, TrainingMoment
from fvs_ros.training.data.memories import memories
from fvs_ros.training.model import EpisodeModel
from fvs_ros.training.objectives.proof_attention import Proofs, drawn_layers, proof_attention_loss, proofs_of
from fvs_ros.training.scratch import new_checkpoint
from fvs_ros.training.shared_prefix import AskedAttention

GRID = PatchGrid(8, 8)
SECOND_NS = 10**9
STEPS = 6


def asked(question: str, *proof_s: tuple[float, float]) -> Conversation:
    proof_ns = tuple((round(begin * SECOND_NS), round(end * SECOND_NS)) for begin, end in proof_s)
    return Conversation(((question, "a cone"),), "recall", proof_ns)


# At one frame per second a grid step is two seconds.
CONVERSATIONS = (asked("what first?", (0, 1)), asked("and what then?", (4, 5)), asked("anything?"))


def sample(conversations: tuple[Conversation, ...], shown: ShownSegments | None = None) -> Sample:
    generator = torch.Generator().manual_seed(0)
    features = StepFeatures(
        torch.randn(STEPS, GRID.patches, 64, generator=generator),
        torch.randn(STEPS, GRID.low_patches, 64, generator=generator),
    )
    moments = (TrainingMoment(STEPS, conversations, shown),)
    stamps_ns = tuple(range(0, 2 * STEPS * SECOND_NS, SECOND_NS))
    return Sample(TrainingEpisode("drawn", "drawn", stamps_ns, moments), GRID, None, features=features)


@pytest.fixture
def checkpoint() -> Checkpoint:
    return new_checkpoint(ScratchConfig(**TINY), seed=0)


def model(checkpoint: Checkpoint, proof_weight: float) -> EpisodeModel:
    cache = TensorCache(CacheConfig())
    return EpisodeModel(checkpoint, tower_trained=False, max_tokens=4000, cache=cache, proof_weight=proof_weight)


def proved_steps(checkpoint: Checkpoint, one: Sample) -> list[list[float]]:
    """Seconds of the slots that prove each answer, by the tokens that `proofs_of` names, in order of the prefix."""
    assert one.features is not None
    (snapshot,) = memories(one.features, one.episode, GRID, checkpoint.config.memory)
    prompts = PromptBuilder(checkpoint.tokenizer)
    prefix = memory_segment(checkpoint.backbone, snapshot, prompts.head, checkpoint.config.memory, prompts.words)
    conversations = one.episode.moments[0].conversations
    proofs = proofs_of(snapshot, prefix.slots, [conversation.proof_ns for conversation in conversations])
    stamps = torch.cat([snapshot.dam_stamps_ns, snapshot.csm_stamps_ns, snapshot.window_stamps_ns]) / SECOND_NS
    assert proofs.slots.sum() == snapshot.tokens == len(prefix.slots) - len(prompts.head)
    seen = []
    for tokens in proofs.tokens:
        slots = prefix.slots[tokens.bool()]
        # All tokens of a slot, or none.
        assert len(slots) == sum(snapshot.slot_tokens[slot] for slot in slots.unique())
        seen.append(sorted(set(stamps[slots.unique()].tolist())))
    return seen


def test_the_slots_that_show_a_proof_are_marked(checkpoint: Checkpoint) -> None:
    first, then, nothing = proved_steps(checkpoint, sample(CONVERSATIONS))
    assert first
    assert then
    assert not nothing
    # To less than a grid step beside the proof.
    assert all(stamp < 1 + 2 for stamp in first)
    assert all(4 - 2 < stamp < 5 + 2 for stamp in then)
    assert {0.0} <= set(first)
    assert {4.0} <= set(then)


def test_what_most_of_the_memory_proves_draws_nothing(checkpoint: Checkpoint) -> None:
    whole, short = proved_steps(checkpoint, sample((asked("nowhere?", (0, 11)), asked("what last?", (10, 11)))))
    assert not whole
    assert short


def test_a_recalled_segment_shows_a_proof_anywhere_in_it(checkpoint: Checkpoint) -> None:
    shown = ShownSegments(
        places=(0, 1, 2), window=(3,), steps=60, times=(5.0, 25.0, 45.0),
        start_ns=(0, 40 * SECOND_NS, 80 * SECOND_NS), end_ns=(39 * SECOND_NS, 79 * SECOND_NS, 119 * SECOND_NS),
    )  # fmt: skip
    middle, late = proved_steps(checkpoint, sample((asked("when?", (60, 61)), asked("what?", (200, 201))), shown))
    # The stamp that stands for a recalled segment is its begin.
    assert middle == [40.0]
    assert not late


def test_the_loss_is_the_mean_share_of_the_heads() -> None:
    # Two heads, one conversation, a word of the prompt and three slots of one token each; the second proves it.
    weights = torch.tensor([[[0.5, 0.25, 0.125, 0.125]], [[0.2, 0.0, 0.8, 0.0]]], requires_grad=True)
    attention = AskedAttention([1], [torch.tensor([2])])
    attention.add(0, [torch.zeros(2, 3, 4)])
    attention.add(1, [torch.nn.functional.pad(weights, (0, 0, 2, 0))])
    proofs = Proofs(tokens=torch.tensor([[0.0, 0.0, 1.0, 0.0]]), slots=torch.tensor([0.0, 1.0, 1.0, 1.0]))
    loss, shares = proof_attention_loss(attention, [proofs])
    wanted = (0.125 / 0.5 + 0.8 / 0.8) / 2
    assert loss.item() == pytest.approx(-math.log(wanted))
    assert shares["proof_attention"].item() == pytest.approx(wanted)
    nothing = dataclasses.replace(proofs, tokens=torch.zeros(1, 4))
    loss, shares = proof_attention_loss(attention, [nothing])
    loss.backward()
    assert loss.item() == 0
    assert not shares


def test_half_of_the_layers_are_drawn_and_at_least_the_last() -> None:
    assert drawn_layers(8) == (5, 6, 7)
    assert drawn_layers(1) == (0,)


def test_attention_is_that_of_the_questions_last_token(checkpoint: Checkpoint) -> None:
    """The place before the first learnt token: what is attended to there moves its prediction, the answer's first."""
    (row,) = model(checkpoint, 0.1).rows(sample(CONVERSATIONS))
    targets = row.targets[row.block.prefix :]
    for place in row.asked.tolist():
        assert targets[place] == -1
        assert targets[place + 1] != -1
    begins = torch.tensor([0, *row.block.lengths]).cumsum(0)
    assert all(begin <= place < end for begin, place, end in zip(begins, row.asked, begins[1:], strict=False))


def test_training_draws_attention_to_the_proof(checkpoint: Checkpoint) -> None:
    one, trained = sample(CONVERSATIONS[:2]), model(checkpoint, 1.0)
    optimiser = torch.optim.Adam(checkpoint.network.parameters(), lr=3e-3)
    shares: list[float] = []
    for _ in range(30):
        loss = trained([one])
        shares.append(float(loss.shares["proof_attention"]))
        optimiser.zero_grad()
        loss.loss.backward()
        optimiser.step()
    assert shares[-1] > max(0.8, 2 * shares[0])


def test_without_a_weight_the_loss_is_that_of_the_answers(checkpoint: Checkpoint) -> None:
    one = sample(CONVERSATIONS)
    plain, drawn = model(checkpoint, 0.0)([one]), model(checkpoint, 0.5)([one])
    assert "proof_attention" not in plain.shares
    observed: Tensor = drawn.loss - plain.loss
    assert observed.item() > 0.1
    assert torch.equal(plain.right, drawn.right)
