"""Testing a forecaster of several patches as it would run: it predicts, then it sees.

Streams, windows and passes are the runtime's, and so is the ledger; here its forecasts are scored
by what the streams bring only afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.contract import PolicyLike
from adaptive_sleep.experiments.etth1_data import Moment
from adaptive_sleep.horizon import Ahead, forecast_ahead
from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime


@dataclass
class Sums:
    """Sums over forecast values, from which `scores` are means."""

    levels: NDArray[np.float64]
    values: int = 0
    squares: float = 0.0
    absolute: float = 0.0
    pinball: float = 0.0
    covered: int = 0

    def add(self, found: Ahead, truth: NDArray[np.float64]) -> None:
        """Score forecasts of one channel against `truth` `[n, A]`."""
        quantiles = found.quantiles[:, :, 0]
        error = truth[..., None] - quantiles
        middle = error[..., int(np.abs(self.levels - 0.5).argmin())]
        self.values += truth.size
        self.squares += float(np.square(middle).sum())
        self.absolute += float(np.abs(middle).sum())
        weighed = np.maximum(self.levels * error, (self.levels - 1) * error)
        self.pinball += 2 * float(weighed.mean(-1).sum())
        inside = (truth >= quantiles[..., 0]) & (truth <= quantiles[..., -1])
        self.covered += int(inside.sum())

    def scores(self) -> dict[str, float]:
        """`mse` and `mae` of the median, `pinball` (twice the mean over levels), `coverage` by the
        outermost levels."""
        return {
            "mse": self.squares / self.values,
            "mae": self.absolute / self.values,
            "pinball": self.pinball / self.values,
            "coverage": self.covered / self.values,
        }


def score_policy(
    model: Model,
    policy: PolicyLike | str,
    moments: Callable[[], Iterator[Moment]],
) -> dict[str, Any]:
    """Read streams under a policy, forecast at every patch, score what then follows.

    Returns `Sums.scores`, the `windows` scored, and from the ledger `flops_per_event`,
    `sleep_flops_per_event` and `mean_passes`. Raises InputError.
    """
    runtime = Runtime(model, policy)
    sums, windows = Sums(np.array(model.config.quantiles)), 0
    for moment in moments():
        runtime.step(moment.pieces)
        if moment.streams:
            sums.add(forecast_ahead(runtime, moment.streams), moment.truth)
            windows += len(moment.streams)
    ledger = runtime.ledger
    return {
        **sums.scores(),
        "windows": windows,
        "flops_per_event": ledger.flops_per_event,
        "sleep_flops_per_event": ledger.sleep / ledger.events,
        "mean_passes": ledger.passes / max(ledger.windows, 1),
    }
