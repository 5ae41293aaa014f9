"""Every row of a comparison on one test stream: fixed passes, policies, their controls, oracles.

What was chosen before, on validation, comes from compare_seed.py; nothing is chosen here but by the
oracles, which say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy import stats

from adaptive_sleep.experiments.compare_bench import Bench, point, resident
from adaptive_sleep.experiments.compare_rows import Kind, Point, SeedRow, mixture
from adaptive_sleep.experiments.compare_streams import Source, difficulties
from adaptive_sleep.experiments.comparing import PolicyEntry
from adaptive_sleep.experiments.controls import prescribed, shuffled, slept_windows
from adaptive_sleep.experiments.oracle import Oracle, Regret, oracle, regret
from adaptive_sleep.experiments.runs import Run
from adaptive_sleep.experiments.within_model import paired
from adaptive_sleep.spec import format_spec, resolve

Rows = dict[str, SeedRow]


@dataclass(frozen=True)
class Choice:
    """A policy with its parameters chosen; `within` as in `SeedRow`."""

    entry: PolicyEntry
    policy: str
    score: float
    within: bool | None


@dataclass(frozen=True)
class Judge:
    """What was chosen on validation; `known` are the points of fixed passes there."""

    choices: Sequence[Choice]
    known: Sequence[Point]
    table: Mapping[int, int]

    def rows(self, bench: Bench, forks: pl.DataFrame, controls: Sequence[int]) -> Rows:
        """Every row on a test stream; `forks`: what other passes come to there."""
        most = bench.recipe.max_passes
        fixed = {f"fixed-{n}": bench.run(f"fixed-{n}", f"fixed({n})") for n in range(1, most + 1)}
        scorer = Scorer(bench, self.known, list(fixed.values()), forks)
        found = {
            name: scorer.row([run], "fixed", f"fixed({n})")
            for n, (name, run) in enumerate(fixed.items(), 1)
        }
        for choice in self.choices:
            found |= self._policy(bench, scorer, choice, controls)
        dearest = fixed[f"fixed-{most}"]
        if self.table:
            run = bench.run("table", prescribed(_told(dearest, bench.source, self.table)))
            words = ", ".join(f"{d}: {n}" for d, n in self.table.items())
            row = scorer.row([run], "table", "passes by difficulty", online=False)
            found["table"] = replace(row, policy=f"passes by difficulty {{{words}}}")
        for halves in (True, False) if scorer.halves else (False,):
            name = "oracle" if halves == scorer.halves else "oracle-optimistic"
            best = scorer.oracle(halves=halves)
            run = bench.run(name, prescribed(_filled(dearest, best)))
            words = "one half of the questions" if halves else "all that is scored"
            row = scorer.row([run], "oracle", f"least passes by {words}", online=False)
            found[name] = replace(row, policy=row.written, optimistic=True)
        return found

    def _policy(
        self, bench: Bench, scorer: Scorer, choice: Choice, controls: Sequence[int]
    ) -> Rows:
        """The row of a policy and that of its own passes, shuffled."""
        entry = choice.entry
        run = bench.run(entry.name, choice.policy)
        row = scorer.row([run], "policy", entry.spec, online=entry.online)
        within = paired(run, scorer.dearest, bench.recipe.seed)
        name = f"{entry.name}-shuffled"
        trace = slept_windows(run.trace()).collect()
        runs = [bench.run(f"{name}-{seed}", shuffled(trace, seed)) for seed in controls]
        control = scorer.row(runs, "shuffled", f"{entry.name}, shuffled", online=False)
        row = replace(
            row,
            policy=format_spec(resolve(choice.policy)),
            streams=within.streams,
            streams_low=within.low,
            streams_high=within.high,
            streams_p=within.p_value,
            shuffled_score=control.score,
            validation_score=choice.score,
            within=choice.within,
        )
        control = replace(control, policy=control.written, control_of=entry.name)
        return {entry.name: row, name: control}


class Scorer:
    """Turns runs on one test stream into rows, beside fixed passes and the oracle there."""

    def __init__(
        self, bench: Bench, known: Sequence[Point], fixed: Sequence[Run], forks: pl.DataFrame
    ) -> None:
        self._known, self._forks = known, forks
        self._points, self.dearest = [point(run) for run in fixed], fixed[-1]
        self._terms = {"tolerance": bench.recipe.tolerance, "price": bench.price}
        self.halves = has_halves(forks)

    def oracle(self, *, halves: bool) -> Oracle:
        """The least passes, chosen on one half of the questions, or on all that is scored."""
        return oracle(self._forks, halves=halves, **self._terms)

    def row(self, runs: Sequence[Run], kind: Kind, written: str, *, online: bool = True) -> SeedRow:
        """One row out of one run, or the means of several."""
        points = [point(run, charged=kind == "policy") for run in runs]
        flops, score = (float(np.mean(part)) for part in zip(*points, strict=True))
        lost, seen = (
            [regret(self._forks, run.path, halves=halves, **self._terms) for run in runs]
            for halves in (self.halves, False)
        )
        summaries = [run.summary for run in runs if run.summary is not None]
        return SeedRow(
            kind=kind,
            policy=runs[0].manifest.policy,
            written=written,
            online=online,
            score=score,
            mean_passes=float(np.mean([one.mean_passes for one in summaries])),
            sleep_flops_per_event=flops,
            flops_per_event=float(np.mean([one.flops_per_event for one in summaries])),
            resident_bytes=max(resident(run) for run in runs),
            regret=_in_score(lost),
            regret_optimistic=_in_score(seen),
            regret_loss=float(np.mean([one.loss for one in lost])),
            extra_passes=float(np.mean([one.extra_passes for one in lost])),
            fixed_score=self._points[-1][1],
            fixed_sleep=self._points[-1][0],
            hull_score=None if kind == "fixed" else mixture(self._known, self._points, flops),
        )


def _in_score(lost: Sequence[Regret]) -> float:
    """Mean regret in the unit of the score."""
    return float(np.mean([one.loss if one.all_right is None else one.all_right for one in lost]))


def _told(run: Run, where: Source, table: Mapping[int, int]) -> pl.DataFrame:
    """The passes of a look-up table for the windows that a run slept on."""
    slept = slept_windows(run.trace()).collect()
    known = slept.join(difficulties(where), on=["stream", "first_time"], how="left")
    most = max(table.values())  # of a difficulty that validation did not show
    passes = known["difficulty"].replace_strict(dict(table), default=most, return_dtype=pl.Int64)
    return known.select("stream", "window").with_columns(passes.alias("passes"))


def _filled(run: Run, best: Oracle) -> pl.DataFrame:
    """The oracle's passes for the windows that a run slept on, 1 for those that nothing follows."""
    slept = slept_windows(run.trace()).select("stream", "window").collect()
    chosen = best.passes.select("stream", "window", "passes")
    return slept.join(chosen, on=["stream", "window"], how="left").with_columns(
        pl.col("passes").fill_null(1)
    )


def has_halves(forks: pl.DataFrame) -> bool:
    """Whether every window has questions enough for an oracle that is scored on other ones."""
    asked = forks["asked"]
    return len(asked) > 0 and asked.null_count() == 0 and bool((asked >= 2).all())


def correlations(forks: pl.DataFrame, tolerance: float) -> dict[str, float | None]:
    """Spearman's rank correlation of each signal, as the policy saw it after one pass, with the
    oracle's passes, over windows; None where either is the same everywhere."""
    best = oracle(forks, tolerance=tolerance, halves=has_halves(forks))
    seen = forks.filter(pl.col("passes") == 1).drop("passes")
    joined = seen.join(best.passes.select("stream", "window", "passes"), on=["stream", "window"])
    passes = joined["passes"].to_numpy()
    found: dict[str, float | None] = {}
    for name in joined.columns:
        if name.startswith("signal_"):
            values = joined[name].to_numpy()
            told = np.ptp(values) > 0 and np.ptp(passes) > 0 if len(values) > 1 else False
            rank = float(stats.spearmanr(values, passes).statistic) if told else None
            found[name.removeprefix("signal_")] = rank
    return found
