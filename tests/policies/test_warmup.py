"""A stream's first windows by their own rule, and the other policy from then on."""

from __future__ import annotations

import pytest
from policy_cases import Course, plan

from adaptive_sleep.contract import keep_going, policy_flops, policy_state
from adaptive_sleep.policies import Bandit, Fixed, StateChange, Warmup
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import make_progress


def test_first_windows_of_every_stream() -> None:
    policy = Warmup(Fixed(2), windows=3, passes=5)
    assert [plan(policy, index) for index in range(5)] == [5, 5, 5, 2, 2]
    assert plan(policy, 0, "b", max_passes=3) == 3
    assert [plan(Warmup(Fixed(2)), index) for index in range(5)] == [1, 1, 1, 1, 2]


def test_the_other_has_no_say_in_how_long_a_first_window_sleeps() -> None:
    policy = Warmup(StateChange(tolerance=0.5), windows=3, passes=5)
    progress = make_progress(4, 0, window=[2, 2, 3, 3], state_change=[0.1, 0.9, 0.1, 0.9])
    assert keep_going(policy, progress).tolist() == [True, True, False, True]


def test_the_other_is_asked_from_the_start() -> None:
    policy, course = Warmup(Bandit(), windows=10), Course(4)
    assert set(course.play(policy, 10).values()) == {1}
    assert any(map(any, policy_state(policy)["arms"]["sums"]))
    assert policy_flops(policy, 3) == policy_flops(Bandit(), 3)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="windows=-1"):
        Warmup(Fixed(2), -1)
    with pytest.raises(InputError, match="passes=0"):
        Warmup(Fixed(2), passes=0)
