"""The probe `events`: the next event of a real log, and whether surprise rises before alerts.

A small model is trained on the first part of BGL's log and replayed over the rest, under passes 1,
2, 4 and under a policy; beside it predictors that count. The test part comes last in time, and most
of its events may be of types that training never saw: they are counted, and bits are given apart.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.experiments.probes.events_log import Log, open_log
from adaptive_sleep.experiments.probes.events_score import averaged, count_rows, score
from adaptive_sleep.experiments.probes.folder import find_folder
from adaptive_sleep.experiments.probes.log_model import Guessed, guess
from adaptive_sleep.experiments.probes.seeds import Key, Sizes, kept_jobs, small_recipe
from adaptive_sleep.experiments.probes.summing import figure
from adaptive_sleep.experiments.reproduce import Report, commit
from adaptive_sleep.training import train
from adaptive_sleep.training_recipe import Recipe

NAME = "events"
FILE = "logs/BGL_2k.log_structured.csv"
WHAT = "BGL_2k.log_structured.csv of loghub in logs/"
FIXED = (1, 2, 4)
STATE_CHANGE = "state_change"
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Plan(Sizes):
    """How the model is trained and tested; sizes in events and windows, parts in shares of rows."""

    train: float = 0.6
    validation: float = 0.1
    window: int = 16  # the test part has some 37 windows
    steps: int = 600
    windows: int = 6  # of a training sequence
    dropout: float = 0.2  # the training part is small
    validate_every: int = 50
    share: float = 0.5  # of validation windows, that state_change would sleep on


QUICK: dict[str, Any] = {"steps": 60, "validate_every": 20}


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
    """Train and test every seed in the folder `out`; killed, it goes on with those that lack.
    `data` holds logs/; `quick`: one seed, few steps. Returns what `summary` does.

    Raises InputError.
    """
    begun = time.perf_counter()
    plan = plan or (replace(Plan(), **QUICK) if quick else Plan())
    folder = find_folder(data, (FILE,), what=WHAT)
    out.mkdir(parents=True, exist_ok=True)
    shares = (plan.train, plan.train + plan.validation)
    log = open_log(folder.resolve() / FILE, out / "made", *shares)
    numbers = list(seeds)[:1] if quick else list(seeds)
    keys = [(NAME, seed) for seed in numbers]
    told = {"plan": asdict(plan), "sha256": log.sha256}
    found = kept_jobs(
        judge,
        {key: (log, plan, key[1], str(out)) for key in keys},
        {key: {**told, "seed": key[1]} for key in keys},
        out,
        jobs=jobs,
        on_progress=on_progress,
    )
    return summary(log, plan, numbers, found, wall=time.perf_counter() - begun)


def judge(log: Log, plan: Plan, seed: int, out: str) -> dict[str, Any]:
    """One seed: train, set the tolerance of state_change on validation windows, replay and score
    under every policy."""
    begun = time.perf_counter()
    folder = Path(out) / "runs" / f"seed-{seed}"
    shutil.rmtree(folder, ignore_errors=True)  # of a job that was killed
    folder.mkdir(parents=True)
    file = folder / "model.safetensors"
    trained = train(recipe_of(log, plan, seed), file)
    took = time.perf_counter() - begun
    model = load_model(file)

    def under(policy: str, run: str) -> Guessed:
        return guess(model, log.recording, log.tokens, policy, folder / run, most=max(FIXED))

    specs = {f"N = {n}": f"fixed({n})" for n in FIXED}
    made = {name: under(spec, spec) for name, spec in specs.items()}
    level = _tolerance(made["N = 1"], log, plan)
    specs[STATE_CHANGE] = f"state_change(tolerance={level!r}, max_passes={max(FIXED)})"
    made[STATE_CHANGE] = under(specs[STATE_CHANGE], STATE_CHANGE)
    return {
        "predictors": {name: _scored(specs[name], made[name], log, plan) for name in specs},
        "step": trained.step,
        "validation": {str(n): loss for n, loss in trained.validation.items()},
        "parameters": model.parameters_count,
        "train_seconds": took,
        "seconds": time.perf_counter() - begun,
    }


def _tolerance(made: Guessed, log: Log, plan: Plan) -> float:
    """The state change that the plan's share of validation windows exceed."""
    first = np.arange(len(made.trace)) * plan.window
    held = (first >= log.train) & (first + plan.window <= log.test)
    return float(np.quantile(made.trace["state_change"].to_numpy()[held], 1 - plan.share))


def _scored(policy: str, made: Guessed, log: Log, plan: Plan) -> dict[str, Any]:
    """One replay, as far as it is of test rows; its cost is that of the whole log."""
    # the first event is not predicted, so guess i is of row i + 1
    row = score(made.guesses.after(log.test - 1), log, plan.window)
    cost = {"flops_per_event": made.flops_per_event, "mean_passes": made.mean_passes}
    return {"policy": policy, **row, **cost}


def recipe_of(log: Log, plan: Plan, seed: int) -> Recipe:
    """The tokens preset on the training rows of a log, with the plan's sizes."""
    rows, model = len(log.tokens), {"dropout": plan.dropout}
    ends = log.train / rows, log.test / rows
    return small_recipe("tokens", model, log.recording, ends, plan, seed)


def summary(
    log: Log,
    plan: Plan,
    seeds: Sequence[int],
    found: Mapping[Key, Mapping[str, Any]],
    *,
    wall: float,
) -> dict[str, Any]:
    """What was found, with stable keys: under `predictors`, what `averaged` says of each, those
    that count last; under `log`, what the test part holds; `seeds`, `seconds` a seed, and where it
    comes from."""
    jobs = [found[NAME, seed] for seed in seeds]
    names = list(jobs[0]["predictors"])
    models = {n: averaged([job["predictors"][n] for job in jobs], log, plan.window) for n in names}
    counts = {
        n: averaged([row], log, plan.window) for n, row in count_rows(log, plan.window).items()
    }
    return {
        "probe": NAME,
        "predictors": {**models, **counts},
        "log": log.facts(plan.window),
        "seeds": list(seeds),
        "steps": {str(seed): job["step"] for seed, job in zip(seeds, jobs, strict=True)},
        "validation": [job["validation"] for job in jobs],
        "parameters": jobs[0]["parameters"],
        "seconds": float(np.mean([job["seconds"] for job in jobs])),
        "wall_seconds": wall,
        "plan": json.loads(json.dumps(asdict(plan))),
        "commit": commit(),
    }


def table_of(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of what is printed, a predictor a row."""
    columns = [
        "predictor", "bits/event", "of known types", "top-5", "passes", "FLOPs/event",
        "before alerts", "p",
    ]  # fmt: skip
    rows = []
    for name, row in found["predictors"].items():
        passes, flops, alerts = row.get("mean_passes"), row.get("flops_per_event"), row["alerts"]
        rows.append([
            name, figure(row["bits"]), figure(row["bits_known"]), figure(row["five"]),
            "" if passes is None else f"{passes:.2f}", "" if flops is None else f"{flops:,.0f}",
            figure(alerts and alerts["rise"], sign="+"), f"{alerts['p']:.3f}" if alerts else "",
        ])  # fmt: skip
    return columns, rows


def said(found: Mapping[str, Any]) -> str:
    """What the table says, in plain sentences, and what must be known beside it."""
    log, rows = found["log"], found["predictors"]
    best = min(rows, key=lambda name: rows[name]["bits"]["mean"])
    mine, theirs = rows["N = 1"]["bits"]["mean"], rows[best]["bits"]["mean"]
    return (
        f"{log['test_events']} test events, {log['unknown_share']:.0%} of types that the "
        f"{log['train_events']} training events lack; log2({log['vocabulary']}) is "
        f"{np.log2(log['vocabulary']):.2f} bits. Fewest bits: {best}, {theirs:.2f} to {mine:.2f} "
        f"of the model at N = 1. {_alerts(log, rows, best)} {len(found['seeds'])} "
        f"seed(s), {found['parameters']:,} parameters, {found['seconds']:.0f} s a seed, commit "
        f"{found['commit']}"
    )


def _alerts(log: Mapping[str, Any], rows: Mapping[str, Any], best: str) -> str:
    """Does surprise rise before alerts? Honest about how few there are."""
    bursts = (
        f"{log['alert_lines']} alert lines in the test part, in {log['bursts']} bursts that begin "
        f"after a quiet window, against {log['usual']} usual windows of {log['window']} events"
    )
    if rows["N = 1"]["alerts"] is None:
        return f"{bursts}: too few to ask whether surprise rises before them."
    answers = []
    for name in dict.fromkeys(("N = 1", best)):
        found = rows[name]["alerts"]
        seen = "rises before them" if found["p"] <= LEVEL else "is not shown to rise before them"
        answers.append(
            f"surprise of {name} {seen} ({found['rise']['mean']:+.2f} nats, p {found['p']:.3f})"
        )
    return f"{bursts}: {'; '.join(answers)}. p is one-sided, of so few bursts: no proof."
