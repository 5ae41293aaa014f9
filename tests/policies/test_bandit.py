"""A bandit over passes: what it is rewarded for, by whom, and what it forgets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from policy_cases import STREAMS, Course, outcome, plan, window

from adaptive_sleep.contract import observe, plan_passes, policy_flops, policy_state
from adaptive_sleep.policies import Bandit
from adaptive_sleep.policies.features import features
from adaptive_sleep.signals import WindowOutcome, WindowSignals
from adaptive_sleep.streams.errors import InputError


class Slow:
    """The same policy, from everything it has seen and np.linalg.inv."""

    def __init__(self, passes: int, alpha: float, price: float, ridge: float) -> None:
        self.passes, self.alpha, self.price, self.ridge = passes, alpha, price, ridge
        self.rows: dict[tuple[str, int], tuple[np.ndarray, float]] = {}
        self.seen: list[tuple[int, np.ndarray, float]] = []

    def plan(self, signals: WindowSignals) -> np.ndarray:
        answer = []
        for row, stream in enumerate(signals.stream):
            x = np.append(1.0, features(signals.select([row]))[0])
            per_flop = self.price / 1e9 + signals.price[row]
            self.rows[stream, int(signals.window[row])] = x, per_flop * signals.pass_flops[row]
            bounds = []
            for arm in range(1, min(self.passes, int(signals.max_passes[row])) + 1):
                own = [(z, reward) for passes, z, reward in self.seen if passes == arm]
                A = self.ridge * np.eye(len(x)) + sum((np.outer(z, z) for z, _ in own), 0 * x)
                b = sum((reward * z for z, reward in own), 0 * x)
                inverse = np.linalg.inv(A)
                bounds.append(inverse @ b @ x + self.alpha * math.sqrt(x @ inverse @ x))
            answer.append(1 + int(np.argmax(np.round(bounds, 9))))  # arms of equal bounds: shortest
        return np.array(answer)

    def observe(self, outcome: WindowOutcome) -> None:
        for stream, at, passes, loss in zip(
            outcome.stream, outcome.window, outcome.passes, outcome.loss, strict=True
        ):
            x, cost = self.rows[stream, int(at)]
            self.seen.append((int(passes), x, -float(loss) - (int(passes) - 1) * cost))


@pytest.mark.parametrize(
    "values",
    [
        {"passes": 4, "alpha": 0.5, "price": 0.0, "ridge": 1.0},
        {"passes": 6, "alpha": 2.0, "price": 3.0, "ridge": 0.1},
        {"passes": 2, "alpha": 0.0, "price": 0.5, "ridge": 5.0},
    ],
)
def test_it_plans_what_the_regression_written_out_plans(values: dict[str, Any]) -> None:
    fast = Course(3).play(Bandit(**values), 40)
    assert fast == Course(3).play(Slow(**values), 40)
    assert len(set(fast.values())) > 1


def rewards(policy: Bandit) -> np.ndarray:
    """What each arm's rewards add up to: the sum that goes with the constant 1."""
    return np.array(policy_state(policy)["arms"]["sums"])[:, 0]


def test_the_reward_is_the_loss_and_the_price_of_the_sleep() -> None:
    policy = Bandit(passes=3, price=2.0)
    plan(policy, 0, pass_flops=10**8, price=1e-9)
    observe(policy, outcome(0, passes=3, loss=0.5))
    np.testing.assert_allclose(rewards(policy), [0, 0, -0.5 - 2 * 0.1 * (2 + 1)])


def test_the_passes_that_were_run_learn_not_those_planned() -> None:
    policy = Bandit(passes=3)
    planned = plan(policy, 0)
    observe(policy, outcome(0, passes=planned % 3 + 1, loss=0.5))
    assert np.flatnonzero(rewards(policy)).tolist() == [planned % 3]


def test_what_it_was_not_asked_about_teaches_nothing() -> None:
    policy = Bandit(passes=3)
    fresh = policy_state(policy)
    observe(policy, outcome(0, passes=2))  # a window of questions
    assert policy_state(policy) == fresh
    plan(policy, 1)
    observe(policy, outcome(1, passes=4))  # an arm that it has not
    assert policy_state(policy) == fresh
    plan(policy, 2)
    for _ in range(2):  # told again: learnt once
        observe(policy, outcome(2, passes=2))
    np.testing.assert_allclose(rewards(policy), [0, -0.1, 0])


def test_without_scored_windows_it_never_learns_and_drops_the_oldest() -> None:
    policy = Bandit(remember=5)
    fresh = policy_state(policy)
    for index in range(12):
        plan(policy, index, scored=0)
    state = policy_state(policy)
    assert state["arms"] == fresh["arms"]
    assert [row[:2] for row in state["waiting"]] == [["a", it] for it in range(7, 12)]
    assert state["dropped"] == 7
    observe(policy, outcome(6, passes=2))
    assert policy_state(policy) == state


def test_it_finds_the_arm_that_pays_in_each_context() -> None:
    """Sleep helps surprising windows only, and costs something everywhere."""
    policy, draw, late = Bandit(passes=3), np.random.default_rng(0), []
    for index in range(300):
        hard = bool(draw.integers(2))
        passes = plan(policy, index, surprise=3.0 if hard else 0.1, scored=9)
        loss = (1.0 - 0.4 * (passes - 1) if hard else 0.2) + 0.2 * (passes - 1)
        observe(policy, outcome(index, passes=passes, loss=loss + 0.05 * draw.normal()))
        if index >= 200:
            late.append((hard, passes))
    assert np.mean([passes == 3 for hard, passes in late if hard]) > 0.9
    assert np.mean([passes == 1 for hard, passes in late if not hard]) > 0.9


def test_streams_teach_each_other() -> None:
    policy = Bandit(passes=2, alpha=0.0)
    assert [plan(policy, 0, name) for name in STREAMS] == [1] * 4  # nothing known: the shortest
    observe(policy, outcome(0, passes=1, loss=1.0, stream="ant"))
    assert plan_passes(policy, window(1, "dog")).tolist() == [2]


def test_it_declares_its_products() -> None:
    assert policy_flops(Bandit(passes=3), 5) == 5 * policy_flops(Bandit(passes=3), 1) > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": -0.1}, r"alpha=-0\.1"),
        ({"price": math.inf}, "price=inf"),
        ({"ridge": 0.0}, r"ridge=0\.0"),
        ({"remember": 0}, "remember=0: expected a whole number from 1 up"),
        ({"passes": 1.5}, r"passes=1\.5"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Bandit(**values)
