"""Token naming: visual tokens learn to name what they show, before any question is asked.

Answers alone supervise a vision tower with one or two words a scene. The simulator knows what every part of a frame
shows, so it can supervise every token: a visual token's embedding must point towards the embeddings of its words. The
language model, whose output shares its weights with those embeddings, can then look up in the memory what a question
names.

Shapes: T grid steps, P patches of a frame, N visual tokens of one resolution (P / 4), G groups of words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from fvs_ros.memory.snapshot import StepFeatures
from fvs_ros.model.backbone import Backbone
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.objectives.losses import EpisodeLoss


@dataclass(frozen=True)
class TokenNames:
    """The words for what each visual token of an episode shows.

    Attributes:
        groups: words that exclude each other, such as colours; the last one of the first group is for no object.
        high, low: index into each group for each token of the high and the low resolution, int64 [T, N, G].
    """

    groups: tuple[tuple[str, ...], ...]
    high: np.ndarray
    low: np.ndarray


def word_tokens(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> Tensor:
    """Token ids [2, len(words)] of words as they stand within a text, after a space, and at its beginning.

    Raises:
        TrainingError: a word is more than one token.
    """
    forms = [[tokenizer.encode(space + word, add_special_tokens=False) for word in words] for space in (" ", "")]
    for form in forms:
        for word, tokens in zip(words, form, strict=True):
            if len(tokens) != 1:
                raise TrainingError(
                    f"{word!r} is {len(tokens)} tokens, but a visual token can name whole words only; train on this "
                    "vocabulary (model.scratch.vocabulary), or without a stage whose objective is token_naming"
                )
    return torch.tensor(forms)[..., 0]


def token_naming_loss(
    backbone: Backbone,
    tokenizer: PreTrainedTokenizerBase,
    features: StepFeatures,
    names: Sequence[TokenNames],
) -> EpisodeLoss:
    """How far the visual tokens of a batch of episodes are from naming what they show.

    An answer is one token, right if it names the words of all groups. Tokens that show an object are reported apart.

    Args:
        backbone: its merger and its words take part; the language model's layers do not.
        tokenizer: of the words.
        features: of all episodes' steps, one after the other.
        names: of each episode.
    """
    device = backbone.device
    visual = backbone.merge(torch.cat([features.high.flatten(0, 1), features.low.flatten(0, 1)])).embeddings
    parts = [("high", episode.high) for episode in names] + [("low", episode.low) for episode in names]
    labels = np.concatenate([part.reshape(-1, part.shape[-1]) for _, part in parts])
    targets = torch.from_numpy(labels).to(device)
    losses, right = [], torch.ones(len(labels), dtype=torch.bool, device=device)
    groups = names[0].groups
    for group, words in enumerate(groups):
        for form in word_tokens(tokenizer, words).to(device):
            logits = functional.linear(visual, backbone.head.weight[form]).float()
            losses.append(functional.cross_entropy(logits, targets[:, group]))
            right &= logits.argmax(-1) == targets[:, group]
    empty = labels[:, 0] == len(groups[0]) - 1
    resolutions = [resolution for resolution, part in parts for _ in range(part.shape[0] * part.shape[1])]
    return EpisodeLoss(
        loss=torch.stack(losses).mean(),
        right=right,
        families=tuple(
            resolution if nothing else f"{resolution}_object"
            for resolution, nothing in zip(resolutions, empty, strict=True)
        ),
        tokens=len(labels),
    )
