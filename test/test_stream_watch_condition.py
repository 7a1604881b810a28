"""When a condition counts as true."""

from __future__ import annotations

from fvs_ros.stream.watch_condition import Change, ConditionState

NOTHING, TRUE, FALSE = Change.NOTHING, Change.BECAME_TRUE, Change.BECAME_FALSE


def changes(state: ConditionState, probabilities: list[float]) -> list[Change]:
    """What looks at seconds 0, 1, 2 and so on find."""
    return [state.look(probability, second) for second, probability in enumerate(probabilities)]


def test_a_probability_that_wavers_about_a_threshold_does_not_flicker() -> None:
    state = ConditionState(0, true_from=0.7, false_below=0.3)
    wavering = [0.69, 0.71, 0.69, 0.71, 0.31, 0.69, 0.29, 0.31, 0.29, 0.69, 0.7]
    assert changes(state, wavering) == [
        NOTHING, TRUE, NOTHING, NOTHING, NOTHING, NOTHING, FALSE, NOTHING, NOTHING, NOTHING, TRUE,
    ]  # fmt: skip
    assert (state.is_true, state.since_ns) == (True, 10)


def test_what_must_hold_is_told_once_it_has_and_is_since_it_was_found() -> None:
    state = ConditionState(2, true_from=0.7, false_below=0.3)
    assert changes(state, [0.9, 0.9, 0.2, 0.9, 0.5]) == [NOTHING] * 5
    assert not state.is_true
    assert state.look(0.5, 5) == TRUE
    assert (state.is_true, state.since_ns) == (True, 3)


def test_what_is_true_at_the_first_look_became_true_then() -> None:
    state = ConditionState(0, true_from=0.5, false_below=0.5)
    assert changes(state, [0.5, 0.5, 0.49]) == [TRUE, NOTHING, FALSE]


def test_what_is_false_at_the_first_look_changes_nothing() -> None:
    state = ConditionState(0, true_from=0.5, false_below=0.5)
    assert state.look(0.1, 7) == NOTHING
    assert (state.looked_at, state.is_true, state.since_ns) == (True, False, 7)
