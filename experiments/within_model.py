"""How sure a difference between two runs of one trained model is: paired over its streams.

Streams are the units, since windows of one stream hang together; what is found holds of this model
alone (design, section 5: over models a t-interval of their means is taken, in compare_rows.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from adaptive_sleep.experiments.runs import Run

FEWEST = 8  # streams that an interval is taken over
RESAMPLES = 2000


@dataclass(frozen=True)
class Paired:
    """The differences of so many streams: their mean's 95 % BCa bootstrap interval, and the p-value
    of Wilcoxon's signed-rank test; None where streams are too few, or all differ alike."""

    streams: int
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


def scores(run: Run) -> pl.DataFrame:
    """What each stream of a finished run scored, `stream` and `score`: the share of its windows
    answered all right, or minus the mean loss of its predictions."""
    trace = run.trace().filter(pl.col("scored") > 0).collect()
    asked = trace.filter(pl.col("right").is_not_null())
    if len(asked):
        return asked.group_by("stream").agg(
            (pl.col("right") == pl.col("scored")).mean().alias("score")
        )
    loss = (pl.col("loss") * pl.col("scored")).sum() / pl.col("scored").sum()
    return trace.group_by("stream").agg((-loss).alias("score"))


def paired(one: Run, other: Run, seed: int = 0) -> Paired:
    """How `one` differs from `other` over the streams that both have; resampled by `seed`."""
    both = scores(one).join(scores(other), on="stream", suffix="_other").sort("stream")
    return of_differences((both["score"] - both["score_other"]).to_numpy(), seed)


def of_differences(values: NDArray[np.float64], seed: int = 0) -> Paired:
    """What `Paired` says of the differences `values`, one a stream."""
    count = len(values)
    if count < FEWEST or not np.ptp(values) > 0:
        return Paired(count)
    rng = np.random.default_rng(seed)
    ends = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=rng
    ).confidence_interval
    known = math.isfinite(ends.low) and math.isfinite(ends.high)
    p_value = float(stats.wilcoxon(values).pvalue)
    if not known:
        return Paired(count, p_value=p_value)
    return Paired(count, float(ends.low), float(ends.high), p_value)
