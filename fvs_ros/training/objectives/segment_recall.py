"""The recall head learns which segments prove an answer, as the simulator knows, from the frozen lower layers.

Shapes: n segments of an episode, t tokens of one, H width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.model.recall import BATCH, Recaller, scores, segment_times
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.objectives.losses import EpisodeLoss


@dataclass(frozen=True)
class SegmentQuestion:
    """A question, and which segments prove its answer.

    Attributes:
        text: as asked.
        family: the group in which it is reported.
        segments: how many there have been.
        now_ns: stamp of the newest frame.
        proof: numbers of the segments that show it.
    """

    text: str
    family: str
    segments: int
    now_ns: int
    proof: tuple[int, ...]


@dataclass(frozen=True)
class SegmentQuestions:
    """The segments of a stream, of each of which one step is drawn, and questions that some of them answer.

    Attributes:
        start_ns, end_ns: stamps of each segment's first and last frame.
        questions: at any moments.
    """

    start_ns: tuple[int, ...]
    end_ns: tuple[int, ...]
    questions: tuple[SegmentQuestion, ...]


def segment_recall_loss(
    recaller: Recaller, episodes: Sequence[tuple[Tensor, PatchGrid, SegmentQuestions]]
) -> EpisodeLoss:
    """The mean cross-entropy of questions' scores against the segments of their proofs, each of these alike.

    A question counts as right where the best segment is one of its proof.

    Args:
        recaller: its head is trained.
        episodes: features of a step of each segment [n, P / 4, D], their grid, and what is asked.
    """
    losses, right, families = [], [], []
    for low, grid, asked in episodes:
        with torch.no_grad():
            states = torch.cat([recaller.segment_states(part, grid) for part in low.split(BATCH)]).float()
            words = [recaller.question_states(question.text).float() for question in asked.questions]
        starts, ends = (torch.tensor(stamps, device=low.device) for stamps in (asked.start_ns, asked.end_ns))
        # The frozen layers may compute in bfloat16. Sums over a question's words, to two decimals, tell no ranks.
        with torch.autocast(low.device.type, enabled=False):
            keys = recaller.head.segment_keys(states)
            for question, states_of_words in zip(asked.questions, words, strict=True):
                seen = slice(0, question.segments)
                times = segment_times(starts[seen], ends[seen], asked.start_ns[0], question.now_ns)
                rated = scores(recaller.head.query(states_of_words), keys[seen], times)
                proof = torch.tensor(question.proof, device=low.device)
                losses.append(-rated.log_softmax(0)[proof].mean())
                right.append((proof == rated.argmax()).any())
                families.append(question.family)
    if not losses:
        raise TrainingError("a patrol has no question that some segments prove; raise questions")
    return EpisodeLoss(
        loss=torch.stack(losses).mean(), right=torch.stack(right), families=tuple(families), tokens=0, shares={}
    )
