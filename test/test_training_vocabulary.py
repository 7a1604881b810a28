from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_videos import TINY

from fvs_ros.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fvs_ros.training.config import ModelSource, ScratchConfig
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.scratch import new_checkpoint, patrol_vocabulary, word_tokenizer
from fvs_ros.training.vocabulary import with_words

WORDS = ["what", "where", "red", "chair", "assistant"]


@pytest.fixture
def small() -> Checkpoint:
    config = ScratchConfig(**{**TINY, "vocabulary": "patrol", "tied_embeddings": True})
    return new_checkpoint(config, seed=0)


def embedding(checkpoint: Checkpoint, text: str) -> torch.Tensor:
    (token,) = checkpoint.tokenizer.encode(text)
    return checkpoint.network.get_input_embeddings().weight[token].detach().clone()


def test_known_words_keep_their_embeddings_and_new_ones_get_one(small: Checkpoint) -> None:
    before = {word: embedding(small, word) for word in (" red", " chair", "What", "<|im_end|>")}
    spread = small.network.get_input_embeddings().weight.std().item()
    assert len(small.tokenizer.encode(" zeppelin")) > 1
    larger = with_words(small, [*patrol_vocabulary(), "zeppelin"], seed=0)
    for word, expected in before.items():
        assert torch.equal(embedding(larger, word), expected), word
    assert embedding(larger, " zeppelin").std().item() == pytest.approx(spread, rel=0.5)


def test_sizes_and_control_tokens_follow_the_tokenizer(small: Checkpoint, tmp_path: Path) -> None:
    larger = with_words(small, [*patrol_vocabulary(), "zeppelin"], seed=0)
    count = len(larger.tokenizer)
    assert larger.network.get_input_embeddings().weight.shape[0] == count
    assert larger.network.lm_head.weight is larger.network.get_input_embeddings().weight
    for config in (larger.config.network, larger.network.config):
        assert config.text_config.vocab_size == count
        assert config.image_token_id == larger.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        assert config.text_config.eos_token_id == larger.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert larger.end_tokens == (larger.tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    save_checkpoint(larger, tmp_path)
    loaded = load_checkpoint(str(tmp_path), device=torch.device("cpu"), dtype=torch.float32)
    assert loaded.tokenizer.encode("where zeppelin") == larger.tokenizer.encode("where zeppelin")
    assert torch.equal(
        loaded.network.get_input_embeddings().weight, larger.network.get_input_embeddings().weight.detach()
    )


def test_the_seed_decides_the_new_embeddings() -> None:
    config = ScratchConfig(**{**TINY, "vocabulary": "patrol", "tied_embeddings": True})
    one, same, other = (
        with_words(new_checkpoint(config, 0), [*patrol_vocabulary(), "zeppelin"], seed) for seed in (0, 0, 1)
    )
    assert torch.equal(embedding(one, "zeppelin"), embedding(same, "zeppelin"))
    assert not torch.equal(embedding(one, "zeppelin"), embedding(other, "zeppelin"))
    assert torch.equal(embedding(one, " red"), embedding(other, " red"))


def test_a_larger_list_of_words_keeps_every_old_word_whole() -> None:
    old, new = word_tokenizer(WORDS), word_tokenizer([*WORDS, "wherever", "reddish", "chairlift"])
    for word in WORDS:
        assert len(old.encode(word)) == len(new.encode(word)) == 1
        assert len(new.encode(f" {word}")) == 1


def test_a_checkpoint_that_would_lose_its_words_is_refused(small: Checkpoint) -> None:
    before = small.network.get_input_embeddings().weight.detach().clone()
    with pytest.raises(TrainingError, match=r"keep \d+ of the checkpoint's [\d,]+ tokens.*leave it at kept"):
        with_words(small, WORDS, seed=0)
    assert torch.equal(small.network.get_input_embeddings().weight, before)


def test_a_new_model_has_no_vocabulary_to_change() -> None:
    with pytest.raises(ValueError, match="vocabulary is patrol, but with scratch"):
        ModelSource(scratch=ScratchConfig(), vocabulary="patrol")
