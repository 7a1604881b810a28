"""Whether answers are as right as they are sure, and whether they say "not seen" where that is so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fvs_ros.evaluation.timed.breakdowns import GradedAnswer

# Bins of equal width, as in Guo et al., "On calibration of modern neural networks", ICML 2017.
BINS = 15
COVERAGE = 0.8


@dataclass(frozen=True)
class ConfidenceScores:
    """How sure the answers under one condition were, and how right. Shares are from 0 to 1.

    Attributes:
        condition: its name.
        answers: with a confidence and a grade.
        calibrated: whether the model calls its confidence calibrated.
        confidence: mean of the answers.
        accuracy: share that is right.
        calibration_error: expected calibration error: the mean distance of confidence from the share that is right,
            over bins of equal width, weighted by their answers.
        coverage: share of the answers that are counted in `covered_accuracy`: the surest.
        covered_accuracy: share of those that is right.
    """

    condition: str
    answers: int
    calibrated: bool
    confidence: float
    accuracy: float
    calibration_error: float
    coverage: float
    covered_accuracy: float


def confidence_scores(graded: Sequence[GradedAnswer], conditions: Sequence[str]) -> list[ConfidenceScores]:
    """The scores of each condition whose answers have a confidence."""
    found = []
    for condition in conditions:
        pairs = [
            (one.row.confidence, one.grade.correct, bool(one.row.calibrated))
            for one in graded
            if one.condition == condition
            and one.row is not None
            and one.row.response is not None
            and one.row.confidence is not None
            and one.grade.correct is not None
        ]
        if not pairs:
            continue
        confidence, correct = (np.array(column, dtype=np.float64) for column in list(zip(*pairs, strict=True))[:2])
        found.append(
            ConfidenceScores(
                condition=condition,
                answers=len(pairs),
                calibrated=all(calibrated for _, _, calibrated in pairs),
                confidence=float(confidence.mean()),
                accuracy=float(correct.mean()),
                calibration_error=calibration_error(confidence, correct),
                coverage=COVERAGE,
                covered_accuracy=covered_accuracy(confidence, correct),
            )
        )
    return found


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The expected calibration error of confidences [n] and grades [n], both from 0 to 1."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.abs(np.bincount(bins, correct - confidence, BINS))
    return float(gaps.sum() / len(confidence))


def covered_accuracy(confidence: np.ndarray, correct: np.ndarray, coverage: float = COVERAGE) -> float:
    """The mean grade of the surest answers; equally sure ones in the order in which they come."""
    count = max(1, round(coverage * len(confidence)))
    return float(correct[np.argsort(-confidence, kind="stable")[:count]].mean())
