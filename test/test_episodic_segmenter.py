"""Streams of made-up steps, for each of which it is known where scenes change.

A step takes 2 s, and its frames are 1 s apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fvs_ros.episodic.segmenter import Cut, Segmenter, SegmenterConfig

S = 1_000_000_000
SHAPE = (4, 4, 8)
# As many steps as fit into the 120 s of the longest segment: the last one ends at 119 s.
LONGEST = 60


def scene(seed: int) -> Tensor:
    """A scene that is unrelated to all others: its contrast is about 120, its distance from another about 256."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def noise(steps: int, share: float) -> Tensor:
    """[steps, 4, 4, 8] whose noise is that share of a scene's contrast."""
    values = torch.randn(steps, *SHAPE, generator=torch.Generator().manual_seed(1000))
    return values * share**0.5


def change(share: float) -> Tensor:
    """A change [8] of all patches alike, by that share of the contrast of `scene(0)`, which it leaves as it is."""
    direction = torch.nn.functional.normalize(torch.randn(8, generator=torch.Generator().manual_seed(5)), dim=0)
    contrast = (scene(0) - scene(0).mean((0, 1))).square().sum()
    return (share * contrast / 16).sqrt() * direction


def stays(*lengths: int, first: int = 0) -> list[Tensor]:
    """Stays of so many steps in scenes that differ."""
    return [scene(first + number) for number, length in enumerate(lengths) for _ in range(length)]


def append(segmenter: Segmenter, step: Tensor, number: int, sharpness: float = 1.0) -> Cut | None:
    return segmenter.append(step, 2 * number * S, (2 * number + 1) * S, sharpness)


def segments(
    steps: Sequence[Tensor] | Tensor, config: SegmenterConfig | None = None, sharpness: Sequence[float] = ()
) -> list[Cut]:
    """Cuts of a whole stream, after a look at what all of them have in common."""
    segmenter, cuts = Segmenter(config), []
    for number, step in enumerate(steps):
        cut = append(segmenter, step, number, sharpness[number] if sharpness else 1.0)
        cuts += [] if cut is None else [cut]
    cuts += segmenter.close()
    first = 0
    for cut in cuts:
        assert (cut.start_ns, cut.end_ns) == (2 * first * S, (2 * (first + cut.steps) - 1) * S)
        assert first <= cut.keyframe < first + cut.steps
        assert cut.keyframe_ns == (2 * cut.keyframe + 1) * S
        first += cut.steps
    assert first == len(steps)
    return cuts


def lengths(steps: Sequence[Tensor] | Tensor, config: SegmenterConfig | None = None) -> list[int]:
    return [cut.steps for cut in segments(steps, config)]


def test_each_stay_is_a_segment() -> None:
    found = segments(stays(5, 3, 2, 20, 1, 4))
    assert [cut.steps for cut in found] == [5, 3, 2, 20, 1, 4]
    for number, cut in enumerate(found):
        torch.testing.assert_close(cut.mean, scene(number))


def test_a_scene_that_comes_back_is_a_segment_again() -> None:
    assert lengths([*stays(6, 2), *stays(6), *stays(3, first=9)]) == [6, 2, 6, 3]


@pytest.mark.parametrize("period", [2, 3, 7])
def test_abrupt_alternation_is_cut_at_each_change(period: int) -> None:
    steps = [scene(number // period % 2) for number in range(12 * period)]
    assert lengths(steps) == [period] * 12


def test_every_second_step_alike_is_one_scene_with_glitches() -> None:
    found = segments([scene(number % 2) for number in range(21)])
    assert [cut.steps for cut in found] == [21]
    assert torch.equal(found[0].mean, scene(0))


def test_steps_that_are_all_unlike_are_a_segment_each() -> None:
    assert lengths([*stays(8), *stays(*[1] * 30, first=10)]) == [8, *[1] * 30]
    # From the very first step on, when all that is known of the noise are changes of the scene.
    assert lengths(stays(*[1] * 30)) == [1] * 30


@pytest.mark.parametrize("value", ["scene", "black"])
def test_a_constant_stream_is_cut_at_the_longest_length_alone(value: str) -> None:
    step = scene(0) if value == "scene" else torch.zeros(SHAPE)
    assert lengths([step] * 150) == [LONGEST, LONGEST, 30]
    assert lengths([step] * 150, SegmenterConfig(longest_s=20)) == [10] * 15
    assert lengths([step] * 150, SegmenterConfig(longest_s=19)) == [10] * 15
    assert lengths([step] * 150, SegmenterConfig(longest_s=18.9)) == [9] * 16 + [6]


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.1, 0.2])
def test_noise_does_not_cut_a_stay(share: float) -> None:
    assert lengths(scene(0) + noise(150, share)) == [LONGEST, LONGEST, 30]


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.1, 0.2])
def test_stays_are_told_apart_in_noise(share: float) -> None:
    steps = torch.stack(stays(9, 4, 2, 15, 3))
    assert lengths(steps + noise(33, share)) == [9, 4, 2, 15, 3]


def test_a_noisy_stay_does_not_hide_what_comes_after_it() -> None:
    steps = torch.stack(stays(50, 10))
    steps[:50] += noise(50, 0.2)
    # In quiet surroundings, a change of about 0.15 of the contrast lasts from step 60 on.
    changed = scene(1) + change(0.15)
    assert lengths([*steps, *[changed] * 10]) == [50, 10, 10]


def test_stays_of_two_steps_tell_the_noise() -> None:
    # A change of 0.2 is another scene if neighbours are known to be alike, and might be noise if they are not.
    steps = [*stays(*[2] * 20, first=1), *[scene(0)] * 5, *[scene(0) + change(0.2)] * 5]
    assert lengths(steps) == [*[2] * 20, 5, 5]


def test_a_stay_that_grows_noisier_is_not_cut() -> None:
    # A change of 0.14 would be another scene in quiet surroundings.
    steps = torch.stack(stays(50, 20))
    steps += torch.cat([noise(50, 0.0001), noise(5, 0.08), noise(15, 0.14)])
    assert lengths(steps) == [50, 20]


@pytest.mark.parametrize("noise_factor", [6.0, 20.0])
def test_a_slow_change_is_cut_when_it_is_far_from_the_segments_mean(noise_factor: float) -> None:
    config = SegmenterConfig(noise_factor=noise_factor)
    # With n steps in the segment the next one is (n + 1) / 2 paces off
    # their mean, and n (n + 1) / 4 squared paces once the mean's own error is allowed for.
    pace = change(0.1 / (20.5 * 21.5 / 4))
    pan = [scene(0) + pace * number for number in range(210)]
    assert lengths(pan, config) == [21] * 10
    assert lengths(torch.stack(pan) + noise(210, 0.0001), config) == [21] * 10
    # An hour's pan at a hundredth of the pace.
    slow = [scene(0) + 0.01 * pace * number for number in range(1800)]
    assert lengths(slow, config) == [LONGEST] * 30


def test_a_single_strange_step_is_part_of_the_stay() -> None:
    steps = stays(20)
    for number in (4, 9, 11):
        steps[number] = scene(number)
    found = segments(steps)
    assert [cut.steps for cut in found] == [20]
    assert torch.equal(found[0].mean, scene(0))


def test_two_strange_steps_are_a_segment() -> None:
    assert lengths([*stays(10), scene(7), scene(7), *stays(10)]) == [10, 2, 10]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_cuts_do_not_depend_on_the_scale_of_the_features(scale: float) -> None:
    steps = torch.stack(stays(9, 4, 2, 70, 1, 15, 3))
    steps = scale * (3 + steps + noise(len(steps), 0.05))
    assert lengths(steps) == [9, 4, 2, 60, 10, 1, 15, 3]


def test_a_blank_beginning_does_not_matter() -> None:
    blank = [0.001 * scene(50 + number) for number in range(3)]
    steps = torch.stack(stays(30, 30)) + noise(60, 0.02)
    assert lengths([*blank, *steps])[-2:] == [30, 30]


def test_noise_does_not_cut_a_stay_at_a_blank_wall() -> None:
    # There the noise is all the contrast that a step has.
    steps = torch.stack([*stays(20), *[torch.zeros(SHAPE)] * 20])
    assert lengths(steps + noise(40, 0.02)) == [20, 20]


def test_the_same_stream_gives_the_same_cuts() -> None:
    steps = torch.stack(stays(9, 4, 2, 15, 3)) + noise(33, 0.1)
    one, other = segments(steps), segments(steps)
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left.mean, right.mean)
        assert (left.start_ns, left.steps, left.keyframe) == (right.start_ns, right.steps, right.keyframe)


def test_the_mean_is_that_of_the_steps() -> None:
    steps = torch.stack(stays(9, 4)) + noise(13, 0.05)
    found = segments(steps.to(torch.bfloat16))
    assert [cut.steps for cut in found] == [9, 4]
    for cut, part in zip(found, steps.to(torch.bfloat16).float().split([9, 4]), strict=True):
        assert cut.mean.dtype == torch.float32
        torch.testing.assert_close(cut.mean, part.mean(0))


def test_patches_may_come_in_one_row() -> None:
    assert lengths([step.flatten(0, 1) for step in stays(5, 3)]) == [5, 3]


def test_features_may_be_overwritten_after_a_step() -> None:
    segmenter, storage, cuts = Segmenter(), torch.empty(SHAPE), []
    for number, step in enumerate(stays(5, 1, 1, 4)):
        cut = append(segmenter, storage.copy_(step), number)
        cuts += [] if cut is None else [cut]
    cuts += segmenter.close()
    assert [cut.steps for cut in cuts] == [5, 1, 1, 4]
    assert torch.equal(cuts[1].mean, scene(1))


def test_a_cut_comes_one_step_after_the_change() -> None:
    segmenter = Segmenter()
    came = [append(segmenter, step, number) is not None for number, step in enumerate(stays(4, 3, 3))]
    assert [number for number, cut in enumerate(came) if cut] == [5, 8]


@pytest.mark.parametrize("after", [0, 1])
def test_a_gap_longer_than_a_segment_ends_it_at_once(after: int) -> None:
    segmenter = Segmenter()
    for number in range(5):
        assert append(segmenter, scene(0), number) is None
    cut = append(segmenter, scene(after), 300)
    assert cut is not None
    assert (cut.steps, cut.end_ns) == (5, 9 * S)
    assert [one.start_ns for one in segmenter.close()] == [600 * S]


def test_a_strange_step_where_the_longest_segment_ends() -> None:
    steps = stays(100)
    steps[LONGEST - 1] = scene(8)
    # Whether it is a glitch would be known too late.
    assert lengths(steps) == [LONGEST - 1, 1, 40]
    steps[LONGEST - 1], steps[LONGEST] = scene(0), scene(8)
    assert lengths(steps) == [LONGEST, 1, 39]


def test_the_keyframe_is_the_sharpest_step_near_the_mean() -> None:
    steps = torch.stack(stays(10)) + noise(10, 0.001)
    # Sharpest of all, but one is a glitch and one as far off as a step of the segment can be.
    steps[4] = scene(3)
    steps[7] += change(0.09)
    sharpness = [1.0, 2.0, 6.0, 3.0, 9.0, 5.0, 4.0, 8.0, 1.0, 1.0]
    found = segments(steps, sharpness=sharpness)
    assert [(cut.steps, cut.keyframe) for cut in found] == [(10, 2)]


def test_of_steps_equally_sharp_the_first_stay_candidates() -> None:
    segmenter = Segmenter()
    for number, step in enumerate(stays(10)):
        append(segmenter, step, number)
    assert segmenter.candidates == (0, 1, 2, 3)


def test_a_glitch_is_no_candidate_once_it_is_known_for_one() -> None:
    segmenter = Segmenter()
    for number, step in enumerate([scene(0), scene(0), scene(1)]):
        append(segmenter, step, number, sharpness=9.0)
    assert segmenter.candidates == (0, 1, 2)
    append(segmenter, scene(0), 3)
    assert segmenter.candidates == (0, 1, 3)


def test_where_no_candidate_is_near_the_mean_the_nearest_is_the_keyframe() -> None:
    # Both candidates lie beyond a quarter of the limit of 0.4: the first at 0.16, the seventh at 0.11 of the contrast.
    config = SegmenterConfig(least_change=0.4, most_change=0.4, keyframe_candidates=2)
    steps = [scene(0) + change(0.6) * (number % 2) for number in range(8)]
    steps[6] = scene(0) + 0.08 * change(0.6)
    found = segments(steps, config, sharpness=[9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 5.0, 1.0])
    assert [(cut.steps, cut.keyframe) for cut in found] == [(8, 6)]


@pytest.mark.parametrize("most", [1, 3])
def test_candidates_are_few_and_one_of_them_becomes_the_keyframe(most: int) -> None:
    steps = torch.stack(stays(30, 2, 1, 1, 50, 1, 7, 1)) + noise(93, 0.01)
    sharpness = torch.rand(len(steps), generator=torch.Generator().manual_seed(2)).tolist()
    segmenter, kept = Segmenter(SegmenterConfig(keyframe_candidates=most)), set[int]()
    for number, step in enumerate(steps):
        cut = append(segmenter, step, number, sharpness[number])
        assert cut is None or cut.keyframe in kept
        # None comes back.
        assert set(segmenter.candidates) <= {*kept, number}
        assert len(segmenter.candidates) <= most + 1
        assert list(segmenter.candidates) == sorted(segmenter.candidates)
        kept = set(segmenter.candidates)
    assert {cut.keyframe for cut in segmenter.close()} <= kept
    assert segmenter.candidates == ()


def test_closing_ends_a_waiting_step_too() -> None:
    found = segments([*stays(5), scene(6)])
    assert [cut.steps for cut in found] == [5, 1]
    assert torch.equal(found[1].mean, scene(6))
    assert Segmenter().close() == ()


def test_after_closing_another_stream_begins() -> None:
    segmenter = Segmenter()
    for number, step in enumerate(stays(5, 4)):
        append(segmenter, step, 100 + number)
    assert [cut.keyframe for cut in segmenter.close()] == [5]
    assert segmenter.close() == ()
    append(segmenter, torch.zeros(2, 2, 3), 0)
    (cut,) = segmenter.close()
    assert (cut.start_ns, cut.steps, cut.keyframe) == (0, 1, 9)


@pytest.mark.parametrize(
    ("features", "start_ns", "end_ns", "sharpness", "message"),
    [
        (torch.zeros(4, 4, 7), 10 * S, 11 * S, 1.0, r"\[4, 4, 7\], those of the segment \[4, 4, 8\]"),
        (torch.zeros(8), 10 * S, 11 * S, 1.0, r"float32 \[8\]"),
        (torch.zeros(SHAPE, dtype=torch.int64), 10 * S, 11 * S, 1.0, "int64"),
        (torch.full(SHAPE, torch.nan), 10 * S, 11 * S, 1.0, f"starts at {10 * S} ns are not finite"),
        (torch.full(SHAPE, torch.inf), 10 * S, 11 * S, 1.0, "not finite"),
        (torch.zeros(SHAPE), 10 * S, 11 * S, float("nan"), "sharpness is nan"),
        (torch.zeros(SHAPE), 11 * S, 10 * S, 1.0, f"ends at {10 * S} ns, before it starts at {11 * S} ns"),
        (torch.zeros(SHAPE), 8 * S, 11 * S, 1.0, f"starts at {8 * S} ns, before the last one ended at {9 * S} ns"),
    ],
)
def test_a_step_that_is_refused_changes_nothing(
    features: Tensor, start_ns: int, end_ns: int, sharpness: float, message: str
) -> None:
    segmenter = Segmenter()
    for number, step in enumerate(stays(4, 1)):
        append(segmenter, step, number)
    with pytest.raises(ValueError, match=message):
        segmenter.append(features, start_ns, end_ns, sharpness)
    assert append(segmenter, scene(0), 5, sharpness=2.0) is None
    assert [(cut.steps, cut.keyframe) for cut in segmenter.close()] == [(6, 5)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise_factor", 0.5),
        ("least_change", 0.0),
        ("most_change", 0.05),
        ("most_change", float("nan")),
        ("longest_s", 0.0),
        ("keyframe_candidates", 0),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be from"):
        SegmenterConfig(**{name: value})  # type: ignore[arg-type]
