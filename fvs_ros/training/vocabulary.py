"""Gives a trained model a tokenizer of more words: known ones keep their embeddings, new ones begin at random."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace

import torch

from fvs_ros.model.checkpoint import Checkpoint, ModelConfig
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.scratch import adopt_tokens, word_tokenizer


def with_words(checkpoint: Checkpoint, words: Iterable[str], seed: int) -> Checkpoint:
    """The checkpoint with a word tokenizer of exactly these words.

    A token that the old tokenizer has as well keeps its embedding, whatever its number. New embeddings are drawn with
    the spread of the old ones. The network is changed in place.

    Args:
        checkpoint: whose tokenizer is replaced.
        words: of the new one.
        seed: of the new embeddings.

    Raises:
        TrainingError: most of the checkpoint's tokens would be lost, as those of any large model.
    """
    tokenizer = word_tokenizer(words)
    old, new = checkpoint.tokenizer.get_vocab(), tokenizer.get_vocab()
    known = len(old.keys() & new.keys())
    if 2 * known < len(old):
        raise TrainingError(
            f"vocabulary is patrol, whose words keep {known:,} of the checkpoint's {len(old):,} tokens; it is for "
            "checkpoints with a word tokenizer of patrols, so leave it at kept"
        )
    network = checkpoint.network
    before = network.get_input_embeddings().weight.detach().clone()
    config = deepcopy(checkpoint.config.network)
    adopt_tokens(config, tokenizer)
    network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    adopt_tokens(network.config, tokenizer)
    table = network.get_input_embeddings().weight
    drawn = torch.randn(table.shape, generator=torch.Generator().manual_seed(seed)) * before.std().item()
    with torch.no_grad():
        table.copy_(drawn)
        for token, number in new.items():
            if token in old:
                table[number] = before[old[token]]
    return replace(
        checkpoint,
        config=ModelConfig(config, checkpoint.config.memory),
        tokenizer=tokenizer,
        end_tokens=(tokenizer.convert_tokens_to_ids("<|im_end|>"),),
    )
