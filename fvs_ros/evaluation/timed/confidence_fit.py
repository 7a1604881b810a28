"""Calibration of confidence: how many answers of a raw confidence are right, by isotonic regression."""

from __future__ import annotations

import numpy as np

from fvs_ros.evaluation.errors import DataError

# Answers are sorted and counted together, so that no step of the regression rests on a handful of them.
MOST_POINTS, FEWEST_ANSWERS = 20, 40
# Of what is written.
_DIGITS = 6


def fit_calibration(raw: np.ndarray, correct: np.ndarray) -> tuple[list[float], list[float]]:
    """The points of a `model.confidence.Calibration`: raw confidences, and shares of right answers.

    A share counts half an answer more of each kind (Jeffreys' prior): where all of 40 were right, not all will be.

    Args:
        raw: [n], from 0 to 1.
        correct: [n], 1 where the answer is right, else 0.

    Raises:
        ValueError: there are too few answers, or all are equally sure.
        DataError: scipy is missing.
    """
    try:
        from scipy.optimize import isotonic_regression
    except ImportError as error:
        raise DataError(
            "scipy", "", f"is needed to fit a calibration ({error}); pip install 'fvs_ros[eval]'"
        ) from error
    points = min(MOST_POINTS, len(raw) // FEWEST_ANSWERS)
    if points < 2:
        raise ValueError(f"there are {len(raw)} answers; at least {2 * FEWEST_ANSWERS} are needed, so take more seeds")
    groups: dict[float, list[float]] = {}
    for indices in np.array_split(np.argsort(raw, kind="stable"), points):
        groups.setdefault(round(float(raw[indices].mean()), _DIGITS), []).extend(correct[indices])
    if len(groups) < 2:
        raise ValueError(f"all of {len(raw)} answers have a raw confidence of about {next(iter(groups))}")
    counts = np.array([len(answers) for answers in groups.values()])
    shares = np.array([(sum(answers) + 0.5) / (len(answers) + 1) for answers in groups.values()])
    fitted = isotonic_regression(shares, weights=counts).x
    return list(groups), [round(float(share), _DIGITS) for share in fitted]
