"""The forecasters that stand beside ours do what their names say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adaptive_sleep.experiments.etth1_baselines import baselines
from adaptive_sleep.experiments.etth1_data import Protocol, Table, read_table
from adaptive_sleep.experiments.series_baselines import (
    fit_decomposed,
    fit_ridge,
    last_season,
    mae,
    mse,
    repeat_last,
    seasonal_mean,
    windows,
)
from adaptive_sleep.streams.errors import InputError


def walk(rows: int = 600, columns: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, columns)).cumsum(0)


def test_windows_are_cut_around_their_origin() -> None:
    series = np.arange(40.0).reshape(20, 2)
    past, future = windows(series, [3, 16], 3, 4)
    assert past.tolist() == [[0, 2, 4], [1, 3, 5], [26, 28, 30], [27, 29, 31]]
    assert future.tolist()[0] == [6, 8, 10, 12]
    assert future.tolist()[3] == [33, 35, 37, 39]
    for origin in (2, 17):
        with pytest.raises(InputError, match="origins from 3 to 16 fit 20 rows"):
            windows(series, [origin], 3, 4)


def test_the_plain_ones() -> None:
    past = np.array([[9.0, 1, 2, 3, 5, 6, 7]])
    assert repeat_last(past, 3).tolist() == [[7, 7, 7]]
    assert last_season(past, 5, 3).tolist() == [[5, 6, 7, 5, 6]]
    assert seasonal_mean(past, 4, 3, 2).tolist() == [[3, 4, 5, 3]]
    assert mse(past, past + 2) == 4
    assert mae(past, past - 3) == 3


def test_ridge_is_the_least_squares_solution_that_validation_likes_best() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(4, 6))
    past = random.normal(size=(300, 6)) + 50.0
    future = (past - past[:, -1:]) @ weight.T + past[:, -1:]
    noisy = future + random.normal(size=future.shape)
    ridge = fit_ridge((past[:200], future[:200]), (past[200:], future[200:]))
    np.testing.assert_allclose(ridge(past), future, atol=1e-3)
    found = [
        fit_ridge((past[:9], noisy[:9]), (past[200:], future[200:]), [strength])
        for strength in (1e-2, 1e1, 1e6)
    ]
    errors = [mse(each(past[200:]), future[200:]) for each in found]
    best = fit_ridge((past[:9], noisy[:9]), (past[200:], future[200:]), [1e-2, 1e1, 1e6])
    assert mse(best(past[200:]), future[200:]) == min(errors)
    shifted, plain = best(past + 7.0), best(past)
    np.testing.assert_allclose(shifted, plain + 7.0)


def test_ridge_weights_are_those_of_the_normal_equations() -> None:
    series = walk()
    past, future = windows(series, range(12, 500), 12, 5)
    ridge = fit_ridge((past, future), (past, future), [3.0])
    x, y = past - past[:, -1:], future - past[:, -1:]
    wanted = np.linalg.solve(x.T @ x + 3.0 * np.eye(12), x.T @ y).T
    np.testing.assert_allclose(ridge.weight, wanted, atol=1e-9)


def test_the_decomposed_linear_model_learns_a_season() -> None:
    rows = np.arange(500)[:, None]
    series = np.sin(rows / 12 * 2 * np.pi) + 0.01 * rows
    train, held = (windows(series, part, 36, 12) for part in (range(36, 300), range(300, 480)))
    forecast = fit_decomposed(train, held, steps=200, batch=64)
    assert mse(forecast(held[0]), held[1]) < 0.1 * mse(repeat_last(held[0], 12), held[1])


def test_baselines_stand_on_the_same_rows() -> None:
    protocol = Protocol(train=300, validation=400, test=500, horizon=10)
    found = baselines(Table(walk(500), ("a", "b"), ""), protocol)
    assert "ridge-504" not in found
    past, future = windows(walk(500), protocol.origins("test"), 1, 10)
    assert found["repeat last"]["mse"] == mse(repeat_last(past, 10), future)
    for row in found.values():
        assert row["seconds"] >= 0
        assert row["mae"] ** 2 <= row["mse"]


def test_the_published_figures_of_the_plain_ones(real: Callable[[str], Path]) -> None:
    table = read_table(real("ett/ETTh1.csv"), Protocol())
    past, future = windows(table.values, Protocol().origins("test"), 168, 96)
    for forecast, wanted in (
        (repeat_last(past, 96), (1.294, 0.713)),
        (last_season(past, 96, 24), (0.512, 0.433)),
        (seasonal_mean(past, 96, 24, 7), (0.400, 0.400)),
    ):
        assert (round(mse(forecast, future), 3), round(mae(forecast, future), 3)) == wanted
