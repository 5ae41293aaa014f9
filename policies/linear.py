"""A weighted sum of all scalar signals, read as passes: the smallest policy that can be tuned.

The fixed maps that make the signals comparable are in `features`; it does not learn by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from adaptive_sleep.contract import Range, policy
from adaptive_sleep.policies.checks import number
from adaptive_sleep.policies.features import features
from adaptive_sleep.policies.threshold import at_least_one
from adaptive_sleep.signals import FloatArray, IntArray, WindowSignals

Weight = Annotated[float, Range(-4.0, 4.0)]


@policy("linear")
@dataclass(frozen=True)
class Linear:
    """Sleep by a weighted sum of the signals: the sum is the number of sleep passes, rounded.

    score = bias + sum over signals of weight x `features` (about 0 to 1 each), in sleep passes;
    passes = 1 + score rounded (halves up) within 0..`passes` - 1. A weight of 1 so means: much of
    this signal is worth one more pass. Passes never fall when a signal with a positive weight
    rises. Each parameter but `bias` and `passes` is the weight of the signal of that name, also
    `max_passes`: the most that is planned is `passes`. Raises InputError for a weight that is not
    finite.
    """

    bias: Weight = 0.0
    tokens: Weight = 0.0
    scored: Weight = 0.0
    uncertainty: Weight = 0.0
    surprise: Weight = 2.0
    cache_pressure: Weight = 0.0
    state_change: Weight = 0.0
    event_density: Weight = 0.0
    gap: Weight = 0.0
    wake_flops: Weight = 0.0
    pass_flops: Weight = 0.0
    price: Weight = 0.0
    budget_left: Weight = 0.0
    max_passes: Weight = 0.0
    passes: Annotated[int, Range(2, 8)] = 4

    def __post_init__(self) -> None:
        for name in ("bias", *WindowSignals.SCALARS):
            number(name, getattr(self, name))
        at_least_one("passes", self.passes)

    def score(self, signals: WindowSignals) -> FloatArray:
        """Return the weighted sum `[streams]`, in sleep passes, before it is cut and rounded."""
        score = np.full(len(signals), float(self.bias))
        # signal by signal: a matrix product would round differently for other numbers of streams
        for name, column in zip(WindowSignals.SCALARS, features(signals).T, strict=True):
            score += getattr(self, name) * column
        return score

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return 1 pass and the score's worth of sleep passes."""
        sleep = np.floor(np.clip(self.score(signals), 0, self.passes - 1) + 0.5).astype(np.int64)
        return np.minimum(1 + sleep, signals.max_passes)

    def flops(self, streams: int) -> int:
        """Return one multiply-add for each weight and stream."""
        return 2 * len(WindowSignals.SCALARS) * streams
