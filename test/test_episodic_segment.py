from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from episodic_data import pose, segment

from fvs_ros.episodic.segment import PoseSpread, SegmentFeatures


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end_ns": 0}, "must be in order"),
        ({"keyframe_ns": 0}, "must be in order"),
        ({"end_ns": 2**63}, "fit 64 bits"),
        ({"weight": 0}, "0 grid steps"),
        ({"height": 0}, "64 x 0 pixels"),
        ({"pose": pose(float("nan"))}, "must be finite"),
        ({"spread": PoseSpread(0.0, float("inf"))}, "must be finite"),
    ],
)
def test_an_impossible_segment_is_refused_with_its_numbers(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(segment(1, x=0.0), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mean", "keys", "message"),
    [
        (np.zeros((2, 3), np.float16), np.zeros(3, np.float16), r"\(2, 3\); \[H, W, D\] is needed"),
        (np.zeros((2, 2, 3), np.float32), np.zeros(3, np.float16), "mean features are float32"),
        (np.zeros((2, 2, 3), np.float16), np.zeros(3, np.float64), "keys are float64"),
        (np.full((2, 2, 3), np.inf, np.float16), np.zeros(3, np.float16), "not finite"),
    ],
)
def test_features_of_another_form_are_refused(mean: np.ndarray, keys: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentFeatures("m", mean, keys)
