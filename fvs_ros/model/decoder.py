"""The language model on preallocated keys and values: a prefix, and questions that share it.

A prefix (prompt head and memory) is computed once, in chunks. Any number of questions then continue from it in one
batch; each has keys and values for its own tokens only.

Shapes: S questions, L tokens of each in one run, N tokens of the prefix, T columns of a question's row, H width of the
model, k layers that DeepStack adds to, q query heads, h key heads, d values of a head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from fvs_ros.model.backbone import Backbone
from fvs_ros.model.relevance import ObservedAttention
from fvs_ros.model.rotary import rotate, signed

# What a chunk of a prefix may cost. A question waits for one chunk at most: about 10 ms on a CPU core (100 GFLOP/s),
# 18 ms for 512 tokens of a 7B model on an H200, where smaller chunks would no longer fill the matrix units.
CHUNK_FLOP = {"cpu": 1e9, "cuda": 8e12}
LEAST_CHUNK, MOST_CHUNK = 16, 2_048

# The parts of a layer that `Decoder` computes.
LAYER_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
ATTENTION_PARTS = {"q_proj", "k_proj", "v_proj", "o_proj"}
BIASED_PARTS = ("q_proj", "k_proj", "v_proj")
# Qwen3 has both, over the values of each head, in place of the biases that Qwen2 has.
HEAD_NORMS = {"q_norm", "k_norm"}

Attention = Callable[[int, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class KeyValues:
    """Storage for the keys and values of S sequences of up to T tokens.

    Attributes:
        keys, values: [layers, S, T, h, d] in the model's dtype.
    """

    keys: Tensor
    values: Tensor

    @property
    def tokens(self) -> int:
        """T."""
        return self.keys.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.keys.nbytes + self.values.nbytes


@dataclass(frozen=True)
class Prefix:
    """A prefix, computed up to `length`.

    Attributes:
        cache: storage of one sequence.
        length: N, tokens that are computed.
    """

    cache: KeyValues
    length: int


@dataclass(frozen=True)
class SuffixChunk:
    """More tokens of one question or its answer.

    Attributes:
        row: of the suffix cache.
        tokens: at least one.
        column: where in its row the first of them goes, so how many the row holds already.
        position: position id of the first of them.
    """

    row: int
    tokens: Sequence[int]
    column: int
    position: int


class Decoder:
    """Runs a language model's layers on `KeyValues`. Not thread-safe.

    The layers' weights are transformers' modules. Their attention is replaced, since it can neither share a prefix
    among the sequences of a batch nor write into storage of ours; the rest is called here directly, because the way
    through transformers costs a small model more than its arithmetic. Results differ from transformers' by rounding.

    Raises:
        ValueError: the layers hold what this class would not compute, see `check_layers`.
    """

    def __init__(self, backbone: Backbone) -> None:
        check_layers(backbone)
        self._backbone = backbone
        self._layers: list[Any] = list(backbone.layers)
        self._norm = backbone.norm
        self._rotary = backbone.rotary
        attention = self._layers[0].self_attn
        self._head_dim = attention.head_dim
        self._key_heads = backbone.text_config.num_key_value_heads
        self._normed = hasattr(attention, "q_norm")
        self.device = backbone.device
        self.dtype = backbone.dtype
        self.chunk = chunk_tokens(layer_weights(backbone.layers), self.device.type)

    def allocate(self, sequences: int, tokens: int) -> KeyValues:
        """Storage for sequences of up to `tokens`. Zeroed: masked values are multiplied by 0, so must be finite."""
        shape = (len(self._layers), sequences, tokens, self._key_heads, self._head_dim)
        keys, values = (torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(2))
        return KeyValues(keys, values)

    def prefill(self, prefix: Prefix, embeddings: Tensor, positions: Tensor, deepstack: Tensor | None = None) -> Prefix:
        """Computes the next L tokens of a prefix into its cache, in place; returns the longer prefix.

        Args:
            prefix: what is computed so far.
            embeddings: [L, H].
            positions: [3, L] int64.
            deepstack: [k, L, H], see `Backbone.hidden_states`.
        """
        start, end = prefix.length, prefix.length + embeddings.shape[0]
        self._run(embeddings[None], positions[:, None], _PrefixAttention(prefix.cache, start, end), deepstack)
        return Prefix(prefix.cache, end)

    def extend(
        self,
        prefix: Prefix,
        suffixes: KeyValues,
        chunks: Sequence[SuffixChunk],
        observed: ObservedAttention | None = None,
    ) -> Tensor:
        """Logits [S, V] float32 at the last of L more tokens of each of S questions; their keys and values are kept.

        Args:
            prefix: what all of them continue.
            suffixes: keys and values of the questions' own tokens.
            chunks: L tokens of each question, no two in one row.
            observed: collects what their last tokens attend to.
        """
        return self._backbone.logits(self._continue(prefix, suffixes, chunks, observed)[:, -1])

    def logits_at(
        self, prefix: Prefix, suffixes: KeyValues, chunks: Sequence[SuffixChunk], picked: Sequence[Sequence[bool]]
    ) -> Tensor:
        """Logits [n, V] float32 at the n tokens that `picked` [S, L] names, in order; else like `extend`."""
        hidden = self._continue(prefix, suffixes, chunks, None)
        return self._backbone.logits(hidden[torch.tensor(picked, device=self.device)])

    def _continue(
        self, prefix: Prefix, suffixes: KeyValues, chunks: Sequence[SuffixChunk], observed: ObservedAttention | None
    ) -> Tensor:
        """Hidden states [S, L, H] of L more tokens of each of S questions."""
        ids = torch.tensor([chunk.tokens for chunk in chunks], device=self.device)
        rows, first_columns, positions = (
            torch.tensor(values, device=self.device)
            for values in zip(*((chunk.row, chunk.column, chunk.position) for chunk in chunks), strict=True)
        )
        offsets = torch.arange(ids.shape[1], device=self.device)
        columns = first_columns[:, None] + offsets
        width = max(chunk.column for chunk in chunks) + ids.shape[1]
        attention = SuffixAttention(
            prefix.cache.keys[:, 0, : prefix.length],
            prefix.cache.values[:, 0, : prefix.length],
            suffixes,
            rows,
            columns,
            width,
            masked=None if ids.shape == (1, 1) else later_columns(columns, width),
            observed=observed,
        )
        return self._text_states(ids, positions[:, None] + offsets, attention)

    def logits(self, ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Logits [S, V] float32 at the last of the text tokens `ids` [S, L] at `positions` [S, L]."""
        return self._backbone.logits(self._text_states(ids, positions, attention)[:, -1])

    def _text_states(self, ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        return self._run(self._backbone.embeddings(ids), positions.expand(3, -1, -1), attention)

    def _run(self, hidden: Tensor, positions: Tensor, attention: Attention, deepstack: Tensor | None = None) -> Tensor:
        """Hidden states [S, L, H] after all layers, of embeddings [S, L, H] at positions [3, S, L].

        `deepstack` [k, L, H] is added after each of the first k layers.
        """
        added = 0 if deepstack is None else len(deepstack)
        cosines, sines = (values[:, :, None] for values in self._rotary(hidden, positions))
        sines = signed(sines)
        for index, layer in enumerate(self._layers):
            projections = layer.self_attn
            normed = _rms_norm(layer.input_layernorm, hidden)
            shape = (*hidden.shape[:2], -1, self._head_dim)
            query, key = projections.q_proj(normed).view(shape), projections.k_proj(normed).view(shape)
            if self._normed:
                query, key = _rms_norm(projections.q_norm, query), _rms_norm(projections.k_norm, key)
            # Both at once: of one token of a 7B model, launching small kernels takes as long as reading the weights.
            turned = rotate(torch.cat([query, key], dim=2), cosines, sines)
            query, key = turned.split([query.shape[2], key.shape[2]], dim=2)
            value = projections.v_proj(normed).view(shape)
            mixed = attention(index, query, key, value)
            hidden = hidden + projections.o_proj(mixed.reshape(*hidden.shape[:2], -1))
            hidden = hidden + layer.mlp(_rms_norm(layer.post_attention_layernorm, hidden))
            if deepstack is not None and index < added:
                hidden = hidden + deepstack[index]
        return _rms_norm(self._norm, hidden)


def check_layers(backbone: Backbone) -> None:
    """Refuses layers that `Decoder` would compute as if they were Qwen2's or Qwen3's.

    Raises:
        ValueError: a part that would be left out, or a setting that would be ignored, by name.
    """
    config = backbone.text_config
    for name, found, known in (
        ("rope type", config.rope_parameters["rope_type"], "default"),
        ("activation (hidden_act)", config.hidden_act, "silu"),
    ):
        if found != known:
            raise ValueError(f"the language model's {name} is {found!r}; the decoder computes {known!r} only")
    layers: list[Any] = list(backbone.layers)
    for index, layer in enumerate(layers):
        attention = layer.self_attn
        window = getattr(attention, "sliding_window", None)
        if window is not None:
            raise ValueError(
                f"layer {index} attends within a sliding window of {window} tokens; the decoder attends to all, so set "
                "use_sliding_window to false if the weights were trained without it"
            )
        norms = HEAD_NORMS if _has_head_norms(attention) else set()
        for module, known_parts in ((layer, LAYER_PARTS), (attention, ATTENTION_PARTS | norms)):
            unknown = sorted({name for name, _ in module.named_children()} - known_parts)
            if unknown:
                raise ValueError(f"layer {index} has {', '.join(unknown)}, which the decoder does not compute")
        if bool(norms) != _has_head_norms(layers[0].self_attn):
            raise ValueError(f"layers 0 and {index} differ in norms of queries and keys; all must have them, or none")
        missing = [name for name in BIASED_PARTS if getattr(attention, name).bias is None]
        if missing and not norms:
            raise ValueError(f"layer {index} has no bias in {', '.join(missing)}; only biased ones are supported")


def _has_head_norms(attention: Any) -> bool:
    """Whether both queries and keys are normalised, each head by itself."""
    widths = [getattr(attention, name).weight.numel() for name in HEAD_NORMS if hasattr(attention, name)]
    return widths == [attention.head_dim] * len(HEAD_NORMS)


def layer_weights(layers: nn.Module) -> int:
    """Weights of a language model's layers, however they are stored: packed ones are no parameters."""
    modules: list[Any] = list(layers.modules())
    packed = sum(one.in_features * one.out_features for one in modules if hasattr(one, "qweight"))
    return packed + sum(parameter.numel() for parameter in layers.parameters())


def chunk_tokens(parameters: int, device: str) -> int:
    """Tokens of a prefix that a model of that many parameters computes at once; alike on all CPUs and on all GPUs."""
    tokens = int(CHUNK_FLOP[device] / (2 * parameters))
    return min(MOST_CHUNK, max(LEAST_CHUNK, 1 << tokens.bit_length() - 1 if tokens else 0))


def later_columns(columns: Tensor, width: int) -> Tensor:
    """The causal mask of suffixes: which of `width` columns come after column [S, L], as bool [S, L, width]."""
    return torch.arange(width, device=columns.device) > columns[..., None]


class _PrefixAttention:
    """Of the tokens `start` to `end` of a prefix to those before them and themselves."""

    def __init__(self, cache: KeyValues, start: int, end: int) -> None:
        self._cache, self._start, self._end = cache, start, end

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = self._cache.keys[layer, :, : self._end], self._cache.values[layer, :, : self._end]
        keys[:, self._start :] = key
        values[:, self._start :] = value
        return functional.scaled_dot_product_attention(
            query.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=causal_lower_right(self._end - self._start, self._end),
            enable_gqa=query.shape[2] != key.shape[2],
        ).transpose(1, 2)


class SuffixAttention:
    """From the questions' tokens to the prefix that they share and to their own tokens.

    The prefix is read once for all questions, as one matrix product per key head.

    Args:
        prefix_keys, prefix_values: [layers, N, h, d].
        suffixes: keys and values of all questions' own tokens.
        rows: [S] int64, of the questions that run.
        columns: [S, L] int64, where in their rows the tokens go.
        width: T, columns of the suffixes that are read.
        every_row: `rows` are all rows of the suffixes, in their order.
        masked: bool [S, L, T], columns that a token does not attend to; None if it attends to all.
        prefix_masked: bool [N], tokens of the prefix that no token attends to; None if they attend to all.
        observed: collects what the last of the L tokens attends to; None for nothing.
    """

    def __init__(
        self,
        prefix_keys: Tensor,
        prefix_values: Tensor,
        suffixes: KeyValues,
        rows: Tensor,
        columns: Tensor,
        width: int,
        *,
        every_row: bool = False,
        masked: Tensor | None = None,
        prefix_masked: Tensor | None = None,
        observed: ObservedAttention | None = None,
    ) -> None:
        self._prefix_keys, self._prefix_values, self._suffixes = prefix_keys, prefix_values, suffixes
        self._rows, self._columns, self._width, self._every_row = rows, columns, width, every_row
        self._masked, self._prefix_masked, self._observed = masked, prefix_masked, observed

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Mixed values [S, L, q, d] of queries [S, L, q, d]; keeps keys and values [S, L, h, d] of the tokens."""
        keys, values = self._suffixes.keys[layer], self._suffixes.values[layer]
        keys[self._rows[:, None], self._columns] = key
        values[self._rows[:, None], self._columns] = value
        keys, values = keys[:, : self._width], values[:, : self._width]
        if not self._every_row:
            keys, values = keys[self._rows], values[self._rows]
        count, length, heads, width = query.shape
        groups = heads // key.shape[2]
        grouped = query.view(count, length, -1, groups, width)
        # One batch per key head for the prefix, one per question and key head for the suffixes.
        shared = grouped.permute(2, 0, 1, 3, 4).reshape(-1, count * length * groups, width)
        own = grouped.permute(0, 2, 1, 3, 4).reshape(count, -1, length * groups, width)
        # Scaled by the matrix product itself, in float32.
        empty, scale = query.new_empty(1, 1, 1), width**-0.5
        prefix_scores = torch.baddbmm(empty, shared, self._prefix_keys[layer].permute(1, 2, 0), beta=0, alpha=scale)
        if self._prefix_masked is not None:
            prefix_scores = prefix_scores.masked_fill_(self._prefix_masked, -torch.inf)
        suffix_scores = (own @ keys.permute(0, 2, 3, 1)).mul_(scale)
        if self._masked is not None:
            by_token = suffix_scores.view(count, -1, length, groups, suffix_scores.shape[-1])
            by_token.masked_fill_(self._masked[:, None, :, None], -torch.inf)
        prefix_scores = prefix_scores.view(-1, count, length * groups, prefix_scores.shape[2]).transpose(0, 1)
        # In bfloat16 too, softmax adds up in float32.
        weights = torch.cat([prefix_scores, suffix_scores], dim=-1).softmax(-1)
        prefix = weights.shape[-1] - keys.shape[1]
        if self._observed is not None:
            self._observed.add(layer, weights.view(count, -1, length, groups, weights.shape[-1]))
        prefix_weights = weights[..., :prefix].transpose(0, 1).reshape(-1, count * length * groups, prefix)
        mixed = (prefix_weights @ self._prefix_values[layer].transpose(0, 1)).view(-1, count, length * groups, width)
        mixed = mixed.transpose(0, 1) + weights[..., prefix:] @ values.transpose(1, 2)
        return mixed.reshape(count, -1, length, groups, width).transpose(1, 2)


def _rms_norm(norm: Any, hidden: Tensor) -> Tensor:
    return functional.rms_norm(hidden, (hidden.shape[-1],), norm.weight, norm.variance_epsilon)
