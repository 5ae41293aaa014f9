"""Streams of regimes: what holds where, what is drawn from what, and what is alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adaptive_sleep.experiments.probes.regimes import (
    RegimeRecipe,
    check_regimes,
    drawn_plan,
    shape,
    stream,
)
from adaptive_sleep.streams.errors import InputError

WINDOW = 16
QUIET = RegimeRecipe(noise=0.0)


def _stream(plan: list[int], recipe: RegimeRecipe = QUIET, seed: int = 0) -> np.ndarray:
    found = stream(recipe, plan, WINDOW, shapes_seed=(seed, 1), noise_seed=(seed, 2))
    return found.reshape(len(plan), WINDOW, recipe.channels)


def test_a_regime_is_where_the_plan_says_and_the_same_when_it_returns() -> None:
    found = _stream([4, 4, 9, 7, 4])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[4])
    for other in (2, 3):
        assert np.abs(found[other] - found[0]).max() > 0.5
    assert np.abs(_stream([4], seed=1)[0] - found[0]).max() > 0.5  # each stream has its own


def test_another_plan_changes_only_the_windows_that_it_changes() -> None:
    noisy = RegimeRecipe()
    one, other = _stream([0, 5, 2, 5], noisy), _stream([0, 6, 2, 5], noisy)
    np.testing.assert_array_equal(one[[0, 2, 3]], other[[0, 2, 3]])
    assert np.abs(one[1] - other[1]).max() > 0.5
    assert np.abs(one[3] - one[1]).max() > 1e-3  # the noise is drawn anew


def test_shapes_are_of_one_size_and_differ_in_level_only_if_told() -> None:
    random = np.random.default_rng(0)
    found = np.stack([shape(RegimeRecipe(level=0.0), WINDOW, random) for _ in range(50)])
    np.testing.assert_allclose(found.mean(1), 0.0, atol=1e-9)
    np.testing.assert_allclose(found.std(1), 1.0)
    levels = np.stack([shape(RegimeRecipe(level=2.0), WINDOW, random) for _ in range(400)]).mean(1)
    assert levels.std() == pytest.approx(2.0, rel=0.1)


def test_the_noise_has_its_size_and_drifts() -> None:
    recipe = RegimeRecipe(noise=0.5, drift=0.8)
    plan = list(range(800))
    noise = _stream(plan, recipe) - _stream(plan)
    assert noise.std() == pytest.approx(0.5, rel=0.05)
    assert noise[:, 0].std() == pytest.approx(0.5, rel=0.1)  # from the first event on
    following = np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]
    assert following == pytest.approx(0.8, abs=0.03)


def test_plans_return_to_the_regimes_that_were_there_last() -> None:
    recipe = RegimeRecipe(longest=2, returns=0.5, back=3)
    plan = drawn_plan(recipe, 4000, np.random.default_rng(0))
    starts = plan[np.flatnonzero(np.diff(plan, prepend=-1))]
    seen: list[int] = []
    returned = 0
    for regime in starts.tolist():
        if regime in seen:
            returned += 1
            assert 1 <= seen[::-1].index(regime) <= recipe.back
            seen.remove(regime)
        else:
            assert regime == max(seen, default=-1) + 1
        seen.append(regime)
    assert returned / len(starts) == pytest.approx(0.5, abs=0.05)
    assert len(plan) / len(starts) == pytest.approx(1.5, abs=0.05)  # windows that one lasts
    never = drawn_plan(replace(recipe, returns=0.0), 200, np.random.default_rng(0))
    assert np.all(np.diff(never) >= 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channels", 0), ("waves", 0), ("longest", 0), ("back", 0), ("level", -1.0),
        ("noise", float("inf")), ("drift", 1.0), ("returns", 1.5),
    ],
)  # fmt: skip
def test_streams_that_cannot_be_drawn_are_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"\[regimes\] {field}={value}"):
        check_regimes(RegimeRecipe(**{field: value}))  # type: ignore[arg-type]
