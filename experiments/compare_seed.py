"""What one trained seed runs in a comparison: choices on validation, then every row on the test.

What the rows say over seeds is worked out in compare_rows.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from adaptive_sleep.experiments.compare_baselines import market, matched_rows
from adaptive_sleep.experiments.compare_bench import Bench, Tell, asks, forked_flops, point
from adaptive_sleep.experiments.compare_fits import fitted
from adaptive_sleep.experiments.compare_judge import Choice, Judge, Rows, correlations
from adaptive_sleep.experiments.compare_rows import Point
from adaptive_sleep.experiments.compare_streams import (
    Source,
    changed,
    difficulties,
    in_bursts,
    source,
)
from adaptive_sleep.experiments.comparing import Comparison, PolicyEntry
from adaptive_sleep.experiments.runs import Run
from adaptive_sleep.experiments.training_cost import training_of
from adaptive_sleep.streams.tasks.task import Part


@dataclass(frozen=True)
class Found:
    """What a seed found: rows on the test stream, rows by change, correlation of each signal with
    the oracle's passes, windows that were slept on, whether anything is `asked` (the score is the
    share of windows all right, else minus the loss), and what could not be run at the cost of a
    target, with the reason."""

    rows: Rows
    changes: dict[str, Rows]
    signals: dict[str, float | None]
    windows: int
    asked: bool
    unmatched: dict[str, str] = field(default_factory=dict)


def run_seed(
    recipe: Comparison, model: str, folder: Path, seed: int, *, quick: bool, tell: Tell
) -> Found:
    """Do all that is to be done with the model of one seed. Raises InputError."""
    if recipe.baselines:
        training_of(model)  # refused now, not after all else was run
    streams = folder / "streams"

    def bench(part: Part, name: str) -> Bench:
        where = source(recipe, streams, part, seed, quick=quick)
        return Bench(recipe, model, where, folder / name, tell)

    tried = bench("validation", "validation")
    fixed = {n: tried.run(f"fixed-{n}", f"fixed({n})") for n in range(1, recipe.max_passes + 1)}
    known = [point(run) for run in fixed.values()]
    files: dict[str, str] = {"model": model}
    fit_flops = 0.0
    if fits := dict.fromkeys(entry.fit for entry in recipe.policies if entry.fit):
        training = bench("train", "fit")
        read = training.folder / "forks"
        fit_flops = forked_flops(training.forks(read.name), read)  # all fits read the same
        files |= {fit: str(fitted(fit, read, training.folder, recipe.seed)) for fit in fits}
    choices = [choose(tried, entry, files, known[-1][1]) for entry in recipe.policies]
    table = look_up(tried.source, fixed, recipe.within) if recipe.task and recipe.task.table else {}
    test = bench("test", "test")
    forks, judge = test.forks("forks").table, Judge(choices, known, table)
    rows = judge.rows(test, forks, recipe.control_seeds[: 1 if quick else None])
    changes = {} if quick else dict(_changes(recipe, test, streams, seed, judge))
    unmatched: dict[str, str] = {}
    if recipe.baselines:
        here = market(tried, test, seed, quick=quick, fitted=fit_flops)
        matched, unmatched = matched_rows(here, files)
        rows |= matched
    return Found(
        rows,
        changes,
        correlations(forks, recipe.tolerance),
        forks.select("stream", "window").n_unique(),
        asks(fixed[1]),
        unmatched,
    )


def _changes(
    recipe: Comparison, test: Bench, streams: Path, seed: int, judge: Judge
) -> Iterator[tuple[str, Rows]]:
    """The same on other mixes and at other prices, nothing chosen again, with one control."""
    changes, control = recipe.changes, recipe.control_seeds[:1]
    mixes: dict[str, tuple[float, ...]] = {
        f"mix-{name}": (power,) for name, power in changes.mixes.items()
    }
    if changes.switch is not None:
        mixes["switch"] = changes.switch
    sources = {name: changed(recipe, streams, seed, name, mix) for name, mix in mixes.items()}
    if changes.bursts is not None:
        sources["bursts"] = in_bursts(recipe, streams, seed)
    for name, where in sources.items():
        bench = replace(test, source=where, folder=test.folder.parent / name)
        yield name, judge.rows(bench, bench.forks("forks").table, control)
    if changes.price is not None:
        for name, times in (("price", 1.0), ("price-doubled", 2.0)):
            price = times * changes.price
            bench = replace(test, price=price, folder=test.folder.parent / name)
            yield name, judge.rows(bench, test.forks("forks").table, control)


def choose(bench: Bench, entry: PolicyEntry, files: Mapping[str, str], aim: float) -> Choice:
    """The cheapest point of a policy's grid whose validation score is at least `aim` - within; if
    there is none, the best score, at the least cost."""
    tried: list[tuple[Point, str]] = []
    for number, values in enumerate(entry.points()):
        spec = entry.written({**values, **files})
        run = bench.run(f"{entry.name}-{number}", spec)
        tried.append((point(run, charged=True), spec))
    near = [one for one in tried if one[0][1] >= aim - bench.recipe.within]
    (_, score), spec = (
        min(near, key=lambda one: one[0][0])
        if near
        else max(tried, key=lambda one: (one[0][1], -one[0][0]))
    )
    return Choice(entry, spec, score, bool(near) if entry.grid else None)


def look_up(where: Source, fixed: Mapping[int, Run], within: float) -> dict[int, int]:
    """The fewest passes for each difficulty whose share of windows all right, on this stream, is
    within `within` of the best of them."""
    labels = difficulties(where)
    shares: dict[int, dict[int, float]] = {}
    for passes, run in fixed.items():
        asked = run.trace().filter(pl.col("right").is_not_null() & (pl.col("scored") > 0)).collect()
        by = (
            asked.join(labels, on=["stream", "first_time"], how="left")
            .group_by("difficulty")
            .agg((pl.col("right") == pl.col("scored")).mean().alias("share"))
        )
        for difficulty, share in by.select("difficulty", "share").iter_rows():
            shares.setdefault(difficulty, {})[passes] = share
    return {
        difficulty: min(n for n, share in by.items() if share >= max(by.values()) - within)
        for difficulty, by in sorted(shares.items())
    }
