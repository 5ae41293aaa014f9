"""The probe `spending`: does an adaptive policy find that sleep buys nothing, and not pay for it?

On each real recording small models are trained to forecast it, as in the probe `labels`. A policy
and its threshold, within a budget of 4 % of the plain hybrid's FLOPs or without, are chosen on
validation windows: the cheapest that is within a share of the loss of fixed(4) there. On test
windows its loss and FLOPs per event stand beside those of the plain hybrid (the same model under
fixed(1), not one that was trained so) and of fixed(4).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from adaptive_sleep.experiments.etth1_data import Protocol
from adaptive_sleep.experiments.probes import events, labels
from adaptive_sleep.experiments.probes.cases import NEEDED, SETS, find_cases
from adaptive_sleep.experiments.probes.events_log import open_log
from adaptive_sleep.experiments.probes.folder import find_folder
from adaptive_sleep.experiments.probes.seeds import Key, kept_jobs, kept_model
from adaptive_sleep.experiments.probes.summing import figure, over_seeds
from adaptive_sleep.experiments.probes.triggers import PASSES, rows_of, spec_of
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.reproduce import Report, commit
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.streams.manifest import NAME as MANIFEST
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tables import record_table
from adaptive_sleep.training_recipe import Recipe

NAME = "spending"
ETTH1 = "ett/ETTh1.csv"
PLAIN, MOST = "fixed(1)", f"fixed({PASSES})"
TRIGGERS = ("surprise", "uncertainty", "state_change")  # whose thresholds are tried
WITHIN = 0.01  # of the loss of fixed(4): a policy on validation, and what counts as nothing bought
EXTRA = 1.05  # times the plain hybrid's FLOPs: what counts as not spending
FLOPS = ("wake_flops", "sleep_flops", "signal_flops", "policy_flops")


@dataclass(frozen=True)
class Plan:
    """How models are trained, as the probes `labels` and `events` have it, and what is tried."""

    series: labels.Plan = field(default_factory=labels.Plan)
    tokens: events.Plan = field(default_factory=events.Plan)
    shares: tuple[float, ...] = (0.0, 0.02, 0.1, 0.3)  # of validation windows that are slept on
    warm: int = 4096  # rows read before the validation part, and before the test part
    spare: float = 0.04  # of the plain hybrid's FLOPs: the sleep of a bounded policy


@dataclass(frozen=True)
class Part:
    """A recording of one stream: its validation rows begin at `validation`, its test rows at
    `test`, and end at `end`."""

    name: str
    recording: str
    sha256: str
    validation: int
    test: int
    end: int


def run(
    out: Path,
    *,
    seeds: Sequence[int],
    quick: bool = False,
    jobs: int | None = None,
    on_progress: Report | None = None,
    data: Path | None = None,
    plan: Plan | None = None,
) -> dict[str, Any]:
    """Train, choose and test on every recording and seed in the folder `out`; killed, it goes on
    with those that lack, and takes up models that the probe `labels` left there. `data` holds nab/,
    asd/, ett/ and logs/; `quick`: one seed, few steps.

    Returns what `summary` does. Raises InputError.
    """
    begun = time.perf_counter()
    plan = plan or (_quick() if quick else Plan())
    what = f"{SETS}, ETTh1.csv in ett/, {events.WHAT}"
    folder = find_folder(data, (*NEEDED, ETTH1, events.FILE), what=what).resolve()
    out.mkdir(parents=True, exist_ok=True)
    numbers = list(seeds)[:1] if quick else list(seeds)
    work = {
        (f"{NAME}-{part.name}", seed): (part, recipe, plan, seed, str(out))
        for seed in numbers
        for part, recipe in parts_of(folder, out / "made", plan, seed)
    }
    told = {
        key: {"plan": asdict(plan), "part": asdict(replace(part, recording="")), "seed": seed}
        for key, (part, _, _, seed, _) in work.items()
    }
    found = kept_jobs(judge, work, told, out, jobs=jobs, on_progress=on_progress)
    return summary(plan, numbers, found, wall=time.perf_counter() - begun)


def _quick() -> Plan:
    series, tokens = labels.Plan(**labels.QUICK), events.Plan(**events.QUICK)
    return Plan(series=series, tokens=tokens, shares=(0.1,))


def parts_of(data: Path, made: Path, plan: Plan, seed: int) -> list[tuple[Part, Recipe]]:
    """Every recording with the recipe of its model. Raises InputError for what cannot be read."""
    found = []
    for case in find_cases(data, made):
        rows = case.validation, case.test, len(case.flags)
        part = Part(case.name, case.recording, case.sha256, *rows)
        found.append((part, labels.recipe_of(case, plan.series, seed)))
    return [*found, _etth1(data, made, plan, seed), _log(data, made, plan, seed)]


def _etth1(data: Path, made: Path, plan: Plan, seed: int) -> tuple[Part, Recipe]:
    """ETTh1, split as the published protocol has it."""
    folder = made / "ETTh1"
    if (folder / MANIFEST).is_file():
        shutil.rmtree(folder)  # of an earlier run, whose file may have been another
    recording = Recording.open(record_table([data / ETTH1], folder, time="date"))
    rows = Protocol()
    part = Part(
        "ETTh1", str(recording.path), recording.sha256, rows.train, rows.validation,
        rows.test,
    )  # fmt: skip
    ends = part.validation / recording.rows, part.test / recording.rows
    return part, labels.recipe_on(part.recording, ends, plan.series, seed)


def _log(data: Path, made: Path, plan: Plan, seed: int) -> tuple[Part, Recipe]:
    shares = plan.tokens.train, plan.tokens.train + plan.tokens.validation
    log = open_log(data / events.FILE, made / "BGL", *shares)
    part = Part("BGL", log.recording, log.sha256, log.train, log.test, len(log.tokens))
    return part, events.recipe_of(log, plan.tokens, seed)


def judge(part: Part, recipe: Recipe, plan: Plan, seed: int, out: str) -> dict[str, Any]:
    """One recording and one seed: train, choose on validation windows, and test."""
    folder = Path(out) / "runs" / f"{NAME}-{part.name}-seed-{seed}"
    shutil.rmtree(folder, ignore_errors=True)  # of a job that was killed
    folder.mkdir(parents=True)
    model = Path(out) / "models" / f"{part.name}-seed-{seed}.safetensors"
    trained = kept_model(recipe, part.sha256, model)
    begun = time.perf_counter()

    def under(spec: str, first: int, last: int) -> pl.DataFrame:
        """The windows that begin in rows `first` to `last`, `plan.warm` rows being read before."""
        start = max(first - plan.warm, 0)
        run = folder / f"{len(list(folder.iterdir()))}"
        replay(part.recording, model, spec, run, start=start, stop=last, max_passes=PASSES)
        trace = open_run(run).trace().sort("window").collect()
        return trace.filter(pl.Series(rows_of(trace, start)[0] >= first))

    held = {spec: under(spec, part.validation, part.test) for spec in (PLAIN, MOST)}
    free = [spec_of(trigger, held[PLAIN], share) for trigger in TRIGGERS for share in plan.shares]
    within = plan.spare * cost(held[PLAIN])["flops_per_event"]
    tried = [*(bounded(spec, within, PASSES / plan.spare) for spec in free), *free]
    costs = {spec: cost(under(spec, part.validation, part.test)) for spec in dict.fromkeys(tried)}
    chosen = choose(costs, cost(held[MOST])["loss"])
    tested = {spec: cost(under(spec, part.test, part.end)) for spec in (PLAIN, MOST, chosen)}
    return {
        "chosen": chosen,
        "validation": {PLAIN: cost(held[PLAIN]), MOST: cost(held[MOST]), **costs},
        "test": {"plain": tested[PLAIN], "most": tested[MOST], "chosen": tested[chosen]},
        "trained": trained,
        "seconds": trained["train_seconds"] + time.perf_counter() - begun,
    }


def bounded(spec: str, flops_per_event: float, burst: float) -> str:
    """The policy within so many sleep FLOPs per event, saved up over `burst` windows at most."""
    return f"budgeted({spec}, flops_per_event={flops_per_event!r}, burst={burst!r})"


def cost(trace: pl.DataFrame) -> dict[str, float]:
    """Mean loss over all that is scored, FLOPs per event of all kinds, and passes a window."""
    scored = trace.filter(pl.col("scored") > 0)
    weights = scored["scored"].to_numpy()
    flops = sum(int(trace[name].sum()) for name in FLOPS)
    return {
        "loss": float(np.average(scored["loss"].to_numpy(), weights=weights)),
        "flops_per_event": flops / int(trace["tokens"].sum()),
        "mean_passes": float(trace["passes"].to_numpy().mean()),
    }


def choose(tried: Mapping[str, Mapping[str, float]], most: float) -> str:
    """The cheapest policy whose loss is within `WITHIN` of `most`, that of fixed(4), the first of
    several that cost as much; of the least loss where none is."""
    near = [spec for spec, found in tried.items() if found["loss"] <= (1 + WITHIN) * most]
    if not near:
        return min(tried, key=lambda spec: tried[spec]["loss"])
    return min(near, key=lambda spec: tried[spec]["flops_per_event"])


def summary(
    plan: Plan, seeds: Sequence[int], found: Mapping[Key, Mapping[str, Any]], *, wall: float
) -> dict[str, Any]:
    """What was found, with stable keys: under `recordings`, by name what `_of_one` says; `within`
    and `extra`, the bounds; `seeds`, `seconds` a seed, and where it comes from."""
    names = [name for name, seed in found if seed == seeds[0]]
    by_name = {name: [found[name, seed] for seed in seeds] for name in names}
    seconds = [sum(each["seconds"] for each in one) for one in zip(*by_name.values(), strict=True)]
    return {
        "probe": NAME,
        "recordings": {
            name.removeprefix(f"{NAME}-"): _of_one(each) for name, each in by_name.items()
        },
        "within": WITHIN,
        "extra": EXTRA,
        "seeds": list(seeds),
        "seconds": float(np.mean(seconds)),
        "wall_seconds": wall,
        "plan": json.loads(json.dumps(asdict(plan))),
        "commit": commit(),
    }


def _of_one(by_seed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A recording, over seeds: test `loss` of plain, most and chosen; what sleep buys, as shares of
    the loss of fixed(4) (`bought_by_most`: plain less most; `lost_by_chosen`: chosen less most);
    FLOPs as multiples of the plain hybrid's; and whether the plain hybrid (`buys_nothing`) and the
    chosen policy (`holds`) are no more than `WITHIN` worse than fixed(4), by their intervals, and
    the chosen one no dearer than `EXTRA` (`not_spending`)."""
    tests = [seed["test"] for seed in by_seed]
    kinds = ("plain", "most", "chosen")

    def share(one: str) -> dict[str, Any]:
        return over_seeds([t[one]["loss"] / t["most"]["loss"] - 1 for t in tests])

    def times(one: str) -> dict[str, Any]:
        return over_seeds(
            [t[one]["flops_per_event"] / t["plain"]["flops_per_event"] for t in tests]
        )

    bought, lost, spent = share("plain"), share("chosen"), times("chosen")
    return {
        "loss": {kind: over_seeds([t[kind]["loss"] for t in tests]) for kind in kinds},
        "mean_passes": {k: over_seeds([t[k]["mean_passes"] for t in tests]) for k in kinds},
        "bought_by_most": bought,
        "lost_by_chosen": lost,
        "flops_of_most": times("most"),
        "flops_of_chosen": spent,
        "chosen": [seed["chosen"] for seed in by_seed],
        "buys_nothing": _no_worse(bought),
        "holds": _no_worse(lost),
        "not_spending": spent["mean"] <= EXTRA,
    }


def _no_worse(found: Mapping[str, Any]) -> bool | None:
    """Whether the interval ends below the bound; None without an interval."""
    ends = found["interval"]
    return None if ends is None else bool(ends[1] <= WITHIN)


def table_of(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of what is printed."""
    columns = [
        "recording", "loss, plain", "fixed(4)", "chosen", "plain to fixed(4)",
        "chosen to fixed(4)", "FLOPs of fixed(4)", "of chosen", "not spending",
    ]  # fmt: skip
    rows = [
        [
            name, *(figure(row["loss"][kind]) for kind in ("plain", "most", "chosen")),
            *(_percent(row[each]) for each in ("bought_by_most", "lost_by_chosen")),
            f"{row['flops_of_most']['mean']:.2f}x", f"{row['flops_of_chosen']['mean']:.2f}x",
            "yes" if row["not_spending"] else "no",
        ]
        for name, row in found["recordings"].items()
    ]  # fmt: skip
    return columns, rows


def _percent(found: Mapping[str, Any]) -> str:
    ends = found["interval"]
    half = "" if ends is None else f" ±{ends[1] - found['mean']:.2%}"
    return f"{found['mean']:+.2%}{half}"


def said(found: Mapping[str, Any]) -> str:
    """What the table says, in plain sentences, and what must be known beside it."""
    cases = found["recordings"]
    seeds = f"{len(found['seeds'])} seed(s), {found['seconds']:.0f} s a seed"
    tail = (
        f"Shares are of fixed({PASSES})'s loss; above 0 is worse. FLOPs are all that is charged, "
        f"deciding included. The plain hybrid is the same model at one pass. {seeds}, commit "
        f"{found['commit']}"
    )
    if len(found["seeds"]) == 1:
        return f"One seed has no interval: what sleep buys is not known from it. {tail}"
    nothing = [name for name, row in cases.items() if row["buys_nothing"]]
    kept = [name for name in nothing if cases[name]["not_spending"] and cases[name]["holds"]]
    return (
        f"On {len(nothing)} of {len(cases)} recordings ({', '.join(nothing) or 'none'}) sleep buys "
        f"nothing that shows: by its interval the plain hybrid is at most {WITHIN:.0%} worse than "
        f"fixed({PASSES}). The chosen policy is so too, at no more than {EXTRA} times the plain "
        f"hybrid's FLOPs, on {len(kept)} of these. {tail}"
    )
