"""What the network of predicted_gain is shown, and what its outputs stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_gains import WIDTH, constant, drawn

from adaptive_sleep.kernels import Dense
from adaptive_sleep.policies.agent_network import Network
from adaptive_sleep.policies.gain_file import read_gain, save_gain
from adaptive_sleep.policies.gain_network import Gain, inputs, savings
from adaptive_sleep.streams.errors import InputError

losses = st.lists(st.integers(0, 40).map(lambda it: it / 8), min_size=2, max_size=5)


def test_savings_are_the_best_mean_over_further_passes() -> None:
    found = savings(np.array([[3.0, 1.0, 0.5, 0.6], [0.2, 0.8, 0.1, 0.1]]))
    np.testing.assert_allclose(found, [[2.0, 0.5, 0.0], [0.05, 0.7, 0.0]])


@given(losses, st.integers(0, 50).map(lambda it: (it + 0.5) / 64))
def test_going_on_pays_exactly_where_the_saving_is_above_the_price(
    loss: list[float], price: float
) -> None:
    """Of a pass; the price is none at which it makes no difference."""
    found = savings(np.array([loss]))[0]
    for done in range(1, len(loss)):
        cost = np.array(loss) + price * np.arange(len(loss))
        assert (found[done - 1] > price) == (cost[done:].min() < cost[done - 1])


def test_the_network_is_shown_the_last_pass_and_which_it_was() -> None:
    summary = np.arange(6, dtype=np.float32).reshape(3, 2)
    change, passes = np.array([1.0, 0.0, np.e]), np.array([1, 2, 3])
    shown = inputs(summary, passes, change, None, 4)
    assert shown.dtype == np.float32
    least = np.log(1e-6)
    wanted = [[0, 1, 0, 0, 1, 0, 0], [2, 3, least, 0, 0, 1, 0], [4, 5, 1, 0, 0, 0, 1]]
    np.testing.assert_allclose(shown, wanted, rtol=1e-6)
    moved = inputs(summary, passes, change, np.array([np.e, 1.0, np.e**2]), 4)
    np.testing.assert_allclose(moved[:, 3], [1, 0, 2], rtol=1e-6)
    np.testing.assert_array_equal(np.delete(moved, 3, 1), np.delete(shown, 3, 1))


def test_outputs_are_savings_in_units_of_loss() -> None:
    wanted = [5.0, 0.3, 1e-4]
    summary = np.zeros((2, WIDTH), np.float32)
    found = constant(wanted).saving(summary, np.array([1, 3]), np.ones(2))
    np.testing.assert_allclose(found, [wanted] * 2, rtol=1e-5)


@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
def test_what_is_asked_is_what_it_was_shown_when_it_learned(
    monkeypatch: pytest.MonkeyPatch, *, compiled: bool, second: bool
) -> None:
    """Training puts rows together in NumPy, a policy asks in C."""
    if not compiled:
        monkeypatch.setattr(Dense, "serves", lambda: False)
    random, gain = np.random.default_rng(0), drawn(0, most=4, hidden=16)
    summary = random.normal(size=(9, WIDTH)).astype(np.float32)
    passes, (change, moved) = np.arange(9) % 3 + 1, np.exp(random.normal(size=(2, 9)) * 6)
    change[0] = 0.0
    given = summary, passes, change, moved if second else None
    assert (gain.network.compiled is not None) == compiled
    wanted = np.exp(gain.network.in_numpy(inputs(*given, 4)).astype(np.float64).clip(-50, 50))
    assert np.ptp(wanted, axis=0).min() > 0
    np.testing.assert_allclose(gain.saving(*given), wanted, rtol=1e-4)
    found = gain.saving(summary, passes.astype(np.int32), change.astype(np.float32), given[3])
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_predictions_without_bounds_stay_finite() -> None:
    weights = [np.full((3, WIDTH + 5), 1e30)]
    network = Network((weights[0].astype(np.float32),), (np.zeros(3, np.float32),), "relu")
    gain = Gain(network, "0" * 64, 4, WIDTH, 1)
    assert np.isfinite(
        gain.saving(np.ones((1, WIDTH), np.float32), np.array([1]), np.ones(1))
    ).all()


def test_a_file_gives_back_what_was_written(tmp_path: Any) -> None:
    made = drawn(3, most=5, hidden=7, provenance={"by": "hånd"})
    again = read_gain(save_gain(made, tmp_path / "gain.safetensors"))
    for name in ("model_hash", "most", "width", "horizon", "provenance"):
        assert getattr(again, name) == getattr(made, name)
    for mine, theirs in zip(again.network.weights, made.network.weights, strict=True):
        assert mine.tobytes() == theirs.tobytes()
    with pytest.raises(InputError, match="does not exist"):
        save_gain(made, tmp_path / "nowhere" / "gain.safetensors")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"most": 1}, "most=1"),
        ({"most": 5}, "takes 21 numbers and gives 3, expected 22 and 4"),
        ({"width": 8}, "expected 13 and 3 for summaries of width 8"),
        ({"horizon": 0}, "horizon=0"),
    ],
)
def test_what_does_not_fit_together_is_refused(given: dict[str, Any], said: str) -> None:
    values: dict[str, Any] = {"most": 4, "width": WIDTH, "horizon": 1} | given
    with pytest.raises(InputError, match=said):
        Gain(drawn().network, "0" * 64, **values)
