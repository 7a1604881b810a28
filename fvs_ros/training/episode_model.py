"""From episodes to a loss: frames to features, features to memories, memories and conversations to predictions.

Shapes: B rows, one a memory; L tokens of the longest row; H width of the language model; A learnt tokens;
C conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2VLForConditionalGeneration
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from fvs_ros.memory.snapshot import MemorySnapshot, StepFeatures
from fvs_ros.model.checkpoint import Checkpoint
from fvs_ros.model.preprocess import FRAMES_PER_STEP, normalise
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.model.sequence import memory_segment, text_segment
from fvs_ros.model.vision import encode_frames
from fvs_ros.training.cache import TensorCache
from fvs_ros.training.dataset import Sample, store_features
from fvs_ros.training.episodes import Conversation
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.memories import memories

# Grid steps that a frozen tower encodes at once: what a 7B model keeps meanwhile stays below 1 GB.
FROZEN_STEPS = 8
PREFIX, PADDING = 0, -1


@dataclass(frozen=True)
class Row:
    """One memory and the conversations about it, as one sequence of L tokens.

    Attributes:
        embeddings: [L, H].
        positions: [3, L].
        groups: [L] int64, `PREFIX` for what all conversations see, then the number of the conversation from 1 on.
        targets: [L] int64, the token to be predicted at each place from those before it, -1 where none is.
        families: of each conversation.
    """

    embeddings: Tensor
    positions: Tensor
    groups: Tensor
    targets: Tensor
    families: tuple[str, ...]


@dataclass(frozen=True)
class EpisodeLoss:
    """The loss of a batch, and which of its answers were right.

    Attributes:
        loss: mean over the learnt tokens.
        right: [C] bool, whether all learnt tokens of a conversation were the likeliest, each given the ones before.
        families: of each conversation.
        tokens: of all rows, without padding.
    """

    loss: Tensor
    right: Tensor
    families: tuple[str, ...]
    tokens: int


class EpisodeModel(nn.Module):
    """A checkpoint's network as something that gives a loss for episodes.

    Args:
        checkpoint: its network is trained in place.
        tower_trained: whether gradients flow into the vision tower.
        max_tokens: longer sequences lose their end.
        cache: gets the features that a frozen tower makes.
    """

    def __init__(self, checkpoint: Checkpoint, *, tower_trained: bool, max_tokens: int, cache: TensorCache) -> None:
        super().__init__()
        self.network: Qwen2VLForConditionalGeneration = checkpoint.network
        self._memory_config = checkpoint.config.memory
        self._pixels = checkpoint.pixels
        self._prompts = PromptBuilder(checkpoint.tokenizer)
        self._tower_trained = tower_trained
        self._max_tokens = max_tokens
        self._cache = cache
        if is_deepspeed_zero3_enabled():
            # `encode_frames` reads this weight outside of its module's forward, where ZeRO-3 gathers it by itself.
            import_module("deepspeed").zero.register_external_parameter(
                self, self.network.model.visual.patch_embed.proj.weight
            )

    def forward(self, samples: Sequence[Sample]) -> EpisodeLoss:
        """The loss of a batch of episodes."""
        rows = [row for sample in samples for row in self.rows(sample)]
        targets, logits = self.predict(rows)
        batch = pad_sequence([row.targets for row in rows], batch_first=True, padding_value=-1)
        return EpisodeLoss(
            loss=functional.cross_entropy(logits, targets),
            right=_all_right(logits.argmax(-1) == targets, rows, batch >= 0),
            families=tuple(family for row in rows for family in row.families),
            tokens=sum(row.targets.shape[0] for row in rows),
        )

    def rows(self, sample: Sample) -> list[Row]:
        """The rows of an episode, one for each moment.

        Raises:
            TrainingError: the memory alone is longer than a sequence may be, or an episode without questions.
        """
        features = self.features(sample)
        snapshots = memories(features, sample.episode, sample.grid, self._memory_config)
        return [
            self._row(snapshot, moment.conversations, sample.episode.name)
            for snapshot, moment in zip(snapshots, sample.episode.moments, strict=True)
        ]

    def predict(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """The learnt tokens [A] of all rows and their logits [A, V] float32."""
        embeddings = pad_sequence([row.embeddings for row in rows], batch_first=True)
        positions = pad_sequence([row.positions.T for row in rows], batch_first=True).permute(2, 0, 1)
        targets = pad_sequence([row.targets for row in rows], batch_first=True, padding_value=-1)
        hidden = self.network.model.language_model(
            inputs_embeds=embeddings, position_ids=positions, attention_mask=_attention_mask(rows), use_cache=False
        ).last_hidden_state
        learnt = targets >= 0
        # A token is predicted at the place before it.
        predicting = functional.pad(learnt[:, 1:], (0, 1))
        return targets[learnt], self.network.lm_head(hidden[predicting]).float()

    def features(self, sample: Sample) -> StepFeatures:
        """Features of a sample on the model's device: those that it brings, or new ones."""
        device = self.network.device
        if sample.features is not None:
            return StepFeatures(sample.features.high.to(device), sample.features.low.to(device))
        assert sample.frames is not None
        frames = sample.frames.to(device)
        if self._tower_trained:
            return encode_frames(self.network.model.visual, normalise(frames.float(), self._pixels))
        # As at inference: no gradient, and the precision of the weights.
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            parts = [
                encode_frames(self.network.model.visual, normalise(part.float(), self._pixels))
                for part in frames.split(FROZEN_STEPS * FRAMES_PER_STEP)
            ]
        features = StepFeatures(torch.cat([part.high for part in parts]), torch.cat([part.low for part in parts]))
        store_features(self._cache, sample, features)
        return features

    def _row(self, snapshot: MemorySnapshot, conversations: Sequence[Conversation], name: str) -> Row:
        prefix = memory_segment(self.network, snapshot, self._prompts.head, self._memory_config)
        room = self._max_tokens - prefix.embeddings.shape[0]
        embeddings, positions = [prefix.embeddings], [prefix.positions]
        groups, targets = [PREFIX] * prefix.embeddings.shape[0], [-1] * prefix.embeddings.shape[0]
        for number, conversation in enumerate(conversations, start=1):
            built = self._prompts.build_conversation(conversation.turns)
            tokens, learnt = built.tokens[: max(room, 0)], built.learnt[: max(room, 0)]
            if not any(learnt):
                raise TrainingError(
                    f"{name}: memory and question take more than max_tokens, {self._max_tokens}, so that no answer is "
                    "left to learn; raise max_tokens, or lower max_pixels"
                )
            text = text_segment(self.network, tokens, prefix.next_position)
            embeddings.append(text.embeddings)
            positions.append(text.positions)
            groups += [number] * len(tokens)
            targets += [token if counts else -1 for token, counts in zip(tokens, learnt, strict=True)]
        if not conversations:
            raise TrainingError(f"{name} has no question")
        device = self.network.device
        return Row(
            embeddings=torch.cat(embeddings),
            positions=torch.cat(positions, dim=1),
            groups=torch.tensor(groups, device=device),
            targets=torch.tensor(targets, device=device),
            families=tuple(conversation.family for conversation in conversations),
        )


def _attention_mask(rows: Sequence[Row]) -> dict[str, Tensor] | None:
    """Who sees whom, bool [B, 1, L, L]: what came before, but no other conversation.

    None, for plain causal attention, where each row has one conversation; padding stands behind and is never seen.
    """
    if all(len(row.families) == 1 for row in rows):
        return None
    groups = pad_sequence([row.groups for row in rows], batch_first=True, padding_value=PADDING)
    same = (groups[:, None, :] == PREFIX) | (groups[:, None, :] == groups[:, :, None])
    causal = torch.ones(groups.shape[1], groups.shape[1], dtype=torch.bool, device=groups.device).tril()
    return {"full_attention": (same & causal)[:, None]}


def _all_right(right: Tensor, rows: Sequence[Row], learnt: Tensor) -> Tensor:
    """Whether all learnt tokens of each conversation are right, [C] bool, from those of the tokens, [A] bool."""
    groups = pad_sequence([row.groups for row in rows], batch_first=True, padding_value=PADDING)
    counts = torch.tensor([len(row.families) for row in rows], device=groups.device)
    # Conversation 1 of a row follows on the last one of the row before.
    numbers = groups - 1 + (counts.cumsum(0) - counts)[:, None]
    wrong = torch.zeros(sum(len(row.families) for row in rows), dtype=torch.long, device=groups.device)
    return wrong.index_add_(0, numbers[learnt], (~right).long()) == 0
