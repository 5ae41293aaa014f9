"""Reproducing ETTh1 at horizon 96: our streaming forecaster over seeds, beside simple baselines.

The data is in etth1_data.py, training in etth1_training.py, the test in etth1_testing.py. The
forecaster has a linear map of the last values beside its fast weights, and the result says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_sleep.checkpoint import save_model
from adaptive_sleep.experiments.etth1_baselines import baselines
from adaptive_sleep.experiments.etth1_data import find_data, read_table
from adaptive_sleep.experiments.etth1_testing import score_policy
from adaptive_sleep.experiments.etth1_training import (
    HorizonExperiment,
    config_of,
    fit,
    part_moments,
    read_experiment,
)
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.experiments.jobs import one_thread, side_by_side
from adaptive_sleep.experiments.reproduce import commit, interval
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.manifest import write_file

NAME = "etth1"
SEEDS = (0, 1, 2, 3, 4)
QUICK_STEPS = 100
PARTS = ("validation", "test")
Report = Callable[[float, float | None, str], None]
SAID = (
    "The last {skip} values of a channel are read outside the fast weights, by a linear map that "
    "starts as the closed-form ridge map of the training rows."
)


def reproduce(
    out: Path,
    *,
    data: Path | None = None,
    seeds: Sequence[int] = SEEDS,
    quick: bool = False,
    jobs: int | None = None,
    recipe: Path | None = None,
    on_progress: Report | None = None,
) -> dict[str, Any]:
    """Train and test every seed in the folder `out`; killed, it goes on with the seeds that lack.

    `quick`: few steps. Returns what `summary` does. Raises InputError.
    """
    begun = time.perf_counter()
    plan = read_experiment(recipe or find_recipe(NAME))
    if quick:
        training = replace(plan.training, steps=QUICK_STEPS, validate_every=QUICK_STEPS // 2)
        plan = replace(plan, training=training)
    file = find_data(data).resolve()
    table = read_table(file, plan.protocol)  # refused now, not in another process
    out.mkdir(parents=True, exist_ok=True)
    work = {seed: (plan, str(file), str(out), seed) for seed in seeds}
    found: dict[int, dict[str, Any]] = {}
    alone = len(work) == 1 or jobs == 1
    here = partial(_train, on_progress=on_progress) if alone else None  # it tells how far it is
    for seed, job in side_by_side(_train, work, jobs, here=here):
        found[seed] = job
        if on_progress is not None and not alone:
            on_progress(len(found), len(work), f"seed {seed}")
    with one_thread():
        beside = baselines(table, plan.protocol)
    wall = time.perf_counter() - begun
    return summary(plan, found, beside, wall=wall, data=table.sha256)


def _train(
    recipe: HorizonExperiment, file: str, out: str, seed: int, on_progress: Report | None = None
) -> dict[str, Any]:
    """One seed on one thread: train and test it, or take up what is there of the same recipe."""
    table = read_table(Path(file), recipe.protocol)
    told = {"recipe": json.loads(json.dumps(asdict(recipe))), "data": table.sha256, "seed": seed}
    kept = Path(out) / f"seed-{seed}.json"
    if kept.is_file():
        before: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if {name: before.get(name) for name in told} == told:
            return before
    with one_thread():
        fitted = fit(recipe, table, seed, on_progress=on_progress)
        found: dict[str, dict[str, Any]] = {}
        begun = time.perf_counter()
        for policy in recipe.test.policies:
            found[policy] = {
                part: score_policy(fitted.model, policy, part_moments(recipe, table, part))
                for part in PARTS
            }
    result = {
        **told,
        "policies": found,
        "step": fitted.step,
        "log": fitted.log,
        "seconds": fitted.seconds,
        "test_seconds": time.perf_counter() - begun,
    }
    provenance = {"experiment": NAME, "seed": str(seed), "chosen_step": f"{fitted.step}"}
    save_model(fitted.model, Path(out) / f"seed-{seed}.safetensors", provenance=provenance)
    write_file(kept, (json.dumps(result, indent=1) + "\n").encode())
    return result


def summary(
    recipe: HorizonExperiment,
    found: Mapping[int, Mapping[str, Any]],
    beside: Mapping[str, Mapping[str, Any]],
    *,
    wall: float,
    data: str,
) -> dict[str, Any]:
    """What was found, with stable keys: `mse`, `mae` on the test windows and `mse_interval` (95 %
    t-interval over seeds) of the `policy` that validation chose; `by_policy` at their cost,
    `baselines`, `seeds`, `seconds` a seed, and where it comes from."""
    seeds = sorted(found)
    rows = {p: _of_policy([found[s]["policies"][p] for s in seeds]) for p in recipe.test.policies}
    policy = chosen(rows, recipe.test.tolerance)
    config = config_of(recipe)
    return {
        "experiment": NAME,
        "policy": policy,
        **{name: rows[policy][name] for name in ("mse", "mae", "mse_interval")},
        "by_policy": rows,
        "baselines": dict(beside),
        "seeds": seeds,
        "seconds": float(np.mean([found[s]["seconds"] for s in seeds])),
        "test_seconds": float(np.mean([found[s]["test_seconds"] for s in seeds])),
        "wall_seconds": wall,
        "steps": {s: found[s]["step"] for s in seeds},
        "windows": len(recipe.protocol.origins("test")),
        "parameters": Model(config).parameters_count,
        "reads_outside_fast_weights": SAID.format(skip=config.skip) if config.skip else "",
        "data_sha256": data,
        "commit": commit(),
        "recipe": json.loads(json.dumps(asdict(recipe))),
    }


def chosen(rows: Mapping[str, Mapping[str, Any]], tolerance: float) -> str:
    """The cheapest policy whose validation error is within `tolerance` of the best."""
    best = min(row["validation_mse"] for row in rows.values())
    near = [p for p, row in rows.items() if row["validation_mse"] <= best * (1 + tolerance)]
    return min(near, key=lambda p: float(rows[p]["flops_per_event"]))


def _of_policy(jobs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Means over seeds of what one policy came to, and each seed's error."""
    test = [job["test"] for job in jobs]
    scores = ("mse", "mae", "pinball", "coverage")
    costs = ("flops_per_event", "sleep_flops_per_event", "mean_passes")
    row: dict[str, Any] = {n: float(np.mean([t[n] for t in test])) for n in (*scores, *costs)}
    errors = [t["mse"] for t in test]
    return {
        **row,
        "mse_interval": interval(errors),
        "validation_mse": float(np.mean([job["validation"]["mse"] for job in jobs])),
        "mse_by_seed": errors,
    }


def from_results() -> dict[str, Any]:
    """What the last full run wrote. Raises InputError where there is none."""
    file = resources.files("adaptive_sleep.experiments") / "results" / f"{NAME}.json"
    if not file.is_file():
        raise InputError(f"reproduce {NAME} --from-results: no full run has been kept yet")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def said(found: Mapping[str, Any]) -> str:
    """What must be known beside the table."""
    seeds = len(found["seeds"])
    return (
        f"{found['reads_outside_fast_weights']} {seeds} seed(s), {found['parameters']:,} "
        f"parameters, {found['seconds']:.0f} s a seed, commit {found['commit']}"
    )


def table_of(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of what is printed: the policies, then the baselines."""
    columns = ["forecaster", "MSE", "MAE", "validation MSE", "passes", "FLOPs/event"]
    rows = []
    for policy, row in found["by_policy"].items():
        ends = row["mse_interval"]
        width = f" ±{ends[1] - row['mse']:.4f}" if ends else ""
        mark = " *" if policy == found["policy"] else ""
        rows.append([
            f"{policy}{mark}", f"{row['mse']:.4f}{width}", f"{row['mae']:.4f}",
            f"{row['validation_mse']:.4f}", f"{row['mean_passes']:.2f}",
            f"{row['flops_per_event']:,.0f}",
        ])  # fmt: skip
    for name, row in found["baselines"].items():
        held = f"{row['validation_mse']:.4f}" if "validation_mse" in row else ""
        rows.append([name, f"{row['mse']:.4f}", f"{row['mae']:.4f}", held, "", ""])
    return columns, rows
