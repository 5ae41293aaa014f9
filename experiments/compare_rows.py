"""What a comparison says: rows with intervals over trained seeds, and the hull of fixed passes.

Trained seeds are the unit: differences are taken within a seed, and a t-interval is that of their
mean; one seed has none. Nothing is run here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import optimize, stats

from adaptive_sleep.experiments.reproduce import interval

Kind = Literal["fixed", "policy", "shuffled", "oracle", "table", "matched", "baseline"]
Point = tuple[float, float]  # sleep FLOPs per event, score
ByReach = tuple[tuple[int, int, int], ...]  # reach, windows all right, windows asked


@dataclass(frozen=True, kw_only=True)
class SeedRow:
    """The figures of one row for one trained seed.

    `policy`: the spec run; `written`: as the recipe has it. `control_of`: the row whose passes are
    shuffled. `score`: the share of windows answered all right, or minus the loss.
    `sleep_flops_per_event`: of the sleep passes, with signals and policy where a policy reads them
    (kind "policy"). `regret`: score lost against the oracle on the half of the questions that did
    not choose its passes, below 0 where those that did led it astray; `regret_optimistic` that
    against an oracle that sees all that is scored; `regret_loss` as `regret`, in units of loss;
    `extra_passes` beyond the oracle's. `streams`, of a policy: how many its difference to
    fixed(max_passes) is paired over, with the interval and the p-value of `within_model.Paired`.
    `fixed_score` and `fixed_sleep` are those of fixed(max_passes), `hull_score` that of the best
    mixture of fixed passes for no more sleep FLOPs, `shuffled_score` that of the policy's own
    passes shuffled. `within`: whether a point of the grid was near enough to fixed(max_passes) on
    validation (None: there was no grid).
    `optimistic`: what chose the passes is in the score. Of rows at matched cost (kinds "matched", a
    policy, and "baseline"): `target`, times the plain hybrid's FLOPs per event; the `knob` of a
    baseline; what its model was trained on, tokens each counted once; the points that a policy was
    chosen among by its score, and the FLOPs of running them and of what it was fitted to (one point
    where its setting was found by its cost alone, as a baseline's knob is); the FLOPs of wake
    passes alone, which a prediction waits for; wall-clock seconds; and, of a task, the windows all
    right `by_reach` of their questions (`compare_reach`), so the score within and beyond the
    `largest_window`, in events, of the baseline larger_window at that target.
    """

    kind: Kind
    policy: str
    written: str
    online: bool
    control_of: str = ""
    score: float
    mean_passes: float
    sleep_flops_per_event: float
    flops_per_event: float
    resident_bytes: int
    regret: float | None = None
    regret_optimistic: float | None = None
    regret_loss: float | None = None
    extra_passes: float | None = None
    streams: int | None = None
    streams_low: float | None = None
    streams_high: float | None = None
    streams_p: float | None = None
    fixed_score: float | None = None
    fixed_sleep: float | None = None
    hull_score: float | None = None
    shuffled_score: float | None = None
    validation_score: float | None = None
    within: bool | None = None
    optimistic: bool = False
    target: float | None = None
    knob: int | None = None
    training_tokens: int | None = None
    training_flops: float | None = None
    tuning_trials: int | None = None
    tuning_flops: float | None = None
    wake_flops_per_event: float | None = None
    seconds_per_event: float | None = None
    by_reach: ByReach | None = None
    largest_window: int | None = None
    score_within: float | None = None
    score_beyond: float | None = None


def rising_hull(points: Sequence[Point]) -> list[int]:
    """Which of the points (cost, score) make up the upper convex hull, as far as it rises, by cost.

    It is the least concave function that never falls and is nowhere below a point, so that a
    mixture of two neighbours is the best to be had for their mean cost or less.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    kept: list[int] = []
    for one in order:
        if kept and points[one][1] <= points[kept[-1]][1]:
            continue  # dearer and no better
        while len(kept) > 1 and not _turns_right(*(points[i] for i in (*kept[-2:], one))):
            kept.pop()
        kept.append(one)
    return kept


def _turns_right(a: Point, b: Point, c: Point) -> bool:
    return (b[1] - a[1]) * (c[0] - b[0]) > (c[1] - b[1]) * (b[0] - a[0])


def mixture(validation: Sequence[Point], test: Sequence[Point], flops: float) -> float:
    """The test score of the mixture of fixed passes for at most `flops`, chosen on validation.

    `validation` and `test` hold the same fixed passes in the same order. Which two are mixed the
    hull of validation says, how much of each their costs on the test. Below the cheapest it is the
    cheapest, above the dearest on the hull that one.
    """
    hull = rising_hull(validation)
    return float(np.interp(flops, [test[i][0] for i in hull], [test[i][1] for i in hull]))


# what a row is the mean of, and the differences with intervals: name -> value of one seed
UNRANKED = "it, or the oracle, never changes"  # of a signal without a rank correlation
CLAIM_SEEDS = 5  # trained seeds, from which on an interval over them claims anything
POWER = 0.8  # of the smallest effect that a comparison could have seen
_MEANS = (
    "score",
    "mean_passes",
    "sleep_flops_per_event",
    "flops_per_event",
    "resident_bytes",
    "regret",
    "regret_optimistic",
    "regret_loss",
    "extra_passes",
)
# the same of rows at matched cost alone
_MATCHED = (
    "target",
    "knob",
    "training_tokens",
    "training_flops",
    "tuning_trials",
    "tuning_flops",
    "wake_flops_per_event",
    "seconds_per_event",
    "largest_window",
)
_REACHED = ("score_within", "score_beyond")  # with intervals
_DIFFERENCES: Mapping[str, Callable[[SeedRow], float | None]] = {
    "difference_to_fixed": lambda row: _less(row.score, row.fixed_score),
    "difference_to_shuffled": lambda row: _less(row.score, row.shuffled_score),
    "difference_to_hull": lambda row: _less(row.score, row.hull_score),
    "sleep_share": lambda row: (
        row.sleep_flops_per_event / row.fixed_sleep if row.fixed_sleep else None
    ),
}


def _less(one: float, other: float | None) -> float | None:
    return None if other is None else one - other


def make_rows(by_seed: Mapping[int, Mapping[str, SeedRow]], most: int) -> list[dict[str, Any]]:
    """One row for each name, in the order of the first seed, with stable keys.

    Names that a seed lacks are left out, since a mean over some says nothing. Means over seeds,
    their 95 % t-intervals (None for one seed) and, under `seeds_values`, every seed's own.
    `difference_to_fixed{most}` has `difference_interval`. A figure that a seed lacks is None.
    `policy` is the spec run where all seeds ran the same, else as the recipe has it.
    """
    seeds = sorted(by_seed)
    return [
        _row(name, {seed: by_seed[seed][name] for seed in seeds}, most)
        for name in by_seed[seeds[0]]
        if all(name in by_seed[seed] for seed in seeds)
    ]


def _row(name: str, rows: Mapping[int, SeedRow], most: int) -> dict[str, Any]:
    first = next(iter(rows.values()))
    same = len({row.policy for row in rows.values()}) == 1
    found: dict[str, Any] = {
        "name": name,
        "policy": first.policy if same else first.written,
        "kind": first.kind,
        "control_of": first.control_of,
        "online": first.online,
        "optimistic": first.optimistic,
    }
    if first.target is not None:
        for key in _MATCHED:
            values = [getattr(row, key) for row in rows.values()]
            found[key] = values[0] if len(set(values)) == 1 else _mean(values)
        for key in _REACHED:
            values = [getattr(row, key) for row in rows.values()]
            found[key], found[f"{key}_interval"] = _mean(values), _interval(values)
    for key in _MEANS:
        values = [getattr(row, key) for row in rows.values()]
        found[key] = _mean(values)
        if key == "score":
            found["score_interval"] = _interval(values)
    for key, of in _DIFFERENCES.items():
        values = [of(row) for row in rows.values()]
        fixed = key == "difference_to_fixed"
        found[f"{key}{most}" if fixed else key] = _mean(values)
        found["difference_interval" if fixed else f"{key}_interval"] = _interval(values)
    found["seeds_values"] = {str(seed): _own(row, most) for seed, row in rows.items()}
    return found


def _own(row: SeedRow, most: int) -> dict[str, Any]:
    """What one seed found, without what is the same for the row."""
    left_out = {"kind", "written", "online", "control_of", "optimistic"}
    if row.target is None:
        left_out |= {*_MATCHED, *_REACHED, "by_reach"}
    own = {key: value for key, value in asdict(row).items() if key not in left_out}
    for key, of in _DIFFERENCES.items():
        own[f"{key}{most}" if key == "difference_to_fixed" else key] = of(row)
    return own


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _interval(values: Sequence[float | None]) -> list[float] | None:
    known = [float(value) for value in values if value is not None]
    return interval(known) if len(known) == len(values) else None


def read_rows(rows: Sequence[Mapping[str, Any]], most: int, within: float) -> list[str]:
    """Say of each policy what its row shows, in plain sentences that follow from it alone."""
    seeds = len(rows[0]["seeds_values"])
    said = [
        _sentence(row, most, within, claims=seeds >= CLAIM_SEEDS)
        for row in rows
        if row["kind"] == "policy"
    ]
    if seeds == 1:
        said += [_within(row, most) for row in rows if row["kind"] == "policy"]
        said.append("One trained seed: no interval over models can be given, nothing is claimed.")
    elif seeds < CLAIM_SEEDS:
        said.append(f"{seeds} trained seeds: fewer than {CLAIM_SEEDS}, so nothing is claimed.")
    return said


def _within(row: Mapping[str, Any], most: int) -> str:
    """How sure the difference of a policy is within its one model."""
    (own,) = row["seeds_values"].values()
    ends = (own["streams_low"], own["streams_high"])
    over = f"over {own['streams']} streams of this model"
    if None in ends:
        return f"{row['name']}: to fixed({most}) {over} no interval can be given."
    return (
        f"{row['name']}: {signed(row[f'difference_to_fixed{most}'])} to fixed({most}) {over}"
        f"{spread(ends)}, Wilcoxon's p {own['streams_p']:.2g}."
    )


def _sentence(row: Mapping[str, Any], most: int, within: float, *, claims: bool) -> str:
    difference, share = row[f"difference_to_fixed{most}"], row["sleep_share"]
    ends = row["difference_interval"]
    parts = [
        f"{row['name']}: score {signed(difference)} to fixed({most}){spread(ends)}"
        + ("" if share is None else f" for {share:.0%} of its sleep FLOPs")
    ]
    if ends is not None and claims:
        near = ends[0] > -within
        parts.append(f"{'within' if near else 'not shown to be within'} {within:g} of it")
    for key, words in (("shuffled", "its own passes shuffled"), ("hull", "mixed fixed passes")):
        value, ends = row[f"difference_to_{key}"], row[f"difference_to_{key}_interval"]
        if value is None:
            continue
        shown = ""
        if ends is not None and claims:
            shown = ", better" if ends[0] > 0 else ", not shown to be better"
        parts.append(f"{signed(value)} to {words}{spread(ends)}{shown}")
    return "; ".join(parts) + "."


def signed(value: float | None) -> str:
    """A difference in a sentence."""
    return "?" if value is None else f"{value:+.4f}"


def spread(ends: Sequence[float] | None) -> str:
    """Its interval, if it has one."""
    return "" if ends is None else f" ({ends[0]:+.4f} to {ends[1]:+.4f})"


def half(ends: Sequence[float] | None) -> float | None:
    """Half of the interval of a difference: what must be seen to be told from none. None where it
    has no interval, and of a row beside itself."""
    return None if ends is None else (ends[1] - ends[0]) / 2 or None


def smallest_effect(ends: Sequence[float] | None, seeds: int) -> float | None:
    """The smallest true difference that so many seeds would have told from none four times in five,
    by the 95 % t-interval `ends` of the difference that they found. None as `half`."""
    least = half(ends)
    return None if least is None else least * _true_to_seen(seeds)


@functools.cache
def _true_to_seen(seeds: int) -> float:
    """How many times the half of an interval a true difference must be (noncentral t)."""
    least = float(stats.t.ppf(0.975, seeds - 1))
    found = optimize.brentq(lambda it: stats.nct.sf(least, seeds - 1, it) - POWER, 0.0, 100.0)
    return float(found) / least
