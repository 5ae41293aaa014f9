"""Signals as numbers of like size: increasing, alike in size, each row by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from policy_cases import window

from adaptive_sleep.policies.features import features
from adaptive_sleep.signals import WindowSignals
from adaptive_sleep.testing import make_signals


def feature(name: str, value: float, **others: Any) -> float:
    signals = window(0, **({name: value} | others))
    return float(features(signals)[0, WindowSignals.SCALARS.index(name)])


@pytest.mark.parametrize(
    ("name", "nothing", "much"),
    [
        ("tokens", 0, 1024), ("scored", 0, 1024), ("uncertainty", 0.0, 1.0),
        ("surprise", 0.0, 3.0), ("cache_pressure", 0.0, 1.0), ("state_change", 0.0, 1.0),
        ("event_density", 1.0, 1e9), ("gap", 0.0, 86_400.0), ("wake_flops", 0, 10**12),
        ("pass_flops", 0, 10**12), ("budget_left", 0.0, 1.0), ("max_passes", 1, 10**9),
    ],
)  # fmt: skip
def test_nothing_is_0_and_much_is_1_and_more_is_more(name: str, nothing: Any, much: Any) -> None:
    assert feature(name, nothing) == 0
    np.testing.assert_allclose(feature(name, much), 1, rtol=1e-8)
    between = [feature(name, it) for it in (nothing, type(much)(2), type(much)(8), 10 * much)]
    assert between == sorted(set(between)) or name in ("uncertainty", "budget_left")


def test_a_price_counts_by_the_pass() -> None:
    np.testing.assert_allclose(feature("price", 1e-9, pass_flops=10**9), 1)
    assert feature("price", 1e-9, pass_flops=0) == 0


def test_a_negative_loss_is_the_mirror_of_a_positive_one() -> None:
    assert feature("surprise", -2.0) == -feature("surprise", 2.0)


def test_a_row_does_not_depend_on_the_others() -> None:
    for streams in (1, 2, 7, 33):
        signals = make_signals(streams, streams)
        whole = features(signals)
        assert whole.shape == (streams, len(WindowSignals.SCALARS))
        assert np.abs(whole).max() < 3
        for row in range(streams):
            assert (features(signals.select([row]))[0] == whole[row]).all()
    assert features(make_signals(0, 0)).shape == (0, len(WindowSignals.SCALARS))
