"""The probe `labels`: do the passes of each trigger land where the labels are?

A small model of each recording, trained to forecast it and shown no label, is replayed under each
trigger. The signal of the trigger, and its passes, are scores of the test windows; a window is
labelled if a row of it is. Both are judged by their average precision, beside passes by lot, the
base rate, and the same scores shuffled and rotated over the windows.
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
import polars as pl

from adaptive_sleep.experiments.probes.cases import NEEDED, SETS, Case, find_cases
from adaptive_sleep.experiments.probes.folder import find_folder
from adaptive_sleep.experiments.probes.landing import judged, landed
from adaptive_sleep.experiments.probes.seeds import Key, Sizes, kept_jobs, kept_model, small_recipe
from adaptive_sleep.experiments.probes.summing import figure, over_seeds
from adaptive_sleep.experiments.probes.triggers import (
    PASSES,
    RANDOM,
    TRIGGERS,
    rows_of,
    signal,
    spec_of,
)
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.reproduce import Report, commit
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.training_recipe import Recipe

NAME = "labels"


@dataclass(frozen=True, kw_only=True)
class Plan(Sizes):
    """How models are trained and judged; sizes in events (rows) and windows."""

    window: int = 32  # the shortest file gives some 75 test windows
    width: int = 32
    steps: int = 400
    windows: int = 6  # of a training sequence
    validate_every: int = 100
    share: float = 0.1  # of validation windows, that a trigger would sleep on
    warm: int = 4096  # rows read before the validation part
    shuffles: int = 2000


QUICK: dict[str, Any] = {"steps": 60, "validate_every": 30, "shuffles": 200}


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
    """Train, replay and judge every recording and seed in the folder `out`; killed, it goes on with
    those that lack. `data` holds nab/ and asd/; `quick`: one seed, few steps.

    Returns what `summary` does. Raises InputError.
    """
    begun = time.perf_counter()
    plan = plan or (replace(Plan(), **QUICK) if quick else Plan())
    folder = find_folder(data, NEEDED, what=SETS)
    out.mkdir(parents=True, exist_ok=True)
    cases = find_cases(folder.resolve(), out / "made")
    for case in cases:
        check_labelled(case, plan)
    numbers = list(seeds)[:1] if quick else list(seeds)
    keys = [(case, seed) for seed in numbers for case in cases]
    found = kept_jobs(
        judge,
        {(case.name, seed): (case, plan, seed, str(out)) for case, seed in keys},
        {(case.name, seed): _told(case, plan, seed) for case, seed in keys},
        out,
        jobs=jobs,
        on_progress=on_progress,
    )
    return summary(cases, plan, numbers, found, wall=time.perf_counter() - begun)


def judge(case: Case, plan: Plan, seed: int, out: str) -> dict[str, Any]:
    """One recording and one seed: train, set the thresholds on validation windows, replay under
    every trigger, and judge the test windows."""
    folder = Path(out) / "runs" / f"{case.name}-seed-{seed}"
    shutil.rmtree(folder, ignore_errors=True)  # of a job that was killed
    folder.mkdir(parents=True)
    model = Path(out) / "models" / f"{case.name}-seed-{seed}.safetensors"
    trained = kept_model(recipe_of(case, plan, seed), case.sha256, model)
    begun = time.perf_counter()
    start = _begin(case, plan)
    replay(case.recording, model, "fixed(1)", folder / "held", start=start, stop=case.test)
    before = _trace(folder / "held")
    held = before.filter(pl.Series(rows_of(before, start)[0] >= case.validation))
    found = {}
    for trigger in TRIGGERS:
        spec = spec_of(trigger, held, plan.share)
        replay(
            case.recording, model, spec, folder / trigger, start=start, seed=seed,
            max_passes=PASSES,
        )  # fmt: skip
        trace = _trace(folder / trigger)
        first, end = rows_of(trace, start)
        tested = first >= case.test
        labels = np.array([case.flags[a:b].any() for a, b in zip(first, end, strict=True)])
        looked = signal(trigger, trace)
        found[trigger] = {
            "policy": spec,
            **judged(
                None if looked is None else looked[tested],
                trace["passes"].to_numpy()[tested],
                labels[tested],
                shuffles=plan.shuffles,
            ),
        }
    return {
        "triggers": found,
        **trained,
        "seconds": trained["train_seconds"] + time.perf_counter() - begun,
    }


def check_labelled(case: Case, plan: Plan) -> None:
    """Refuse a recording without a labelled window in its test part. Raises InputError."""
    first = case.test + (_begin(case, plan) - case.test) % plan.window
    if not case.flags[first:].any():
        raise InputError(
            f"{case.name}: no row of its test windows, {first} to {len(case.flags)}, is labelled, "
            "so no trigger can be judged there; leave its file out of --data"
        )


def _begin(case: Case, plan: Plan) -> int:
    """The row at which the replays of a case begin."""
    return max(case.validation - plan.warm, 0)


def recipe_of(case: Case, plan: Plan, seed: int) -> Recipe:
    """The series preset, made smaller, on the training rows of a case."""
    rows = len(case.flags)
    ends = case.validation / rows, case.test / rows
    return recipe_on(case.recording, ends, plan, seed)


def recipe_on(recording: str, ends: tuple[float, float], plan: Plan, seed: int) -> Recipe:
    """The same on any recording, whose training and validation rows end at these shares."""
    return small_recipe("series", {"width": plan.width}, recording, ends, plan, seed)


def _told(case: Case, plan: Plan, seed: int) -> dict[str, Any]:
    """What decides the result of a job."""
    rows = {"sha256": case.sha256, "validation": case.validation, "test": case.test}
    return {"plan": asdict(plan), "case": case.name, "rows": rows, "seed": seed}


def _trace(run: Path) -> pl.DataFrame:
    return open_run(run).trace().sort("window").collect()


def summary(
    cases: Sequence[Case],
    plan: Plan,
    seeds: Sequence[int],
    found: Mapping[Key, Mapping[str, Any]],
    *,
    wall: float,
) -> dict[str, Any]:
    """What was found, with stable keys: under `cases`, each recording's `base` rate, `windows`, and
    by trigger what `landed` says; the same over recordings under `over_cases`, as what is gained on
    the base rate; `seeds`, `seconds` a seed, and where it comes from."""
    by_case = {case.name: [found[case.name, seed]["triggers"] for seed in seeds] for case in cases}
    seconds = [sum(found[case.name, seed]["seconds"] for case in cases) for seed in seeds]
    return {
        "probe": NAME,
        "cases": {case.name: _of_case(case, by_case[case.name]) for case in cases},
        "over_cases": {trigger: _over_cases(trigger, by_case) for trigger in TRIGGERS},
        "seeds": list(seeds),
        "seconds": float(np.mean(seconds)),
        "wall_seconds": wall,
        "plan": json.loads(json.dumps(asdict(plan))),
        "commit": commit(),
    }


def _of_case(case: Case, by_seed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One recording: its parts, and what each trigger's seeds come to."""
    first = by_seed[0][RANDOM]
    return {
        "label": case.rule,
        "rows": {"validation": case.validation, "test": case.test, "end": len(case.flags)},
        "labelled_rows_before_test": int(case.flags[: case.test].sum()),
        **{name: first[name] for name in ("windows", "labelled", "base")},
        "triggers": {
            trigger: landed([s[trigger] for s in by_seed], [s[RANDOM] for s in by_seed])
            for trigger in TRIGGERS
        },
    }


def _over_cases(trigger: str, by_case: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Means over recordings of average precision less the base rate, over seeds."""
    each: dict[str, Any] = {"signal": None}
    for name in ("signal", "passes"):
        gained = [
            [seed[trigger][name]["precision"] - seed[trigger]["base"] for seed in seeds]
            for seeds in by_case.values()
            if seeds[0][trigger][name] is not None
        ]
        if gained:
            each[name] = over_seeds(np.mean(gained, axis=0).tolist())
    return each


def table_of(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of what is printed: by recording and trigger, then over recordings."""
    columns = [
        "recording, trigger", "AP of signal", "AP of passes", "base rate", "passes to random",
        "slept on", "p shuffled", "p rotated",
    ]  # fmt: skip
    rows = []
    for name, case in found["cases"].items():
        for trigger, row in case["triggers"].items():
            best = row["signal"] or row["passes"]
            rows.append([
                f"{name}, {trigger}", figure(row["signal"]), figure(row["passes"]),
                f"{case['base']:.3f}", figure(row["passes_to_random"], sign="+"),
                f"{row['share']:.0%}", f"{np.median(best['p_shuffled']):.3f}",
                f"{np.median(best['p_rotated']):.3f}",
            ])  # fmt: skip
    for trigger, row in found["over_cases"].items():
        gained = [figure(row[name], sign="+") for name in ("signal", "passes")]
        rows.append([f"mean over base, {trigger}", *gained, *[""] * 5])
    return columns, rows


def said(found: Mapping[str, Any]) -> str:
    """What the table says, in plain sentences, and what must be known beside it."""
    cases = found["cases"]
    lines = []
    for trigger in TRIGGERS:
        lands = [name for name, case in cases.items() if case["triggers"][trigger]["lands"]]
        lines.append(f"{trigger} {len(lands)}" + (f" ({', '.join(lands)})" if lands else ""))
    inside = [name for name, case in cases.items() if case["labelled_rows_before_test"]]
    seeds = len(found["seeds"])
    return (
        f"Of {len(cases)} recordings, labelled windows stand out (average precision above the base "
        f"rate in every seed, p rotated at most 0.05 in most; of passes for random): "
        f"{'; '.join(lines)}. One test in twenty says so by chance. p is of the signal, the median "
        f"over seeds. A label of NAB is a span around an event, most of it ordinary rows; at a "
        f"steady step event_density is constant but for rounding. Labelled "
        f"rows lie in what was trained on or held out of {', '.join(inside) or 'none'}. {seeds} "
        f"seed(s), {found['seconds']:.0f} s a seed, commit {found['commit']}"
    )
