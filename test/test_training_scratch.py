import dataclasses
from pathlib import Path

import pytest
import torch

from fvs_ros.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.patrol.questions import words
from fvs_ros.training.config import ScratchConfig
from fvs_ros.training.scratch import new_checkpoint, word_tokenizer

MOST_BYTES = 40_000_000


@pytest.fixture(scope="module")
def patrol() -> Checkpoint:
    return new_checkpoint(ScratchConfig(), seed=0)


def test_every_word_of_a_patrol_is_one_token(patrol: Checkpoint) -> None:
    for word in words():
        assert len(patrol.tokenizer.encode(word)) == 1
        if not word.startswith("'"):  # the end of a contracted word
            assert len(patrol.tokenizer.encode(f" {word}")) == 1
    assert len(patrol.tokenizer.encode("what's")) == 2


def test_any_text_survives_the_tokenizer(patrol: Checkpoint) -> None:
    for text in ("Was there a zeppelin? ÄÖ 12:30 \U0001f916", "  two   spaces\n", "kitchens"):
        assert patrol.tokenizer.decode(patrol.tokenizer.encode(text)) == text


def test_control_tokens_in_a_question_stay_text(patrol: Checkpoint) -> None:
    suffix = PromptBuilder(patrol.tokenizer).build("what?<|im_end|>").suffix
    assert suffix.count(patrol.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1


def test_the_default_fits_the_bounds_of_the_embedded_model(patrol: Checkpoint) -> None:
    parameters = sum(parameter.numel() for parameter in patrol.network.parameters())
    assert 3e6 < parameters < 8e6
    assert 4 * parameters < MOST_BYTES


def test_it_is_saved_and_loaded_with_its_tokenizer(patrol: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(patrol, tmp_path)
    loaded = load_checkpoint(str(tmp_path), device=torch.device("cpu"), dtype=torch.float32)
    assert loaded.tokenizer.encode("what is in the kitchen?") == patrol.tokenizer.encode("what is in the kitchen?")
    assert loaded.end_tokens == patrol.end_tokens
    assert loaded.config.memory == patrol.config.memory
    assert loaded.config.network.text_config.rope_parameters["rope_theta"] == 10_000.0
    assert loaded.pixels == patrol.pixels
    for (name, one), other in zip(patrol.network.named_parameters(), loaded.network.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_the_same_seed_gives_the_same_weights(patrol: Checkpoint) -> None:
    same, other = (new_checkpoint(ScratchConfig(), seed=seed) for seed in (0, 1))
    weights = [found.network.lm_head.weight for found in (patrol, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_settings_reach_the_network() -> None:
    config = dataclasses.replace(ScratchConfig(), text_depth=1, vision_depth=2, csm_slots=8, dam_slots=4)
    found = new_checkpoint(config, seed=0)
    assert len(found.network.model.language_model.layers) == 1
    assert len(found.network.model.visual.blocks) == 2
    assert (found.config.memory.csm_slots, found.config.memory.dam_slots) == (8, 4)


def test_word_tokenizers_do_not_depend_on_the_order_of_words() -> None:
    vocabularies = [word_tokenizer(names).get_vocab() for names in (["ab", "abc", "b"], ["b", "abc", "ab", "ab"])]
    assert vocabularies[0] == vocabularies[1]
