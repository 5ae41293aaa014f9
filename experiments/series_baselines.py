"""Forecasters to stand beside ours: ridge, repeat-last, last day, seasonal mean, a small DLinear.

Each maps look-backs `[n, L]` to forecasts `[n, H]`, one series a row, all series alike; what they
are tried on is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adaptive_sleep.streams.errors import InputError

FloatArray = NDArray[np.float64]
LAMBDAS = tuple(10.0**k for k in range(-2, 7))


def windows(
    series: FloatArray, origins: Sequence[int] | NDArray[np.int64], lookback: int, horizon: int
) -> tuple[FloatArray, FloatArray]:
    """Look-backs `[n * C, lookback]` and what followed `[n * C, horizon]` of `series` `[rows, C]`
    at `origins` `[n]`, the first rows to forecast. Raises InputError where rows are lacking."""
    at = np.asarray(origins, dtype=np.int64)
    if len(at) == 0 or at.min() < lookback or at.max() + horizon > len(series):
        raise InputError(
            f"lookback={lookback}, horizon={horizon}: origins from {lookback} to "
            f"{len(series) - horizon} fit {len(series)} rows"
        )
    cut = np.lib.stride_tricks.sliding_window_view(series, lookback + horizon, axis=0)
    found = cut[at - lookback].reshape(-1, lookback + horizon)
    return found[:, :lookback], found[:, lookback:]


@dataclass(frozen=True, eq=False)
class Ridge:
    """A linear map `[H, L]` of the look-back less its last value, to the future less the same."""

    weight: FloatArray
    strength: float  # lambda, as validation chose it

    def __call__(self, lookback: FloatArray) -> FloatArray:
        """`[n, L]` -> `[n, H]`."""
        last = lookback[:, -1:]
        forecast: FloatArray = (lookback - last) @ self.weight.T + last
        return forecast


def fit_ridge(
    train: tuple[FloatArray, FloatArray],
    validation: tuple[FloatArray, FloatArray],
    strengths: Sequence[float] = LAMBDAS,
) -> Ridge:
    """The ridge map in closed form; of `strengths` the one with the least validation error."""
    x, y = (part - train[0][:, -1:] for part in train)
    values, vectors = np.linalg.eigh(x.T @ x)
    rotated = vectors.T @ (x.T @ y)
    found = []
    for strength in strengths:
        weight = (vectors @ (rotated / (values + strength)[:, None])).T
        ridge = Ridge(weight, strength)
        found.append((mse(ridge(validation[0]), validation[1]), ridge))
    return min(found, key=lambda each: each[0])[1]


def repeat_last(lookback: FloatArray, horizon: int) -> FloatArray:
    """The last value, again and again."""
    return np.repeat(lookback[:, -1:], horizon, axis=1)


def last_season(lookback: FloatArray, horizon: int, season: int) -> FloatArray:
    """The last `season` values, again and again."""
    return np.tile(lookback[:, -season:], (1, -(-horizon // season)))[:, :horizon]


def seasonal_mean(lookback: FloatArray, horizon: int, season: int, seasons: int) -> FloatArray:
    """The mean of the last `seasons` seasons, place by place in the season."""
    past = lookback[:, -season * seasons :].reshape(len(lookback), seasons, season)
    return last_season(past.mean(1), horizon, season)


class DecomposedLinear(nn.Module):
    """Two linear maps, of a moving average and of what is left, added up (after DLinear, Zeng et
    al., arXiv 2205.13504; one map for all series)."""

    def __init__(self, lookback: int, horizon: int, kernel: int = 25) -> None:
        super().__init__()
        self.kernel = kernel
        self.trend = nn.Linear(lookback, horizon)
        self.rest = nn.Linear(lookback, horizon)
        for part in (self.trend, self.rest):
            nn.init.constant_(part.weight, 1.0 / lookback)
            nn.init.zeros_(part.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, L]` -> `[n, H]`."""
        side = (self.kernel - 1) // 2
        padded = torch.cat([x[:, :1].expand(-1, side), x, x[:, -1:].expand(-1, side)], 1)
        smooth = nn.functional.avg_pool1d(padded[:, None], self.kernel, 1)[:, 0]
        found: Tensor = self.trend(smooth) + self.rest(x - smooth)
        return found


def fit_decomposed(
    train: tuple[FloatArray, FloatArray],
    validation: tuple[FloatArray, FloatArray],
    *,
    steps: int = 600,
    batch: int = 512,
    rate: float = 3e-3,
    seed: int = 0,
) -> Callable[[FloatArray], FloatArray]:
    """A `DecomposedLinear` trained with Adam, as it stood where validation liked it best."""
    torch.manual_seed(seed)
    x, y = (torch.from_numpy(part).float() for part in train)
    held = torch.from_numpy(validation[0]).float()
    model = DecomposedLinear(x.shape[1], y.shape[1])
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    best, kept = float("inf"), {n: t.clone() for n, t in model.state_dict().items()}
    for step in range(1, steps + 1):
        rows = torch.randint(len(x), (batch,))
        optimiser.zero_grad()
        nn.functional.mse_loss(model(x[rows]), y[rows]).backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            with torch.no_grad():
                error = mse(model(held).double().numpy(), validation[1])
            if error < best:
                best, kept = error, {n: t.clone() for n, t in model.state_dict().items()}
    model.load_state_dict(kept)

    def forecast(lookback: FloatArray) -> FloatArray:
        with torch.no_grad():
            found: FloatArray = model(torch.from_numpy(lookback).float()).double().numpy()
        return found

    return forecast


def mse(forecast: FloatArray, truth: FloatArray) -> float:
    """Mean squared error over rows and steps."""
    return float(np.mean(np.square(forecast - truth)))


def mae(forecast: FloatArray, truth: FloatArray) -> float:
    """Mean absolute error over rows and steps."""
    return float(np.mean(np.abs(forecast - truth)))
