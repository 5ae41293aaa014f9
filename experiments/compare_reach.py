"""What is answered within and beyond the largest window that the same compute would buy.

A question's reach is how many events its sample has that are read, and those of its own window of
questions: attention that slides over as many sees all that the answers need, whatever lies between
(`streams.tasks.questions`). Windows of questions that were asked before leave nothing there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from adaptive_sleep.experiments.compare_rows import ByReach, SeedRow
from adaptive_sleep.experiments.compare_streams import Source
from adaptive_sleep.experiments.runs import Run
from adaptive_sleep.streams.cutting import TARGET
from adaptive_sleep.streams.tasks.recorded import GAP_SECONDS

WINDOW = "larger_window"  # the baseline whose knob is how many events attention holds


def reaches(where: Source) -> pl.DataFrame:
    """The reach of every event that is asked in a recorded task: `stream`, `first_time`, `reach`.

    Its questions must stand alone: so a sample ends with them, and the next event of the stream
    begins another.
    """
    asked = pl.col(TARGET).is_not_nan() & pl.col(TARGET).is_not_null()
    begins = (pl.col("time").diff() > GAP_SECONDS * 10**9).fill_null(value=False)
    return (
        where.open()
        .scan()
        .select(
            pl.col("stream").cast(pl.String), pl.col("time").cast(pl.Int64), asked.alias("asked")
        )
        .with_columns(
            (pl.col("asked").shift(1, fill_value=False) & ~pl.col("asked"))
            .cum_sum()
            .over("stream", order_by="time")
            .alias("sample")
        )
        .with_columns(begins.cum_sum().over("stream", order_by="time").alias("window"))
        .with_columns(
            (
                (~pl.col("asked")).sum().over("stream", "sample")
                + pl.col("asked").sum().over("stream", "window")
            ).alias("reach")
        )
        .filter("asked")
        .select("stream", pl.col("time").alias("first_time"), pl.col("reach").cast(pl.Int64))
        .collect()
    )


def by_reach(run: Run, known: pl.DataFrame) -> ByReach:
    """For each reach, rising: how many windows of a run were all right, and how many were asked;
    `known` as `reaches` gives it."""
    asked = run.trace().filter(pl.col("right").is_not_null() & (pl.col("scored") > 0)).collect()
    found = (
        asked.join(known, on=["stream", "first_time"], how="inner")
        .group_by("reach")
        .agg((pl.col("right") == pl.col("scored")).sum().alias("right"), pl.len().alias("asked"))
        .sort("reach")
    )
    return tuple(found.select("reach", "right", "asked").iter_rows())


def divided(rows: Mapping[str, SeedRow]) -> dict[str, SeedRow]:
    """The rows of one target with their scores within and beyond the largest window among them;
    as they are where there is none, or nothing is told by reach."""
    held = [
        row.knob for name, row in rows.items() if name.startswith(WINDOW) and row.knob is not None
    ]
    if not held:
        return dict(rows)
    most = max(held)
    return {
        name: row
        if row.by_reach is None
        else replace(
            row,
            largest_window=most,
            score_within=_share([one for one in row.by_reach if one[0] <= most]),
            score_beyond=_share([one for one in row.by_reach if one[0] > most]),
        )
        for name, row in rows.items()
    }


def _share(several: Sequence[tuple[int, int, int]]) -> float | None:
    """Windows all right, of those asked; None where none was."""
    asked = sum(one[2] for one in several)
    return sum(one[1] for one in several) / asked if asked else None
