"""Passes over time: how many a policy made at each place of its streams, by a comparison's traces.

Only rows whose passes vary are of interest: those of policies, of the oracle and the look-up table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from adaptive_sleep.experiments.controls import slept_windows
from adaptive_sleep.experiments.report_comparison_data import Found, Result
from adaptive_sleep.experiments.reproduce import interval
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.streams.errors import AdaptiveSleepError

PLACES = 48  # points of a line at most
KINDS = ("policy", "table", "oracle")
OTHER_ORACLE = "oracle-optimistic"  # beside the oracle by halves: one of them is enough here
STREAMS = ("test", "switch")  # folders of a seed: the test, and the same with its mix switched


def passes_over_time(found: Found) -> tuple[pl.DataFrame | None, str]:
    """Mean passes by place in the stream, and None with the reason where there are no traces.

    Columns: `streams` (one of STREAMS), `row`, `place` (windows that could be slept on before it,
    in the mean of its span), `passes` (mean over seeds), `low`, `high` (the 95 % t-interval over
    seeds, null for one seed), `windows`. Beside a frame stands which rows it lacks.
    """
    result, folder = found.result, found.folder
    if folder is None:
        return None, (
            "The traces of this comparison are not beside its result, so its passes over time are "
            "not drawn."
        )
    rows = [row.name for row in result.others if row.kind in KINDS and row.name != OTHER_ORACLE]
    parts, missing = [], []
    for streams in STREAMS:
        if streams == STREAMS[0] or streams in result.changes:
            for row in rows:
                part = _row(result, folder, streams, row)
                if part is None:
                    missing.append(row if streams == STREAMS[0] else f"{row} ({streams})")
                else:
                    parts.append(part)
    lacking = f"Without a whole trace, so not drawn: {', '.join(missing)}." if missing else ""
    return (pl.concat(parts), lacking) if parts else (None, lacking)


def _row(result: Result, folder: Path, streams: str, row: str) -> pl.DataFrame | None:
    """One row over all seeds; None where a seed lacks its trace."""
    seeds = []
    for seed in result.seeds:
        trace = _trace(folder / f"seed-{seed}" / streams / row, result.model_hashes.get(seed, ""))
        if trace is None:
            return None
        seeds.append(trace.with_columns(pl.lit(seed).alias("seed")))
    placed = pl.concat(seeds)
    places = 1 + int(placed["place"].max() or 0)  # type: ignore[arg-type]
    span = -(-places // PLACES)
    by_seed = placed.group_by(pl.col("place") // span, "seed").agg(
        pl.col("place").mean().alias("at"), pl.col("passes").mean(), pl.len().alias("windows")
    )
    return _over_seeds(by_seed).select(pl.lit(streams).alias("streams"), pl.lit(row).alias("row"),
        "place", "passes", "low", "high", "windows")  # fmt: skip


def _trace(path: Path, model: str) -> pl.DataFrame | None:
    """The windows of a run that a policy planned for, with their place in their stream; None where
    it is not there, not finished, or of another model.

    Where every stream has but one such window, the place is that among all of them.
    """
    try:
        run = open_run(path)
    except AdaptiveSleepError:
        return None
    if run.summary is None or run.manifest.model.hash != model:
        return None
    slept = slept_windows(run.trace()).select("stream", "window", "passes", "first_time").collect()
    if slept.is_empty():
        return None
    ordered = slept.sort("first_time", "stream", "window")
    alone = len(ordered) == ordered["stream"].n_unique()
    place = pl.int_range(pl.len()) if alone else pl.int_range(pl.len()).over("stream")
    return ordered.select(place.alias("place"), "passes")


def _over_seeds(by_seed: pl.DataFrame) -> pl.DataFrame:
    """Means over seeds at every place that all of them have, with intervals."""
    count = by_seed["seed"].n_unique()
    held = (
        by_seed.group_by("place")
        .agg(pl.col("at").mean(), pl.col("passes"), pl.col("windows").sum())
        .filter(pl.col("passes").list.len() == count)
        .sort("place")
    )
    ends = [interval(values) or (None, None) for values in held["passes"].to_list()]
    return held.select(
        pl.col("at").alias("place"),
        pl.col("passes").list.mean(),
        pl.Series("low", [low for low, _ in ends], dtype=pl.Float64),
        pl.Series("high", [high for _, high in ends], dtype=pl.Float64),
        "windows",
    )


def drawn_streams(frame: pl.DataFrame) -> Sequence[str]:
    """Which of STREAMS a frame is of, in their order."""
    held = set(frame["streams"].unique())
    return [name for name in STREAMS if name in held]
