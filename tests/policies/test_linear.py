"""A weighted sum of the signals, read as passes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_sleep.contract import plan_passes, policy_flops
from adaptive_sleep.policies import Linear
from adaptive_sleep.policies.features import features
from adaptive_sleep.signals import WindowSignals
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import make_signals

weights = st.floats(-4, 4)
policies = st.builds(
    Linear, *[weights] * (1 + len(WindowSignals.SCALARS)), passes=st.integers(1, 8)
)


def test_every_scalar_signal_has_a_weight() -> None:
    names = [field.name for field in fields(Linear)]
    assert names == ["bias", *WindowSignals.SCALARS, "passes"]


@given(policies, st.integers(0, 1000))
def test_it_is_the_rounded_sum(policy: Linear, seed: int) -> None:
    signals = make_signals(5, seed, max_passes=[1, 2, 3, 8, 8])
    table = features(signals)
    for row, passes in enumerate(plan_passes(policy, signals)):
        score = policy.bias + sum(
            getattr(policy, name) * table[row, at] for at, name in enumerate(WindowSignals.SCALARS)
        )
        most = min(policy.passes, int(signals.max_passes[row]))
        assert abs(passes - np.clip(1 + score, 1, most)) <= 0.5 + 1e-9


@given(policies, st.sampled_from(WindowSignals.SCALARS), st.integers(0, 1000))
def test_passes_rise_with_a_signal_of_positive_weight(policy: Linear, name: str, seed: int) -> None:
    values: Any = {name: np.arange(1, 7), "pass_flops": [10**6] * 6}
    rows = make_signals(1, seed).select([0] * 6)
    same = {field.name: getattr(rows, field.name) for field in fields(rows)} | values
    if name == "pass_flops":
        same["price"] = np.zeros(6)  # whose feature is the price of a pass
    signals = make_signals(6, 0, **(same | {"max_passes": values.get("max_passes", [8] * 6)}))
    rising = plan_passes(replace(policy, **{name: abs(getattr(policy, name))}), signals)
    assert (np.diff(rising) >= 0).all()


def test_bias_alone_is_a_fixed_number_of_passes() -> None:
    signals = make_signals(4, 0)
    for bias, passes in ((-1, 1), (0, 1), (0.49, 1), (0.5, 2), (1.5, 3), (2, 3), (9, 4)):
        assert set(plan_passes(Linear(bias=bias, surprise=0.0), signals)) == {passes}


def test_it_declares_its_products() -> None:
    assert policy_flops(Linear(), 3) == 3 * 2 * 13


@pytest.mark.parametrize("name", ["bias", "gap", "surprise"])
def test_a_weight_that_is_no_number_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}=inf: expected a finite number$"):
        Linear(**{name: float("inf")})
