import dataclasses

import pytest
import torch
from small_networks import checkpoint_of, qwen2_5_vl, qwen3_vl
from training_videos import TINY

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.model.checkpoint import Checkpoint
from fvs_ros.model.preprocess import QWEN3_VL_PIXELS
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.model.reference import ReferenceDecoder
from fvs_ros.training.config import CacheConfig, ScratchConfig
from fvs_ros.training.data.cache import TensorCache
from fvs_ros.training.data.dataset import Sample
from fvs_ros.training.data.episodes import Conversation, TrainingEpisode, TrainingMoment
from fvs_ros.training.data.memories import memories
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.model import EpisodeModel
from fvs_ros.training.objectives.memory_probe import MemoryProbe
from fvs_ros.training.scratch import new_checkpoint
from fvs_ros.training.trainable import set_activation_checkpointing

GRID = PatchGrid(8, 8)
QUESTIONS = (Conversation((("what now?", "a cone"),), "now"), Conversation((("and before that?", "none"),), "order"))


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    checkpoint = new_checkpoint(ScratchConfig(**TINY), seed=0)
    # At transformers' usual 0.02 the logits of so small a network are nearly equal, and a wrong input would not show.
    generator = torch.Generator().manual_seed(1)
    for parameter in checkpoint.network.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.2, generator=generator)
    return dataclasses.replace(checkpoint, network=checkpoint.network.eval())


def model(checkpoint: Checkpoint, *, tower_trained: bool = False, max_tokens: int = 4000) -> EpisodeModel:
    cache = TensorCache(CacheConfig())
    return EpisodeModel(checkpoint, tower_trained=tower_trained, max_tokens=max_tokens, cache=cache)


def sample(moments: tuple[TrainingMoment, ...], *, steps: int, stamped: bool, seed: int = 0, width: int = 64) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    features = StepFeatures(
        torch.randn(steps, GRID.patches, width, generator=generator),
        torch.randn(steps, GRID.low_patches, width, generator=generator),
    )
    stamps = tuple(range(0, 2 * steps * 10**9, 10**9)) if stamped else None
    return Sample(TrainingEpisode("drawn", f"drawn {seed}", stamps, moments), GRID, None, features=features)


def reference_logits(checkpoint: Checkpoint, snapshot: MemorySnapshot, conversation: Conversation) -> torch.Tensor:
    """The logits that the reference computes at each learnt token when the tokens before are given to it."""
    prompts = PromptBuilder(checkpoint.tokenizer, checkpoint.backbone.prompt_style)
    built = prompts.build_conversation(conversation.turns)
    reference = ReferenceDecoder(checkpoint.backbone, checkpoint.config.memory, (), prompts.words)
    prefix = reference.prefix(snapshot, prompts.head)
    assert prefix is not None
    logits = reference.continue_prefix(prefix, built.tokens, prefix.next_position)
    return torch.stack([logits[place - 1] for place, counts in enumerate(built.learnt) if counts])


@pytest.mark.parametrize("stamped", [True, False], ids=["streaming", "offline"])
def test_training_computes_the_logits_that_answering_computes(checkpoint: Checkpoint, stamped: bool) -> None:
    """Two moments of one episode, one beyond the memory's slots; packed questions and a conversation of two turns."""
    turns = Conversation((("who?", "me"), ("where?", "in the garage")))
    moments = (TrainingMoment(6, QUESTIONS), TrainingMoment(40, (*QUESTIONS, turns)))
    drawn = sample(moments, steps=40, stamped=stamped)
    trained = model(checkpoint)
    with torch.no_grad():
        targets, logits = trained.predict(trained.rows(drawn))
    assert drawn.features is not None
    snapshots = memories(drawn.features, drawn.episode, GRID, checkpoint.config.memory)
    expected = [
        reference_logits(checkpoint, snapshot, conversation)
        for snapshot, moment in zip(snapshots, moments, strict=True)
        for conversation in moment.conversations
    ]
    torch.testing.assert_close(logits, torch.cat(expected), atol=1e-4, rtol=1e-4)
    assert logits.std() > 0.1
    text = checkpoint.tokenizer.decode(targets)
    assert text.startswith("\na cone<|im_end|>\nnone<|im_end|>")
    assert text.endswith("\nme<|im_end|>\nin the garage<|im_end|>")


def test_the_published_tokens_are_learnt(checkpoint: Checkpoint) -> None:
    built = PromptBuilder(checkpoint.tokenizer).build_conversation([("a?", "b"), ("c?", "d")])
    text = "".join(
        f"[{checkpoint.tokenizer.decode([token])}]" if counts else checkpoint.tokenizer.decode([token])
        for token, counts in zip(built.tokens, built.learnt, strict=True)
    )
    assert text == (
        "<|vision_end|>a?<|im_end|>\n<|im_start|>assistant[\n][b][<|im_end|>]"
        "\n<|im_start|>user\nc?<|im_end|>\n<|im_start|>assistant[\n][d][<|im_end|>]"
    )


def test_the_tail_of_a_question_is_the_begin_of_its_conversation(checkpoint: Checkpoint) -> None:
    prompts = PromptBuilder(checkpoint.tokenizer)
    suffix = prompts.build("a?").suffix
    assert prompts.build_conversation([("a?", "b")]).tokens[: len(suffix)] == suffix


def test_conversations_about_one_memory_do_not_see_each_other(checkpoint: Checkpoint) -> None:
    trained = model(checkpoint)
    together = trained([sample((TrainingMoment(None, QUESTIONS),), steps=3, stamped=True)])
    alone = [trained([sample((TrainingMoment(None, (question,)),), steps=3, stamped=True)]) for question in QUESTIONS]
    sizes = [len(question.turns[0][1]) + 2 for question in QUESTIONS]
    expected = sum(size * loss.loss for size, loss in zip(sizes, alone, strict=True)) / sum(sizes)
    torch.testing.assert_close(together.loss, expected, atol=1e-4, rtol=1e-4)
    assert together.families == ("now", "order")


def test_rows_of_different_lengths_do_not_change_each_other(checkpoint: Checkpoint) -> None:
    trained = model(checkpoint)
    samples = [sample((TrainingMoment(None, QUESTIONS),), steps=steps, stamped=True, seed=steps) for steps in (2, 5)]
    _, both = trained.predict([row for item in samples for row in trained.rows(item)])
    each = [trained.predict(trained.rows(item))[1] for item in samples]
    torch.testing.assert_close(both, torch.cat(each), atol=1e-4, rtol=1e-4)


def test_right_answers_are_counted_by_conversation(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = model(checkpoint)
    drawn = sample((TrainingMoment(2, QUESTIONS), TrainingMoment(3, QUESTIONS[:1])), steps=3, stamped=True)
    rows = trained.rows(drawn)
    targets, logits = trained.predict(rows)
    spoiled = torch.nn.functional.one_hot(targets, logits.shape[-1]).float()
    # The last token of the second conversation of the first memory.
    place = len("\na cone") + 1 + len("\nnone")
    spoiled[place] = spoiled[place].roll(1)
    monkeypatch.setattr(trained, "predict", lambda rows, observer: (targets, spoiled))
    assert trained([drawn]).right.tolist() == [True, False, True]


def test_a_trained_tower_gets_gradients_and_a_frozen_one_none(checkpoint: Checkpoint) -> None:
    frames = torch.randint(0, 256, (4, 3, 112, 112), dtype=torch.uint8)
    moments = (TrainingMoment(1, QUESTIONS), TrainingMoment(2, QUESTIONS))
    episode = TrainingEpisode("drawn", "drawn", tuple(range(0, 4 * 10**9, 10**9)), moments)
    for trained in (True, False):
        checkpoint.network.zero_grad()
        model(checkpoint, tower_trained=trained)([Sample(episode, GRID, None, frames=frames)]).loss.backward()
        block = checkpoint.network.model.visual.blocks[0].attn.qkv.weight
        assert (block.grad is not None and block.grad.abs().sum() > 0) == trained
        assert checkpoint.network.model.visual.merger.mlp[0].weight.grad.abs().sum() > 0
    checkpoint.network.zero_grad()


def test_gradient_checkpointing_changes_no_gradient(checkpoint: Checkpoint) -> None:
    frames = torch.randint(0, 256, (4, 3, 112, 112), dtype=torch.uint8)
    drawn = Sample(
        TrainingEpisode("drawn", "drawn", None, (TrainingMoment(None, QUESTIONS),)), GRID, None, frames=frames
    )
    trained = model(checkpoint, tower_trained=True).train()
    weight = checkpoint.network.model.visual.blocks[0].attn.qkv.weight
    gradients = []
    for on in (False, True):
        set_activation_checkpointing(checkpoint.network, on)
        checkpoint.network.zero_grad()
        trained([drawn]).loss.backward()
        gradients.append(weight.grad.clone())
    set_activation_checkpointing(checkpoint.network, False)
    checkpoint.network.zero_grad()
    trained.eval()
    torch.testing.assert_close(*gradients)


def test_gradients_through_joined_steps_are_refused(checkpoint: Checkpoint) -> None:
    drawn = sample((TrainingMoment(None, QUESTIONS),), steps=9, stamped=True)
    assert drawn.features is not None
    drawn.features.low.requires_grad_()
    with pytest.raises(TrainingError, match="after 9 grid steps, more than the 8"):
        memories(drawn.features, drawn.episode, GRID, checkpoint.config.memory)


def test_a_moment_outside_the_episode_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(TrainingError, match=r"drawn asks after \[4\] grid steps, of 3"):
        model(checkpoint)([sample((TrainingMoment(4, QUESTIONS),), steps=3, stamped=True)])


def test_a_long_answer_loses_its_end_and_a_long_memory_is_refused(checkpoint: Checkpoint) -> None:
    drawn = sample((TrainingMoment(None, QUESTIONS[:1]),), steps=1, stamped=True)
    whole = model(checkpoint).rows(drawn)[0].targets.shape[0]
    assert model(checkpoint, max_tokens=whole - 3).rows(drawn)[0].targets.shape[0] == whole - 3
    with pytest.raises(TrainingError, match="more than max_tokens, 20"):
        model(checkpoint, max_tokens=20).rows(drawn)


def test_qwen2_5_vl_is_trained_on_the_logits_that_answering_computes() -> None:
    """A stream beyond the memory's slots, whose tokens are shown in another order than the memory holds them."""
    checkpoint = checkpoint_of(qwen2_5_vl(), FlashMemoryConfig(csm_slots=6, dam_slots=3, window_slots=2))
    drawn = sample((TrainingMoment(12, QUESTIONS),), steps=12, stamped=True)
    trained = model(checkpoint)
    with torch.no_grad():
        _, logits = trained.predict(trained.rows(drawn))
    assert drawn.features is not None
    (snapshot,) = memories(drawn.features, drawn.episode, GRID, checkpoint.config.memory)
    expected = torch.cat([reference_logits(checkpoint, snapshot, conversation) for conversation in QUESTIONS])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
def test_qwen3_vl_is_trained_on_the_logits_that_answering_computes(packed: bool) -> None:
    """With what DeepStack adds to each token of the memory, and words among them."""
    memory = FlashMemoryConfig(csm_slots=6, dam_slots=3, window_slots=2)
    checkpoint = checkpoint_of(qwen3_vl(), memory, QWEN3_VL_PIXELS)
    asked = QUESTIONS if packed else QUESTIONS[:1]
    moments = (TrainingMoment(5, QUESTIONS[1:]), TrainingMoment(12, asked))
    drawn = sample(moments, steps=12, stamped=True, width=checkpoint.backbone.tower.width)
    trained = model(checkpoint)
    with torch.no_grad():
        _, logits = trained.predict(trained.rows(drawn))
    assert drawn.features is not None
    snapshots = memories(drawn.features, drawn.episode, GRID, memory)
    conversations = [(snapshots[0], QUESTIONS[1]), *((snapshots[1], one) for one in asked)]
    expected = torch.cat([reference_logits(checkpoint, snapshot, one) for snapshot, one in conversations])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_a_memory_probe_needs_the_published_layout() -> None:
    checkpoint = checkpoint_of(qwen2_5_vl(), FlashMemoryConfig())
    with pytest.raises(TrainingError, match=r"memory_probe .* published layout, which qwen2_5_vl does not have"):
        EpisodeModel(
            checkpoint,
            tower_trained=False,
            max_tokens=100,
            cache=TensorCache(CacheConfig()),
            probe=MemoryProbe(64, {"where": 3}, {}),
        )
