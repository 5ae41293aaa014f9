"""Rest after a sleep: never two sleeps of a stream within so many windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_cases import Course, outcome, plan

from adaptive_sleep.contract import observe, policy_flops, reset_policy
from adaptive_sleep.policies import Bandit, Cooldown, Fixed, Periodic, Random
from adaptive_sleep.streams.errors import InputError


@pytest.mark.parametrize(
    ("windows", "expected"), [(0, [3] * 7), (1, [3, 1, 3, 1, 3, 1, 3]), (2, [3, 1, 1, 3, 1, 1, 3])]
)
def test_a_stream_rests_after_each_sleep(windows: int, expected: list[int]) -> None:
    policy = Cooldown(Fixed(3), windows)
    assert [plan(policy, index) for index in range(7)] == expected
    assert plan(policy, 7, "b") == 3


@settings(max_examples=30)
@given(st.integers(1, 5), st.floats(1, 2), st.integers(0, 100))
def test_it_sleeps_as_the_other_does_but_never_within_a_rest(
    windows: int, mean: float, seed: int
) -> None:
    part, policy = Random(mean), Cooldown(Random(mean), windows)
    reset_policy(part, seed)
    reset_policy(policy, seed)
    last = -100
    for index in range(30):
        wished, passes = plan(part, index), plan(policy, index)
        assert passes == (1 if index - last <= windows else wished)
        last = index if passes > 1 else last


def test_a_sleep_that_was_not_run_needs_no_rest() -> None:
    policy = Cooldown(Fixed(3), windows=5)
    assert plan(policy, 0) == 3
    observe(policy, outcome(0, passes=1))
    assert plan(policy, 1) == 3
    observe(policy, outcome(1, passes=3))
    observe(policy, outcome(0, passes=1))  # an older window
    assert plan(policy, 2) == 1


def test_the_other_sees_every_window_and_outcome() -> None:
    alone, inside = Bandit(alpha=0.0), Cooldown(Bandit(alpha=0.0), windows=10**6)
    Course(2).play(inside, 1)
    Course(2).play(alone, 1)
    assert inside.state_dict()["policy"] == alone.state_dict()
    course = Course(4)
    course.play(inside, 30)
    assert not np.array_equal(inside.state_dict()["policy"]["arms"]["sums"], np.zeros((4, 14)))
    assert policy_flops(inside, 2) == policy_flops(alone, 2)


def test_what_is_no_number_of_windows_is_refused() -> None:
    with pytest.raises(InputError, match="windows=-1: expected a whole number from 0 up"):
        Cooldown(Periodic(), -1)
