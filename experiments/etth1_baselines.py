"""What stands beside our forecaster of ETTh1, on the same rows: fitted on training rows, chosen on
validation rows, scored on test rows.

The forecasters themselves are in series_baselines.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.experiments.etth1_data import Protocol, Table
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

FloatArray = NDArray[np.float64]
Forecaster = Callable[[FloatArray], FloatArray]
Pair = tuple[FloatArray, FloatArray]
DAY, WEEK = 24, 7
LONG, SHORT = 504, 336  # rows that linear maps look back over: three weeks, and two


def baselines(table: Table, protocol: Protocol) -> dict[str, dict[str, Any]]:
    """Every baseline by name: `mse`, `mae` on the test windows, `validation_mse`, `seconds`, and
    what validation chose (`strength` of a ridge). Those that look back over more rows than there
    are before the first training window are left out."""
    found = {}
    for name, (lookback, fitting) in _plans(protocol).items():
        begun = time.perf_counter()
        parts = {p: _pairs(table, protocol, p, lookback) for p in ("train", "validation", "test")}
        forecaster, told = fitting(parts)
        found[name] = {
            **_scored(forecaster, parts["test"]),
            "validation_mse": _scored(forecaster, parts["validation"])["mse"],
            **told,
            "seconds": time.perf_counter() - begun,
        }
    if find_spec("river"):
        found["river: Holt-Winters"] = _river(table, protocol)
    return found


Fitting = Callable[[Mapping[str, Pair]], tuple[Forecaster, dict[str, Any]]]


def _plans(protocol: Protocol) -> dict[str, tuple[int, Fitting]]:
    """Rows to look back over, and how to fit, by name."""
    steps = protocol.horizon

    def plain(forecast: Forecaster) -> Fitting:
        return lambda parts: (forecast, {})

    plans: dict[str, tuple[int, Fitting]] = {
        f"ridge-{LONG}": (LONG, _ridge),
        f"ridge-{SHORT}": (SHORT, _ridge),
        f"decomposed linear-{SHORT}": (SHORT, _decomposed),
        "repeat last": (1, plain(partial(repeat_last, horizon=steps))),
        "last day tiled": (DAY, plain(partial(last_season, horizon=steps, season=DAY))),
        "mean of 7 days by hour": (
            DAY * WEEK,
            plain(partial(seasonal_mean, horizon=steps, season=DAY, seasons=WEEK)),
        ),
    }
    most = protocol.train - steps
    return {name: plan for name, plan in plans.items() if plan[0] <= most}


def _ridge(parts: Mapping[str, Pair]) -> tuple[Forecaster, dict[str, Any]]:
    ridge = fit_ridge(parts["train"], parts["validation"])
    return ridge, {"strength": ridge.strength}


def _decomposed(parts: Mapping[str, Pair]) -> tuple[Forecaster, dict[str, Any]]:
    return fit_decomposed(parts["train"], parts["validation"]), {}


def _pairs(table: Table, protocol: Protocol, part: str, lookback: int) -> Pair:
    origins = protocol.origins(part)
    return windows(table.values, origins[origins >= lookback], lookback, protocol.horizon)


def _scored(forecaster: Forecaster, pair: Pair) -> dict[str, float]:
    forecast = forecaster(pair[0])
    return {"mse": mse(forecast, pair[1]), "mae": mae(forecast, pair[1])}


def _river(table: Table, protocol: Protocol) -> dict[str, Any]:
    """River's online Holt-Winters (level and day, no trend), reading each column hour by hour."""
    from river import time_series

    begun, origins = time.perf_counter(), protocol.origins("test")
    first = protocol.train
    forecasts = []
    for column in table.values.T:
        model = time_series.HoltWinters(alpha=0.1, gamma=0.1, seasonality=DAY)
        for value in column[first : origins[0]].tolist():
            model.learn_one(value)
        for origin in origins.tolist():
            forecasts.append(model.forecast(horizon=protocol.horizon))
            model.learn_one(float(column[origin]))
    cut = np.lib.stride_tricks.sliding_window_view(table.values, protocol.horizon, axis=0)
    truth = cut[origins].transpose(1, 0, 2).reshape(-1, protocol.horizon)
    found = np.array(forecasts)
    return {
        "mse": mse(found, truth),
        "mae": mae(found, truth),
        "seconds": time.perf_counter() - begun,
    }
