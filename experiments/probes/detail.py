"""The probe of numeric detail: what a linear read-out finds of past windows in the fast weights.

After a window is evicted, the state alone is left. A ridge map, fitted on the states of some
streams, is asked on those of others for the mean, slope, extremes and values of the window `age`
windows before: for N = 1, 2, .. passes over every window, and for a wider state at N = 1 that costs
what the most passes do. The window that comes next is asked for too, which no state has seen.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.config import decode, read_toml
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.experiments.jobs import Given, one_thread, side_by_side
from adaptive_sleep.experiments.probes.asked import TARGETS
from adaptive_sleep.experiments.probes.detail_asking import (
    DetailTest,
    check_asking,
    drawn_parts,
    probed,
    recorded_parts,
)
from adaptive_sleep.experiments.probes.learning import LearnerRecipe, check_learner, learn_regimes
from adaptive_sleep.experiments.probes.summing import (
    difference,
    kept_or_done,
    shown,
    tables_over_seeds,
)
from adaptive_sleep.experiments.probes.wider import widened
from adaptive_sleep.experiments.reproduce import Report, commit

NAME = "probe_detail"
SEEDS = (0, 1, 2, 3, 4)
DRAWN, WIDER, RECORDED = "drawn", "wider", "recorded"  # the kinds of jobs
PLAIN = "N=1"


@dataclass(frozen=True, kw_only=True)
class DetailRecipe(LearnerRecipe):
    """A whole recipe: what is trained, and `[test]`."""

    test: DetailTest = field(default_factory=DetailTest)


def read_recipe(path: Path) -> DetailRecipe:
    """Decode a recipe strictly. Raises InputError naming the field."""
    recipe = decode(DetailRecipe, read_toml(path), where=str(path))
    check_learner(recipe)
    check_asking(recipe.test)
    return recipe


def run(
    out: Path,
    *,
    seeds: Sequence[int] = SEEDS,
    quick: bool = False,
    jobs: int | None = None,
    recipe: Path | None = None,
    on_progress: Report | None = None,
) -> dict[str, Any]:
    """Train and probe every seed in folders under `out`; killed, it goes on with what lacks.

    `quick`: the first seed alone. Returns what `summary` does. Raises InputError.
    """
    begun = time.perf_counter()
    plan = read_recipe(recipe or find_recipe(NAME))
    chosen = list(seeds)[:1] if quick else list(seeds)
    work: dict[tuple[str, int], Given] = {
        (kind, seed): (plan, str(out), kind, seed) for seed in chosen for kind in (DRAWN, WIDER)
    }
    if plan.test.recording:
        work[RECORDED, 0] = (plan, str(out), RECORDED, 0)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    here = partial(_job, on_progress=on_progress) if jobs == 1 else None
    for key, job in side_by_side(_job, work, jobs, here=here):
        found[key] = job
        if on_progress is not None:
            on_progress(len(found), len(work), f"{key[0]}, seed {key[1]}")
    return summary(plan, chosen, found, wall=time.perf_counter() - begun)


def _job(
    recipe: DetailRecipe, out: str, kind: str, seed: int, on_progress: Report | None = None
) -> dict[str, Any]:
    """One model on one thread: trained and probed, or taken up as it was."""
    told = {"recipe": json.loads(json.dumps(asdict(recipe))), "kind": kind, "seed": seed}
    folder = Path(out) / f"seed-{seed}" / kind

    def do() -> dict[str, Any]:
        with one_thread():
            if kind == RECORDED:
                model = load_model(recipe.test.model)
                return probed(model, recorded_parts(model.config, recipe.test), recipe.test)
            learner = wider_learner(recipe) if kind == WIDER else recipe
            learned = learn_regimes(learner, folder, seed, on_progress=on_progress)
            begun, model = time.perf_counter(), load_model(learned.path)
            test = replace(recipe.test, passes=(1,)) if kind == WIDER else recipe.test
            found = probed(model, drawn_parts(recipe, model.config, test, seed), test)
            return {
                **found,
                "tokens": learned.tokens,
                "step": learned.step,
                "seconds": learned.seconds,
                "test_seconds": time.perf_counter() - begun,
                "value_dim": model.config.value_dim,
                "parameters": model.parameters_count,
            }

    return kept_or_done(folder / "found.json", told, do)


def wider_learner(recipe: DetailRecipe) -> LearnerRecipe:
    """The same with a wider state, trained at N = 1 on as many events; a window costs what the most
    passes asked for do. Raises UnmatchedError where no width costs so much."""
    wide = widened(check_learner(recipe), max(recipe.test.passes))
    return LearnerRecipe(
        regimes=recipe.regimes,
        streams=recipe.streams,
        model={**recipe.model, "value_dim": wide.value_dim},
        training=replace(recipe.training, passes="1"),
    )


def summary(
    recipe: DetailRecipe,
    seeds: Sequence[int],
    found: Mapping[tuple[str, int], Mapping[str, Any]],
    *,
    wall: float,
) -> dict[str, Any]:
    """What was found, with stable keys: `rows`, by "N=1", .., "wider", each with R2 by what is
    asked and age as `tables_over_seeds` has it, its `difference` to N=1 likewise, paired by seed,
    FLOPs per event and the numbers of a state; `recorded`, the rows of the recording (one model, so
    no interval); and where they come from."""
    base = [found[DRAWN, seed]["rows"][PLAIN]["r2"] for seed in seeds]
    rows: dict[str, Any] = {}
    for kind, names in ((DRAWN, list(found[DRAWN, seeds[0]]["rows"])), (WIDER, [PLAIN])):
        for name in names:
            mine = [found[kind, seed]["rows"][name] for seed in seeds]
            tables = [row["r2"] for row in mine]
            gains = [difference(one, other) for one, other in zip(tables, base, strict=True)]
            rows[WIDER if kind == WIDER else name] = {
                **{key: mine[0][key] for key in ("flops_per_event", "numbers", "cases")},
                **tables_over_seeds(tables),
                "difference": tables_over_seeds(gains),
            }
    recorded = found[RECORDED, 0]["rows"] if (RECORDED, 0) in found else {}
    kinds = {kind: [found[kind, seed] for seed in seeds] for kind in (DRAWN, WIDER)}
    return {
        "probe": NAME.removeprefix("probe_"),
        "rows": rows,
        "recorded": recorded,
        "seeds": list(seeds),
        "tokens": {kind: jobs[0]["tokens"] for kind, jobs in kinds.items()},
        "parameters": {kind: jobs[0]["parameters"] for kind, jobs in kinds.items()},
        "value_dim": {kind: jobs[0]["value_dim"] for kind, jobs in kinds.items()},
        "steps": {kind: [job["step"] for job in jobs] for kind, jobs in kinds.items()},
        "seconds": _a_seed(kinds, "seconds"),
        "test_seconds": _a_seed(kinds, "test_seconds"),
        "wall_seconds": wall,
        "commit": commit(),
        "recipe": json.loads(json.dumps(asdict(recipe))),
    }


def _a_seed(kinds: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> float:
    """Seconds of all kinds of models together, a seed, as a mean."""
    return float(np.mean([[job[name] for job in jobs] for jobs in kinds.values()], axis=1).sum())


def table_of(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of what is printed: R2 by age, of all targets together and of each."""
    ages = list(found["rows"][PLAIN]["mean"]["all"])
    columns = [
        "streams",
        "state",
        "asked",
        "FLOPs/event",
        *(f"age {a}" if a.isdigit() else a for a in ages),
    ]
    rows = []
    for target in ("all", *TARGETS):
        for name, row in found["rows"].items():
            cells = [shown(row["mean"][target][a], row["interval"][target][a]) for a in ages]
            rows.append(["drawn", name, target, f"{row['flops_per_event']:,.0f}", *cells])
    for target in ("all", *TARGETS):
        for name, row in found["recorded"].items():
            cells = [shown(row["r2"][target][a], None) for a in ages]
            rows.append(["recorded", name, target, f"{row['flops_per_event']:,.0f}", *cells])
    return columns, rows


def said(found: Mapping[str, Any]) -> str:
    """What must be known beside the table: what the most passes and the wider state change."""
    most = [name for name in found["rows"] if name != WIDER][-1]
    lines = []
    for name in (most, WIDER):
        change = found["rows"][name]["difference"]
        told = ", ".join(
            f"{'age ' if a.isdigit() else ''}{a} {shown(value, change['interval']['all'][a])}"
            for a, value in change["mean"]["all"].items()
        )
        lines.append(f"{name} less {PLAIN}, all targets: {told}.")
    wide, plain = found["rows"][WIDER], found["rows"][PLAIN]
    lines.append(
        f"A state has {plain['numbers']:,} numbers, the wider one {wide['numbers']:,}, read out by "
        f"a ridge map of {plain['cases']:,} cases; 'next' asks for the window to come, which no "
        "state has seen: what is found of it, windows have in common. "
        f"{len(found['seeds'])} seed(s), {found['seconds']:.0f} s of training and "
        f"{found['test_seconds']:.0f} s of tests a seed, commit {found['commit']}"
    )
    return "\n".join(lines)
