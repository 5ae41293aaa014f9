"""The trace: one row per stream and window of a run, and the table of predictions beside it.

No wall-clock field: the same run gives the same bytes. Where the rows are stored is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import polars as pl

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.wake import Predictions

TraceCause = Literal["length", "gap", "pressure", "end", ""]
ClippedBy = Literal["", "budget", "overload", "halted"]


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One closed window: what was seen of it, what was decided, what it cost.

    `loss` is the mean over `scored` predictions (nats, or normalised pinball), None where there was
    none; signals as in `WindowSignals`; `last_state_change` that of the last pass. `clipped_by`
    says why `passes` is below `planned`: the budget, overload, or a policy that halted. FLOPs by
    phase; times are the window's first and last event, ns UTC. `asked`: how many questions were
    answered, 0 for a window that was slept on; `right`: how many of the `scored` ones among them
    were answered right; both None for a model that answers nothing.
    """

    step: int
    stream: str
    window: int
    cause: TraceCause
    tokens: int
    scored: int
    loss: float | None
    uncertainty: float
    surprise: float
    cache_pressure: float
    state_change: float
    event_density: float
    gap: float
    budget_left: float
    last_state_change: float
    planned: int
    passes: int
    clipped_by: ClippedBy
    wake_flops: int
    sleep_flops: int
    signal_flops: int
    policy_flops: int
    first_time: int
    last_time: int
    right: int | None = None
    asked: int | None = None  # None also in traces that are older than this column


_DTYPES = {
    "int": pl.Int64(),
    "str": pl.String(),
    "float": pl.Float64(),
    "int | None": pl.Int64(),
    "float | None": pl.Float64(),
}
TRACE_SCHEMA: dict[str, pl.DataType] = {
    f.name: _DTYPES.get(str(f.type), pl.String()) for f in fields(TraceRow)
}

# Rows of windows that a policy planned for: all but those of questions. Where a trace is older than
# `asked`, only what was scored tells that something was asked.
PLANNED = pl.col("right").is_null() | (pl.coalesce("asked", "scored") == 0)


def trace_frame(rows: Sequence[TraceRow]) -> pl.DataFrame:
    """Rows as a table with the columns of `TRACE_SCHEMA`, in order."""
    columns = {name: [getattr(r, name) for r in rows] for name in TRACE_SCHEMA}
    return pl.DataFrame(columns, schema=TRACE_SCHEMA)


def prediction_columns(config: ModelConfig) -> tuple[str, ...]:
    """The columns of predictions of a series: NAME, NAME_mean, NAME_q10 ... of each channel.

    Raises InputError where two channels would have a column of one name.
    """
    ends = ("", "_mean", *(f"_q{100 * level:g}" for level in config.quantiles))
    owners: dict[str, str] = {}
    for channel in config.channels:
        for name in (channel + end for end in ends):
            if name in owners:
                raise InputError(
                    f"channels {owners[name]!r} and {channel!r}: a table of predictions would have "
                    f"a column {name!r} of each; rename one, or run without predictions"
                )
            owners[name] = channel
    return tuple(owners)


def predictions_frame(predictions: Predictions, config: ModelConfig) -> pl.DataFrame:
    """Predictions as a table: `stream`, `time`, then per channel NAME, NAME_mean, NAME_q10 ...

    Tokens: `token`, `logprob` (nats), `entropy`. Answers: `target` and its `logprob`, null where
    the target is not known, `answer` and `entropy`. Missing targets are null. Raises InputError as
    `prediction_columns` does.
    """
    times = pl.Series("time", predictions.time).cast(pl.Datetime("ns", "UTC"))
    columns: dict[str, pl.Series] = {
        "stream": pl.Series("stream", predictions.stream.tolist(), dtype=pl.String),
        "time": times,
    }
    if predictions.token is not None:
        for name in ("token", "logprob", "entropy"):
            columns[name] = pl.Series(name, getattr(predictions, name))
        return pl.DataFrame(columns)
    if predictions.answer is not None:
        assert predictions.asked is not None
        known = pl.Series(predictions.asked >= 0)
        columns["target"] = pl.Series("target", predictions.asked).set(~known, None)
        columns["logprob"] = pl.Series("logprob", predictions.logprob).set(~known, None)
        for name in ("answer", "entropy"):
            columns[name] = pl.Series(name, getattr(predictions, name))
        return pl.DataFrame(columns)
    assert predictions.target is not None
    assert predictions.mean is not None
    assert predictions.quantiles is not None
    first = np.stack([predictions.target, predictions.mean], 2)
    names = prediction_columns(config)
    values = np.concatenate([first, predictions.quantiles], 2).reshape(len(times), len(names))
    for i, name in enumerate(names):
        columns[name] = pl.Series(name, np.ascontiguousarray(values[:, i])).fill_nan(None)
    return pl.DataFrame(columns)
