"""Sleep after a change of level: once told, from either side, and for so many windows."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_cases import outcome, plan

from adaptive_sleep.contract import observe, policy_state
from adaptive_sleep.policies import Drift
from adaptive_sleep.policies.page_hinkley import PageHinkley
from adaptive_sleep.streams.errors import InputError

STEP = [1.0] * 10 + [2.0] * 10


def passes(policy: Drift, losses: list[float], stream: str = "a") -> list[int]:
    """A stream of scored windows with these losses, told by signals only."""
    return [
        plan(policy, index, stream, scored=5, surprise=loss) for index, loss in enumerate(losses)
    ]


def test_it_sleeps_on_the_window_of_the_alarm_and_those_after_it() -> None:
    policy = Drift(threshold=0.5, delta=0.1, passes=3, windows=4)
    # the first high window lies 0.91 above the mean: 0.81 is over the threshold at once
    assert passes(policy, STEP) == [1] * 10 + [3] * 4 + [1] * 6


def test_a_fall_is_heard_only_in_both_directions() -> None:
    falling = [-x for x in STEP]
    assert set(passes(Drift(0.5, 0.1), falling)) == {1}
    assert passes(Drift(0.5, 0.1, 3, 4, "both"), falling) == [1] * 10 + [3] * 4 + [1] * 6


def test_a_new_alarm_starts_the_count_again() -> None:
    losses = [1.0] * 5 + [3.0] + [6.0] + [6.0] * 6
    policy = Drift(threshold=0.5, delta=0.1, passes=2, windows=4)
    assert passes(policy, losses) == [1] * 5 + [2] * 4 + [1] * 4  # 3, then 6 alone: no mean yet
    losses = [1.0] * 5 + [3.0, 3.0] + [6.0] * 6
    assert passes(policy, losses, "b") == [1] * 5 + [2] * 6 + [1] * 2


def test_a_window_that_was_not_scored_tells_nothing() -> None:
    policy = Drift(threshold=0.5, delta=0.1)
    for index in range(9):
        assert plan(policy, index, scored=0, surprise=0.0 if index else 9.0) == 1
    assert policy_state(policy) == {}


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans(), st.booleans()), max_size=25))
def test_each_scored_window_is_told_once_in_order(
    windows: list[tuple[float, bool, bool]],
) -> None:
    """Whether by the outcome of one window or more before it, by its own signals, or by both."""
    policy, slow, told = Drift(1e9), PageHinkley(1e9, 0.05), 0
    for index, (loss, scored, asked) in enumerate(windows):
        if scored:
            slow.update(loss)
            for before in range(told, index):
                observe(policy, outcome(before, loss=loss, lag=index - before))
            told = index
        if asked or index == 0:  # the first window has no outcome before it to tell its loss
            plan(policy, index, scored=5 * scored, surprise=loss * scored)
    assert all(it["detector"] == slow.state_dict() for it in policy_state(policy).values())
    assert bool(policy_state(policy)) == any(scored for _, scored, _ in windows)


def test_an_outcome_alone_gives_an_alarm_for_the_next_window() -> None:
    """As where a window is asked about answers, and no policy is asked."""
    policy = Drift(threshold=0.5, delta=0.1, passes=3, windows=1)
    for index in range(4):
        observe(policy, outcome(2 * index, loss=1.0))
    observe(policy, outcome(8, loss=3.0))
    assert [plan(policy, index, scored=0) for index in (10, 11)] == [3, 1]


def test_another_detector_decides_alone() -> None:
    policy = Drift(threshold=1e9, passes=2, windows=2, detector="foreign_detectors:Jump")
    assert passes(policy, [1.0, 1.2, 1.1, 2.0, 2.1, 2.2, 2.0]) == [1, 1, 1, 2, 2, 1, 1]
    assert policy_state(policy)["a"]["detector"] == {"values": [2.1, 2.2, 2.0]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": -1.0}, r"threshold=-1\.0: expected a finite number from 0 up"),
        ({"delta": math.nan}, "delta=nan"),
        ({"windows": 0}, "windows=0"),
        ({"passes": 0}, "passes=0"),
        ({"direction": "bth"}, "direction='bth': expected one of up, both, did you mean 'both'"),
        ({"detector": "nothing"}, "detector='nothing'"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Drift(**values)
