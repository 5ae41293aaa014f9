"""Passes by lot: the mean asked for, from two neighbours, and nothing but the key decides."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_cases import plan

from adaptive_sleep.contract import plan_passes, reset_policy
from adaptive_sleep.policies import Random
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import make_signals


def draws(policy: Random, stream: str = "a", count: int = 200) -> list[int]:
    signals = make_signals(count, 0, stream=[stream] * count, window=np.arange(count))
    return plan_passes(policy, signals).tolist()


@given(st.floats(1, 4), st.integers(0, 10**6))
def test_it_draws_the_two_neighbours_of_its_mean(mean: float, seed: int) -> None:
    found = draws(Random(mean, seed=seed), count=50)
    assert set(found) <= {math.floor(mean), math.ceil(mean)}


@pytest.mark.parametrize("mean", [1.0, 1.1, 1.5, 2.0, 2.75, 3.9, 4.0])
def test_its_mean_is_the_one_asked_for(mean: float) -> None:
    count = 4000
    found = draws(Random(mean), count=count)
    share = mean - math.floor(mean)
    deviation = math.sqrt(share * (1 - share) / count)
    assert abs(np.mean(found) - mean) <= 4 * deviation


def test_window_stream_and_both_seeds_change_the_draws() -> None:
    one = draws(Random(1.5))
    reset = Random(1.5)
    reset_policy(reset, 1)
    others = [draws(Random(1.5, seed=1)), draws(Random(1.5), "b"), draws(reset), one[1:] + one[:1]]
    for other in others:
        agree = np.mean(np.array(one) == np.array(other))
        assert 0.3 < agree < 0.7
    assert others[0] != others[2]  # seed 1 from one side is not seed 1 from the other


def test_a_key_is_not_its_parts_run_together() -> None:
    policy = Random(1.5)
    ones = [plan(policy, 11, f"s{row}") for row in range(64)]
    tens = [plan(policy, 1, f"s{row}1") for row in range(64)]
    assert ones != tens


def test_fewer_passes_are_planned_where_fewer_are_allowed() -> None:
    assert plan(Random(4.0), 0, max_passes=2) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": 0.5}, "mean=0.5: expected a finite number from 1 to 4"),
        ({"mean": 4.5}, "mean=4.5"),
        ({"mean": math.nan}, "mean=nan"),
        ({"mean": 2.0, "most": 1}, "mean=2.0: expected a finite number from 1 to 1"),
        ({"most": 2.5}, "most=2.5"),
        ({"seed": -1}, "seed=-1: expected a whole number from 0 up"),
    ],
)
def test_what_cannot_be_drawn_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Random(**values)
