"""LinUCB against the regression written out: inverses of sums, from all that was seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_sleep.policies.linucb import LinUCB, bounds_flops, learn_flops


class Slow:
    """Keeps every context and reward, and inverts anew each time."""

    def __init__(self, arms: int, width: int, ridge: float) -> None:
        self.width, self.ridge = width, ridge
        self.seen: list[list[tuple[np.ndarray, float]]] = [[] for _ in range(arms)]

    def bounds(self, x: np.ndarray, alpha: float) -> list[float]:
        found = []
        for arm in self.seen:
            A = self.ridge * np.eye(self.width) + sum(
                (np.outer(z, z) for z, _ in arm), np.zeros(())
            )
            inverse = np.linalg.inv(A)
            theta = inverse @ sum((r * z for z, r in arm), np.zeros(self.width))
            found.append(theta @ x + alpha * math.sqrt(x @ inverse @ x))
        return found


@settings(max_examples=30)
@given(
    st.integers(1, 4),
    st.integers(1, 14),
    st.floats(0.01, 10),
    st.floats(0, 3),
    st.integers(0, 60),
    st.integers(0, 10_000),
)
def test_it_is_the_regression_written_out(
    arms: int, width: int, ridge: float, alpha: float, rewards: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    fast, slow = LinUCB.fresh(arms, width, ridge), Slow(arms, width, ridge)
    for _ in range(rewards):
        arm, x, reward = int(draw.integers(arms)), draw.normal(size=width), float(draw.normal())
        fast.learn(arm, x, reward)
        slow.seen[arm].append((x, reward))
    x = draw.normal(size=width)
    np.testing.assert_allclose(fast.bounds(x, alpha), slow.bounds(x, alpha), rtol=1e-6, atol=1e-8)


def test_it_stays_exact_over_a_long_run_of_contexts_that_hardly_differ() -> None:
    draw = np.random.default_rng(0)
    fast, slow = LinUCB.fresh(1, 6, 1.0), Slow(1, 6, 1.0)
    for _ in range(5000):
        x = np.array([1.0, 1.0, 0.0, 0.5, *(0.01 * draw.random(2))])
        reward = float(x[4] + draw.normal())
        fast.learn(0, x, reward)
        slow.seen[0].append((x, reward))
    np.testing.assert_allclose(fast.bounds(x, 0.5), slow.bounds(x, 0.5), rtol=1e-7)
    assert (fast.inverse[0] == fast.inverse[0].T).all()


def test_its_state_is_exact() -> None:
    draw = np.random.default_rng(0)
    one = LinUCB.fresh(3, 5, 0.3)
    for _ in range(20):
        one.learn(int(draw.integers(3)), draw.normal(size=5), float(draw.normal()))
    other = LinUCB.from_state(one.state_dict())
    x = draw.normal(size=5)
    assert (one.bounds(x, 0.7) == other.bounds(x, 0.7)).all()
    other.learn(0, x, 1.0)  # a copy
    assert (one.bounds(x, 0.7) != other.bounds(x, 0.7)).any()


@pytest.mark.parametrize(("arms", "width"), [(1, 1), (4, 14)])
def test_its_flops_are_those_of_its_products(arms: int, width: int) -> None:
    matrix, vector = 2 * width * width, 2 * width
    assert bounds_flops(arms, width) == arms * (matrix + 2 * vector)
    assert learn_flops(width) == matrix + vector + 2 * width * width
