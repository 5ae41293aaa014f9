"""The token bucket: no more is spent than was earned, and the rest is kept up to a cap."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_sleep.contract import (
    keep_going,
    load_policy_state,
    observe,
    plan_passes,
    policy_state,
    reset_policy,
)
from adaptive_sleep.policies import Both, Budgeted, Fixed, StateChange, Surprise
from adaptive_sleep.signals import WindowOutcome, WindowSignals
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import make_progress, make_signals


def window(index: int, tokens: int = 10, cost: int = 100, stream: str = "a") -> WindowSignals:
    return make_signals(
        1, 0, stream=[stream], window=[index], tokens=[tokens], pass_flops=[cost], max_passes=[9]
    )


def plan(policy: Any, index: int, **what: Any) -> int:
    return int(plan_passes(policy, window(index, **what))[0])


def outcome(index: int, passes: int, stream: str = "a") -> WindowOutcome:
    return WindowOutcome([stream], [index], [passes], [0.1], [5], [1])  # type: ignore[arg-type]


def test_a_stream_sleeps_by_what_it_has_earned() -> None:
    policy = Budgeted(Fixed(9), flops_per_event=15.0)  # 150 a window of 10 events; a pass costs 100
    assert [plan(policy, index) for index in range(6)] == [2, 3, 2, 3, 2, 3]


def test_what_is_not_spent_is_kept_up_to_burst_windows_worth() -> None:
    policy = Budgeted(Surprise(threshold=1e9), flops_per_event=20.0, burst=3.0)
    for index in range(10):
        assert plan(policy, index) == 1
    greedy = Budgeted(Fixed(9), flops_per_event=20.0, burst=3.0)
    load_policy_state(greedy, policy_state(policy))
    assert plan(greedy, 10) == 1 + 6  # 3 windows x 10 events x 20 FLOPs / 100
    assert plan(greedy, 11) == 1 + 2


def test_a_window_cut_short_does_not_shrink_the_cap() -> None:
    policy = Budgeted(Surprise(threshold=1e9), flops_per_event=20.0, burst=3.0)
    for index in range(5):
        plan(policy, index)
    plan(policy, 5, tokens=1)
    assert policy_state(policy)["accounts"]["a"]["balance"] == 600.0


def test_streams_have_accounts_of_their_own() -> None:
    policy = Budgeted(Fixed(9), flops_per_event=15.0)
    assert plan(policy, 0, stream="a") == 2
    assert plan(policy, 0, stream="b") == 2
    assert plan(policy, 1, stream="a") == 3


def test_passes_that_were_not_run_are_paid_back_when_it_stops_itself() -> None:
    policy = Budgeted(StateChange(0.05, max_passes=9), flops_per_event=40.0)
    assert plan_passes(
        policy, make_signals(1, 0, tokens=[10], pass_flops=[100], window=[0], state_change=[1.0])
    ).tolist() == [5]
    progress = make_progress(1, 0, window=[0], passes=[2], planned=[5], state_change=[0.01])
    assert keep_going(policy, progress).tolist() == [False]
    assert policy_state(policy)["accounts"]["s0"]["balance"] == 300.0
    observe(policy, outcome(0, passes=2, stream="s0"))  # told again: paid back once
    assert policy_state(policy)["accounts"]["s0"]["balance"] == 300.0


def test_passes_that_somebody_else_cut_are_paid_back_with_the_outcome() -> None:
    policy = Budgeted(Fixed(5), flops_per_event=40.0)
    assert plan(policy, 0) == 5
    observe(policy, outcome(0, passes=2))
    observe(policy, outcome(0, passes=2))
    assert policy_state(policy)["accounts"]["a"]["balance"] == 300.0
    assert plan(policy, 1) == 5
    observe(policy, outcome(0, passes=1))  # an older window: too late
    assert policy_state(policy)["accounts"]["a"]["balance"] == 300.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 50), st.integers(1, 400), st.integers(1, 9), st.booleans()),
        max_size=25,
    ),
    st.floats(0, 100),
    st.floats(1, 8),
)
def test_no_more_is_ever_spent_than_was_earned(
    windows: list[tuple[int, int, int, bool]], rate: float, burst: float
) -> None:
    policy = Budgeted(Fixed(9), flops_per_event=rate, burst=burst)
    earned = spent = 0.0
    for index, (tokens, cost, cut, told) in enumerate(windows):
        planned = plan(policy, index, tokens=tokens, cost=cost)
        passes = min(planned, cut)
        earned += rate * tokens
        assert spent + (planned - 1) * cost <= earned * (1 + 1e-9)
        spent += (passes - 1) * cost
        if told:
            observe(policy, outcome(index, passes))
        # and the rule has teeth: one more pass could not have been paid
        if planned < 9:
            assert policy_state(policy)["accounts"]["a"]["balance"] < cost or told


def test_a_state_goes_through_json_and_is_a_copy() -> None:
    policy = Budgeted(Both(Fixed(9), Budgeted(Fixed(5), 30.0)), flops_per_event=15.0)
    plan(policy, 0)
    before = policy_state(policy)
    text = json.dumps(before)
    after = plan(policy, 1), plan(policy, 2)
    assert before == json.loads(text)
    again = Budgeted(Both(Fixed(9), Budgeted(Fixed(5), 30.0)), flops_per_event=15.0)
    load_policy_state(again, json.loads(text))
    assert (plan(again, 1), plan(again, 2)) == after
    assert policy_state(again) == policy_state(policy)
    reset_policy(again, 0)
    assert policy_state(again)["accounts"] == {}


def test_a_pass_that_costs_nothing_needs_no_budget() -> None:
    assert plan(Budgeted(Fixed(9), flops_per_event=0.0), 0, cost=0) == 9
    assert plan(Budgeted(Fixed(9), flops_per_event=0.0), 0, cost=1) == 1


@pytest.mark.parametrize("rate", [-1.0, math.inf, math.nan, "1e6", None, True])
def test_a_rate_that_is_none_is_refused(rate: Any) -> None:
    with pytest.raises(InputError, match="flops_per_event="):
        Budgeted(Fixed(2), rate)


@pytest.mark.parametrize("burst", [0.5, math.inf, math.nan, "4", None])
def test_a_burst_below_one_window_is_refused(burst: Any) -> None:
    with pytest.raises(InputError, match="burst="):
        Budgeted(Fixed(2), 1.0, burst)


def test_the_batch_is_the_sum_of_its_streams() -> None:
    both, alone = (Budgeted(Fixed(9), flops_per_event=2e6) for _ in range(2))
    for index in range(4):
        signals = make_signals(3, index, window=np.full(3, index))
        together = plan_passes(both, signals)
        apart = [plan_passes(alone, signals.select([row]))[0] for row in range(3)]
        assert together.tolist() == apart
