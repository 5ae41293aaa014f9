"""The triggers of the shelf that the probe `labels` asks: the signal of each, and its threshold.

A threshold is what a share of the validation windows exceed, so that every trigger sleeps about as
often; no label is looked at. cache_pressure is left out: one stream alone closes each window at the
same fill of the cache, so there is nothing to rank.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adaptive_sleep.policies.drift import Drift
from adaptive_sleep.policies.page_hinkley import PageHinkley

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
RANDOM = "random"
TRIGGERS = ("surprise", "uncertainty", "state_change", "event_density", "drift", RANDOM)
PASSES = 4
_THRESHOLDS = {
    "surprise": "threshold",
    "uncertainty": "threshold",
    "state_change": "tolerance",
    "event_density": "threshold",
    "drift": "threshold",
}


def signal(trigger: str, trace: pl.DataFrame) -> FloatArray | None:
    """What the trigger looks at, by window `[n]` of the trace of one stream; None for `random`.

    drift: the sum that its detector keeps of the loss, here never started anew by an alarm.
    """
    if trigger == RANDOM:
        return None
    if trigger != "drift":
        return trace[trigger].to_numpy().astype(np.float64)
    detector = PageHinkley(math.inf, Drift().delta)
    risen = []
    for loss in trace["loss"].to_list():
        if loss is not None:
            detector.update(loss)
        risen.append(detector.rise)
    return np.array(risen)


def spec_of(trigger: str, held: pl.DataFrame, share: float) -> str:
    """The policy's spec, with the threshold that a `share` of the windows `held` exceed; `random`
    sleeps on that share of windows."""
    if trigger == RANDOM:
        return f"random(mean={1 + share})"
    found = signal(trigger, held)
    assert found is not None
    level = float(np.quantile(found, 1 - share))
    passes = "max_passes" if trigger == "state_change" else "passes"
    return f"{trigger}({_THRESHOLDS[trigger]}={level!r}, {passes}={PASSES})"


def rows_of(trace: pl.DataFrame, start: int) -> tuple[IntArray, IntArray]:
    """The first row of every window `[n]` of one stream that was run from row `start`, and the row
    after its last."""
    tokens = trace["tokens"].to_numpy().astype(np.int64)
    ends = start + tokens.cumsum()
    return ends - tokens, ends
