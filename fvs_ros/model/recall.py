"""Which segments of a long stream a question is about: a small head on the language model's lower layers.

A segment's tokens, behind the prompt's head and alone, go through the lower layers once, when it ends; a question's
do when it is asked. Each word of the question is held against the tokens of every segment (late interaction, as in
ColBERT, Khattab & Zaharia 2020): its best match counts, by a weight that the word itself gives. When the segment was,
as words such as "first", "just now" and "after ten" ask for, counts in the same sum.

Shapes: n segments, t tokens of a segment, q of a question, H width of the language model, d of a key, F of a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.model.backbone import Backbone
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.model.sequence import text_segment

RECALL_FILE = "recall.safetensors"
"""Holds the head, beside a checkpoint's other weights. A checkpoint without it recalls nothing."""
# Layers below the hidden states that are read. Of 8 layers, 4 found more of the proofs than 0, 2, 6 and 8.
DEPTH = 0.5
WIDTH = 64
# Segments whose keys are computed at once.
BATCH = 64
DAY_S, HOURS = 86_400, 24
SECOND_NS = 10**9


@dataclass(frozen=True)
class RecallQuery:
    """A question, ready to be held against segments.

    Attributes:
        words: [q, d] float32, scaled by their weights.
        time: [F] float32, how it counts when a segment was.
    """

    words: Tensor
    time: Tensor


class RecallHead(nn.Module):
    """Turns hidden states into keys of segments and queries of questions.

    Args:
        width: H.
        keys: d.

    Attributes:
        keys: d.
    """

    def __init__(self, width: int, keys: int = WIDTH) -> None:
        super().__init__()
        self.keys = keys
        self.word_norm, self.token_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.word, self.token = nn.Linear(width, keys), nn.Linear(width, keys)
        self.weight, self.time = nn.Linear(width, 1), nn.Linear(width, len(_TIMES) + HOURS)
        nn.init.zeros_(self.time.weight)
        nn.init.zeros_(self.time.bias)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def segment_keys(self, hidden: Tensor) -> Tensor:
        """Keys [n, t, d] of length 1 from hidden states [n, t, H]."""
        return functional.normalize(self.token(self.token_norm(hidden)), dim=-1)

    def query(self, hidden: Tensor) -> RecallQuery:
        """From the hidden states [q, H] of a question's tokens; the last one is taken to know all of it."""
        hidden = self.word_norm(hidden)
        words = functional.normalize(self.word(hidden), dim=-1)
        weights = functional.softplus(self.weight(hidden)) * self.scale.exp()
        return RecallQuery(words * weights, self.time(hidden[-1]))

    def save(self, folder: Path) -> None:
        """Writes it beside a checkpoint's other weights."""
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, folder / RECALL_FILE)

    @classmethod
    def load(cls, folder: Path, width: int, device: torch.device) -> RecallHead | None:
        """The head of a checkpoint, in float32; None where it has none.

        Args:
            folder: of the checkpoint.
            width: H of its language model.
            device: where it is put.

        Raises:
            ValueError: the file cannot be read, or does not fit the language model.
        """
        file = folder / RECALL_FILE
        if not file.exists():
            return None
        try:
            with safe_open(file, "pt") as opened:
                weights = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118
            head = cls(width, weights["word.bias"].shape[0])
            head.load_state_dict(weights)
        except Exception as error:
            raise ValueError(f"{file} is no recall head for a language model of width {width}: {error}") from error
        return head.to(device).eval()


_TIMES = ("age", "age squared", "place", "place squared", "within 10 s", "within a minute", "first twentieth", "always")


def segment_times(start_ns: Tensor, end_ns: Tensor, first_ns: int, now_ns: int) -> Tensor:
    """When segments were, seen from a question: [n, F] float32.

    Args:
        start_ns: [n] int64, stamps of their first frames.
        end_ns: [n] int64, of their last.
        first_ns: of the stream's first frame.
        now_ns: of its newest, when it is asked.
    """
    seconds = (now_ns - end_ns).clamp(min=0).double() / SECOND_NS
    age = seconds.log1p().float()
    place = ((start_ns - first_ns).double() / max(now_ns - first_ns, 1)).float()
    flags = (seconds <= 10, seconds <= 60, place <= 0.05, torch.ones_like(place))
    columns = torch.stack([age, age.square(), place, place.square(), *(flag.float() for flag in flags)], dim=1)
    hours = (start_ns // SECOND_NS % DAY_S) // (DAY_S // HOURS)
    return torch.cat([columns, functional.one_hot(hours, HOURS).float()], dim=1)


def scores(query: RecallQuery, keys: Tensor, times: Tensor) -> Tensor:
    """How much each segment matters to a question, [n] float32; the softmax of them is a probability.

    Args:
        query: the question.
        keys: [n, t, d].
        times: [n, F], see `segment_times`.
    """
    segments, tokens, width = keys.shape
    matches = query.words @ keys.reshape(-1, width).T.to(query.words.dtype)
    return matches.view(-1, segments, tokens).amax(-1).sum(0) + times @ query.time


class Recaller:
    """Computes keys and queries with a model's lower layers and its recall head.

    Args:
        backbone: of the model.
        prompts: its prompt.
        head: its recall head.
    """

    def __init__(self, backbone: Backbone, prompts: PromptBuilder, head: RecallHead) -> None:
        self._backbone = backbone
        self._prompts = prompts
        self.head = head

    def segment_states(self, low: Tensor, grid: PatchGrid) -> Tensor:
        """Hidden states [n, t, H] of segments, each alone behind the prompt's head.

        Args:
            low: [n, P / 4, D], features of the segments.
            grid: patches of their frames.
        """
        backbone = self._backbone
        head = text_segment(backbone, self._prompts.head, 0)
        first, count = head.embeddings.shape[0], low.shape[0]
        visual = backbone.merge(low.flatten(0, 1))
        tokens = visual.embeddings.view(count, grid.csm_tokens, -1)
        columns = grid.width // 4
        places = torch.arange(grid.csm_tokens, device=low.device)
        grid_positions = torch.stack([torch.zeros_like(places), places // columns, places % columns]) + first
        positions = torch.cat([head.positions, grid_positions], 1)[:, None].expand(-1, count, -1)
        embeddings = torch.cat([head.embeddings.expand(count, -1, -1), tokens.to(head.embeddings.dtype)], 1)
        deepstack = visual.deepstack
        if deepstack is not None:
            by_segment = deepstack.view(len(deepstack), count, grid.csm_tokens, -1)
            deepstack = functional.pad(by_segment, (0, 0, first, 0))
        return self._early_states(embeddings, positions, deepstack)[:, first:]

    def question_states(self, question: str) -> Tensor:
        """Hidden states [q, H] of a question, alone behind the prompt's head."""
        prompt = self._prompts.build(question)
        text = text_segment(self._backbone, (*prompt.head, *prompt.suffix), 0)
        return self._early_states(text.embeddings[None], text.positions[:, None])[0, len(prompt.head) :]

    @torch.no_grad()
    def segment_keys(self, low: Tensor, grid: PatchGrid) -> Tensor:
        """Keys [n, t, d] float16 on the CPU; the arguments are those of `segment_states`."""
        low = low.to(self._backbone.device, self._backbone.dtype)
        parts = [self.head.segment_keys(self.segment_states(part, grid).float()) for part in low.split(BATCH)]
        return torch.cat(parts).half().cpu()

    def scores(
        self, question: str, keys: Tensor, start_ns: Tensor, end_ns: Tensor, first_ns: int, now_ns: int
    ) -> Tensor:
        """How much each segment matters to a question, [n] float32 on the CPU; see `SegmentRecaller.scores`."""
        return scores(self.query(question), keys, segment_times(start_ns, end_ns, first_ns, now_ns))

    @torch.no_grad()
    def query(self, question: str) -> RecallQuery:
        """A question's query, on the CPU."""
        query = self.head.query(self.question_states(question).float())
        return RecallQuery(query.words.cpu(), query.time.cpu())

    def _early_states(self, embeddings: Tensor, positions: Tensor, deepstack: Tensor | None = None) -> Tensor:
        backbone, mask = self._backbone, None
        if backbone.text_config._attn_implementation == "eager":
            # The others are causal where there is no mask.
            length = embeddings.shape[1]
            mask = embeddings.new_full((length, length), -torch.inf).triu(1)
        layers = list(backbone.layers)[: round(DEPTH * len(backbone.layers))]
        return backbone.through_layers(layers, embeddings, positions, mask, deepstack)
