"""From episodes to a loss: frames to features, features to memories, memories and conversations to predictions.

Shapes: L tokens of a row, one a memory; H width of the language model, k of its layers that DeepStack adds to; A learnt
tokens; C conversations of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures
from fvs_ros.model.checkpoint import Checkpoint
from fvs_ros.model.families import QWEN2_VL
from fvs_ros.model.preprocess import normalise
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.model.recall import Recaller
from fvs_ros.model.sequence import memory_segment, text_positions
from fvs_ros.training.config import Objective
from fvs_ros.training.data.cache import TensorCache
from fvs_ros.training.data.dataset import Sample, store_features
from fvs_ros.training.data.episodes import Conversation, TrainingEpisode
from fvs_ros.training.data.frozen_encoder import FrozenEncoder
from fvs_ros.training.data.memories import memories
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.objectives.losses import EpisodeLoss
from fvs_ros.training.objectives.memory_probe import DEPTH, UNKNOWN, MemoryProbe, slot_labels
from fvs_ros.training.objectives.proof_attention import Proofs, drawn_layers, proof_attention_loss, proofs_of
from fvs_ros.training.objectives.segment_recall import SegmentQuestions, segment_recall_loss
from fvs_ros.training.objectives.token_naming import TokenNames, token_naming_loss
from fvs_ros.training.shared_prefix import IMPLEMENTATION, AskedAttention, Block, SharedPrefix


@dataclass(frozen=True)
class Row:
    """One memory and the conversations about it, as one sequence of L tokens.

    Attributes:
        embeddings: [L, H].
        positions: [3, L].
        targets: [L] int64, the token to be predicted at each place from those before it, -1 where none is.
        block: how many of the tokens are the memory's, and those of each conversation after it.
        families: of each conversation.
        asked: [C] int64, the place of each question's last token, counted from the end of the memory.
        labels: [L, G + S] int64, what the memory probe should read from each token, see `memory_probe.slot_labels`.
        proofs: where the answers are to be seen, see `proof_attention`.
        deepstack: [k, L, H], see `Backbone.hidden_states`; None where the model has none.
    """

    embeddings: Tensor
    positions: Tensor
    targets: Tensor
    block: Block
    families: tuple[str, ...]
    asked: Tensor
    labels: Tensor | None = None
    proofs: Proofs | None = None
    deepstack: Tensor | None = None


class EpisodeModel(nn.Module):
    """A checkpoint's network as something that gives a loss for episodes.

    Args:
        checkpoint: its network is trained in place.
        tower_trained: whether gradients flow into the vision tower.
        max_tokens: longer sequences lose their end.
        cache: gets the features that a frozen tower makes.
        objective: what is learnt, see `StageConfig`.
        probe: reads what the memory's tokens should know, None to train on answers only.
        probe_weight: of its loss beside that of the answers.
        proof_weight: of drawing attention to what proves the answers, beside the same; 0 leaves it alone.

    Raises:
        TrainingError: a probe for a checkpoint whose memory is not in the published layout.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        tower_trained: bool,
        max_tokens: int,
        cache: TensorCache,
        objective: Objective = "answers",
        probe: MemoryProbe | None = None,
        probe_weight: float = 0.0,
        proof_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.network: PreTrainedModel = checkpoint.network
        self._backbone = checkpoint.backbone
        self._checkpoint = checkpoint
        self._prompts = PromptBuilder(checkpoint.tokenizer, self._backbone.prompt_style)
        self._tower_trained = tower_trained
        self._max_tokens = max_tokens
        self._cache = cache
        self._objective = objective
        self.probe = probe
        # Other objectives leave it as it is.
        self.recall = checkpoint.recall if objective == "recall" else None
        self._probe_weight = probe_weight
        self._proof_weight = proof_weight
        if probe is not None and checkpoint.config.network.model_type != QWEN2_VL.model_type:
            raise TrainingError(
                f"memory_probe reads tokens in the published layout, which {checkpoint.config.network.model_type} does "
                "not have; set memory_probe to 0"
            )
        if is_deepspeed_zero3_enabled():
            # ZeRO-3 gathers a weight by itself only in its module's forward.
            for weight in self._backbone.tower.unhooked_weights:
                import_module("deepspeed").zero.register_external_parameter(self, weight)

    def forward(self, samples: Sequence[Sample]) -> EpisodeLoss:
        """The loss of a batch of episodes."""
        if self._objective == "token_naming":
            features = self._backbone.tower.encode(self._normalised(samples))
            return token_naming_loss(
                self._backbone, self._checkpoint.tokenizer, features, [_token_names(sample) for sample in samples]
            )
        if self.recall is not None:
            recaller = Recaller(self._backbone, self._prompts, self.recall)
            return segment_recall_loss(recaller, [self._segments(sample) for sample in samples])
        rows = [row for sample in samples for row in self.rows(sample)]
        observer = None
        if self._proof_weight:
            observer = AskedAttention(drawn_layers(len(self._backbone.layers)), [row.asked for row in rows])
        with self._probed_states() as states:
            targets, logits = self.predict(rows, observer)
        loss = functional.cross_entropy(logits, targets)
        shares: dict[str, Tensor] = {}
        if observer is not None:
            extra, shares = proof_attention_loss(observer, [row.proofs for row in rows if row.proofs is not None])
            loss = loss + self._proof_weight * extra
        if self.probe is not None:
            (hidden,) = states
            extra, read = self.probe(hidden.flatten(0, 1), _probe_labels(rows, hidden))
            loss, shares = loss + self._probe_weight * extra, shares | read
        return EpisodeLoss(
            loss=loss,
            right=_all_right(logits.argmax(-1) == targets, rows),
            families=tuple(family for row in rows for family in row.families),
            tokens=sum(row.block.tokens for row in rows),
            shares=shares,
        )

    def _segments(self, sample: Sample) -> tuple[Tensor, PatchGrid, SegmentQuestions]:
        if sample.episode.recall is None:
            raise TrainingError(f"{sample.episode.name} has no segments to recall; only patrols have")
        return self.features(sample).low, sample.grid, sample.episode.recall

    @contextmanager
    def _probed_states(self) -> Iterator[list[Tensor]]:
        """Gathers the output of the layer that the memory probe reads, if there is a probe."""
        gathered: list[Tensor] = []
        if self.probe is None:
            yield gathered
            return
        layers = self._backbone.layers
        layer = layers[max(round(DEPTH * len(layers)), 1) - 1]
        # Some versions of transformers return the hidden states with others.
        handle = layer.register_forward_hook(
            lambda *call: gathered.append(call[-1] if isinstance(call[-1], Tensor) else call[-1][0])
        )
        try:
            yield gathered
        finally:
            handle.remove()

    def rows(self, sample: Sample) -> list[Row]:
        """The rows of an episode, one for each moment.

        Raises:
            TrainingError: the memory alone is longer than a sequence may be, or an episode without questions.
        """
        return [
            self._row(snapshot, moment.conversations, sample.episode)
            for snapshot, moment in zip(self.memories(sample), sample.episode.moments, strict=True)
        ]

    def memories(self, sample: Sample) -> Sequence[MemorySnapshot]:
        """The memory at each moment of a sample, on the model's device."""
        if sample.memories is not None:
            return [snapshot.to(self._backbone.device) for snapshot in sample.memories]
        return memories(self.features(sample), sample.episode, sample.grid, self._checkpoint.config.memory)

    def predict(self, rows: Sequence[Row], observer: AskedAttention | None = None) -> tuple[Tensor, Tensor]:
        """The learnt tokens [A] of all rows and their logits [A, V] float32; an observer sees the attention."""
        # Where each memory has one conversation, this is plain causal attention over a batch of rows, for which any
        # implementation serves; padding stands behind and is never seen.
        if observer is None and all(len(row.block.lengths) == 1 for row in rows):
            embeddings = pad_sequence([row.embeddings for row in rows], batch_first=True)
            positions = pad_sequence([row.positions.T for row in rows], batch_first=True).permute(2, 0, 1)
            targets = pad_sequence([row.targets for row in rows], batch_first=True, padding_value=-1)
            mask = None
            deepstack = _deepstack(rows, padded=True)
        else:
            embeddings = torch.cat([row.embeddings for row in rows])[None]
            positions = torch.cat([row.positions for row in rows], dim=1)[:, None]
            targets = torch.cat([row.targets for row in rows])[None]
            deepstack = _deepstack(rows, padded=False)
            mask = {"full_attention": SharedPrefix(tuple(row.block for row in rows), observer)}
            self._backbone.text_config._attn_implementation = IMPLEMENTATION
        hidden = self._backbone.hidden_states(embeddings, positions, mask=mask, deepstack=deepstack)
        learnt = targets >= 0
        # A token is predicted at the place before it.
        predicting = functional.pad(learnt[:, 1:], (0, 1))
        return targets[learnt], self._backbone.logits(hidden[predicting])

    def features(self, sample: Sample) -> StepFeatures:
        """Features of a sample on the model's device: those that it brings, or new ones."""
        device = self._backbone.device
        if sample.features is not None:
            return StepFeatures(sample.features.high.to(device), sample.features.low.to(device))
        if self._tower_trained:
            return self._backbone.tower.encode(self._normalised([sample]))
        assert sample.frames is not None
        checkpoint = self._checkpoint
        encoder = FrozenEncoder(self._backbone.tower, checkpoint.pixels, checkpoint.config.memory)
        features = encoder.encode(sample.frames.to(device))
        store_features(self._cache, sample, features)
        return features

    def _normalised(self, samples: Sequence[Sample]) -> Tensor:
        """All frames of samples of one size, [2n, 3, H, W]."""
        frames = [sample.frames for sample in samples if sample.frames is not None]
        return normalise(torch.cat(frames).to(self._backbone.device).float(), self._checkpoint.pixels)

    def _row(self, snapshot: MemorySnapshot, conversations: Sequence[Conversation], episode: TrainingEpisode) -> Row:
        name = episode.name
        if not conversations:
            raise TrainingError(f"{name} has no question")
        prompts, config = self._prompts, self._checkpoint.config.memory
        prefix = memory_segment(self._backbone, snapshot, prompts.head, config, prompts.words)
        memory = prefix.embeddings.shape[0]
        room = max(self._max_tokens - memory, 0)
        texts: list[Sequence[int]] = []
        targets: list[int] = []
        asked: list[int] = []
        for conversation in conversations:
            built = prompts.build_conversation(conversation.turns)
            tokens, learnt = built.tokens[:room], built.learnt[:room]
            if not any(learnt):
                raise TrainingError(
                    f"{name}: memory and question take more than max_tokens, {self._max_tokens}, so that no answer is "
                    "left to learn; raise max_tokens, or lower max_pixels"
                )
            texts.append(tokens)
            asked.append(len(targets) + learnt.index(True) - 1)
            targets += [token if wanted else -1 for token, wanted in zip(tokens, learnt, strict=True)]
        lengths = tuple(len(tokens) for tokens in texts)
        labels = None
        if self.probe is not None:
            labels = self._slot_labels(snapshot, episode, memory, sum(lengths))
        proofs = None
        if self._proof_weight:
            proofs = proofs_of(snapshot, prefix.slots, [conversation.proof_ns for conversation in conversations])
        device = self._backbone.device
        ids = torch.tensor([token for tokens in texts for token in tokens], device=device)
        text = text_positions(prefix.next_position, max(lengths), device)
        return Row(
            embeddings=torch.cat([prefix.embeddings, self._backbone.embeddings(ids)]),
            positions=torch.cat([prefix.positions, *(text[:, :length] for length in lengths)], dim=1),
            targets=functional.pad(torch.tensor(targets, device=device), (memory, 0), value=-1),
            block=Block(memory, lengths),
            families=tuple(conversation.family for conversation in conversations),
            asked=torch.tensor(asked, device=device),
            labels=labels,
            proofs=proofs,
            deepstack=None if prefix.deepstack is None else functional.pad(prefix.deepstack, (0, 0, 0, len(ids))),
        )

    def _slot_labels(self, snapshot: MemorySnapshot, episode: TrainingEpisode, memory: int, text: int) -> Tensor:
        assert self.probe is not None
        if snapshot.ranked:
            # Of a few steps of a day: what came before them is not in this memory, so that it cannot be known from it.
            return torch.full((memory + text, self.probe.columns), UNKNOWN)
        if episode.probe_labels is None:
            raise TrainingError(f"{episode.name} has no labels for the memory probe; only patrols have")
        return slot_labels(episode.probe_labels, snapshot, len(self._prompts.head), text)


def _deepstack(rows: Sequence[Row], *, padded: bool) -> Tensor | None:
    """That of rows in the order of their embeddings, [k, S, L, H]: a batch, padded, or one sequence; see `predict`."""
    parts = [row.deepstack for row in rows if row.deepstack is not None]
    if not parts:
        return None
    if padded:
        return pad_sequence([part.transpose(0, 1) for part in parts], batch_first=True).permute(2, 0, 1, 3)
    return torch.cat(parts, dim=1)[:, None]


def _probe_labels(rows: Sequence[Row], hidden: Tensor) -> Tensor:
    """The labels of all rows in the order of their hidden states: one sequence, or a batch, see `predict`."""
    labels = [row.labels for row in rows if row.labels is not None]
    if hidden.shape[0] > 1:
        return pad_sequence(labels, batch_first=True, padding_value=UNKNOWN).flatten(0, 1).to(hidden.device)
    return torch.cat(labels).to(hidden.device)


def _token_names(sample: Sample) -> TokenNames:
    if sample.episode.token_names is None:
        raise TrainingError(f"{sample.episode.name} has no names for its visual tokens; only patrols have")
    return sample.episode.token_names


def _all_right(right: Tensor, rows: Sequence[Row]) -> Tensor:
    """Whether all learnt tokens of each conversation are right, [C] bool, from those of the tokens, [A] bool."""
    lengths = torch.tensor([length for row in rows for length in row.block.lengths], device=right.device)
    numbers = torch.repeat_interleave(torch.arange(len(lengths), device=right.device), lengths)
    learnt = torch.cat([row.targets[row.block.prefix :] for row in rows]) >= 0
    return torch.zeros_like(lengths).index_add_(0, numbers[learnt], (~right).long()) == 0
