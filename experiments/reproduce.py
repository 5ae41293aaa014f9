"""Reproducing an experiment: models trained on a task at varying N, and controls at N = 1, tested.

A recipe says what is trained. Every seed trains the model, controls at N = 1 on as many tokens,
and others at N = 1 with as much compute; all are tested on samples that training never drew.
The command is in commands_learn.py, the figure in reproduce_figure.py.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.config import decode
from adaptive_sleep.curriculum import in_one_pass, without_stages
from adaptive_sleep.experiments.finding import find_recipe, find_trained, shipped_recipes
from adaptive_sleep.experiments.jobs import Given, one_thread, side_by_side
from adaptive_sleep.experiments.runs import versions
from adaptive_sleep.experiments.training_cost import step_flops
from adaptive_sleep.learning import (
    Accuracy,
    TaskRecipe,
    accuracy,
    check_made_for,
    config_of,
    read_task_recipe,
    task_of,
)
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError, nearest
from adaptive_sleep.streams.manifest import write_atomically
from adaptive_sleep.streams.tasks.task import Part
from adaptive_sleep.task_training import learn
from adaptive_sleep.training_recipe import parse_passes

EXPERIMENTS = (
    "chain",
    "chain-long",
    "chain-stream",
    "depo",
    "gsm-symbolic",
    "gsm-worded",
    "hops",
    "hops-stream",
    "hops-two",
    "hops-two-16",
    "lead-lag",
    "lead-lag-continuous",
    "rule110",
    "sliding-window",
)
SEEDS = (0, 1, 2, 3, 4)
STAGED = ("control_staged", "control_staged_compute")  # of a recipe in stages
COMPUTE = ("control_compute", "control_staged_compute")  # they need to know the model's FLOPs
KINDS = ("model", "control", "control_compute", *STAGED)
Report = Callable[[float, float | None, str], None]


def recipe_of(name: str, changes: Sequence[str] = ()) -> TaskRecipe:
    """The recipe of an experiment, by its name or the path of a TOML file, with `changes` such as
    "model.carry=restart" made to it. Raises InputError."""
    if name in EXPERIMENTS:
        file = find_recipe(name.replace("-", "_"))
    elif name.endswith(".toml") or name in shipped_recipes():
        file, _ = find_trained(name, "reproduce", recordings=False)
    else:
        raise InputError(
            f"reproduce {name!r}: no such experiment{nearest(name, (*EXPERIMENTS, 'etth1'))} "
            f"({', '.join(EXPERIMENTS)}, etth1; or a recipe named *.toml)"
        )
    return read_task_recipe(file, changes)


def variant(recipe: TaskRecipe, kind: str, steps: int = 0, flops: float = 0.0) -> TaskRecipe:
    """The recipe of the model, or of a control at N = 1: in as many `steps` as the model took, so
    on as many tokens, or in as many FLOPs as the training of the model took (`COMPUTE`); asked for
    all from the first step on, or in the stages of the model, asked of its one pass (`STAGED`)."""
    if kind == "model":
        return recipe
    once = in_one_pass if kind in STAGED else without_stages
    training = replace(once(recipe.training), steps=steps)
    if kind in COMPUTE:
        each = step_flops(replace(recipe, training=training))
        training = replace(training, steps=max(1, round(flops / each)))
    return replace(recipe, training=training)


def train_and_test(
    recipe: TaskRecipe, folder: str, seed: int, part: Part = "test"
) -> dict[str, Any]:
    """One job, on one thread: train, or take up, and test on samples of a part, unless this code
    tested this model so before."""
    with one_thread():
        learned = learn(recipe, folder, seed=seed)
        found = _tested_once(learned.model, recipe, part, Path(folder) / f"tested-{part}.json")
    return {
        "accuracy": found,
        "tokens": learned.tokens,
        "flops": learned.flops,
        "seconds": learned.seconds,
        "steps": learned.steps,
    }


def _tested_once(model: Model, recipe: TaskRecipe, part: Part, file: Path) -> Accuracy:
    """What `tested` finds, or what it found, if the file holds what the same committed code and
    libraries found of the same model."""
    code, test = commit(), {"task": recipe.task, "test": asdict(recipe.test), "keep": recipe.keep}
    asked = {"code": code, "versions": versions(), "model": model.hash, **test}
    asked = json.loads(json.dumps({**asked, "eviction": recipe.eviction}))  # as it is written
    if file.is_file() and not code.endswith("-dirty"):
        held = json.loads(file.read_text(encoding="utf-8"))
        if held["asked"] == asked:
            told = held["accuracy"].items()
            return {int(n): {int(d): share for d, share in by.items()} for n, by in told}
    found = tested(model, recipe, part)
    text = json.dumps({"asked": asked, "accuracy": found}, indent=1) + "\n"
    write_atomically(file, text.encode())
    return found


def tested(model: Model, recipe: TaskRecipe, part: Part) -> Accuracy:
    """Accuracy on a part, by passes and difficulty; of validation on other samples than those that
    training looks at."""
    task, test = task_of(recipe), recipe.test
    return accuracy(
        model, task, test, part=part, samples=test.samples, seed=int(part == "validation"),
        eviction=recipe.eviction, keep=recipe.keep,
    )  # fmt: skip


def reproduce(
    name: str,
    out: str | Path,
    *,
    seeds: Sequence[int] = SEEDS,
    kinds: Sequence[str] = KINDS,
    changes: Sequence[str] = (),
    jobs: int | None = None,
    on_progress: Report | None = None,
) -> dict[str, Any]:
    """Train and test every seed and control of an experiment in folders under `out`; killed, it
    goes on where it was. `changes` are made to the recipe; `jobs` processes of one thread each.

    Returns what `summary` does. Where "model" is not among the `kinds`, the result that was kept of
    this recipe with new controls, each of which says its own commit. Raises InputError.
    """
    recipe = recipe_of(name, changes)
    if not recipe.training.stages:
        kinds = _without_stages(name, kinds)
    kept = None if "model" in kinds else _told(name, recipe, seeds, kinds)
    folder, begun = Path(out), time.perf_counter()
    found: dict[str, dict[int, dict[str, Any]]] = {kind: {} for kind in kinds}
    # in stages, a model says only in the end how many steps it took
    known = ("model",) if recipe.training.stages else ("model", "control")
    first = [kind for kind in kinds if kept or kind in known]

    def job(kind: str, seed: int, steps: int, flops: float = 0.0) -> Given:
        return variant(recipe, kind, steps, flops), str(folder / f"seed-{seed}" / kind), seed

    def then(key: tuple[str, int], done: dict[str, Any]) -> dict[tuple[str, int], Given]:
        if key[0] != "model":
            return {}
        rest = [kind for kind in kinds if kind not in first]
        return {(kind, key[1]): job(kind, key[1], done["steps"], done["flops"]) for kind in rest}

    def given(kind: str, seed: int) -> Given:
        if kept is None:
            return job(kind, seed, recipe.training.steps)
        return job(kind, seed, kept["steps"][str(seed)], kept.get("flops", {}).get(str(seed), 0.0))

    work = {(kind, seed): given(kind, seed) for kind in first for seed in seeds}
    for count, (key, done) in enumerate(side_by_side(train_and_test, work, jobs, then=then), 1):
        found[key[0]][key[1]] = done
        if on_progress is not None:
            on_progress(count, len(kinds) * len(seeds), f"{key[0]}, seed {key[1]}")
    if kept:
        told = {kind: {**_of_control(done), "commit": commit()} for kind, done in found.items()}
        return with_gains(json.loads(json.dumps({**kept, **told})))
    return summary(name, recipe, found, time.perf_counter() - begun)


def summary(
    name: str, recipe: TaskRecipe, found: Mapping[str, Mapping[int, Mapping[str, Any]]], wall: float
) -> dict[str, Any]:
    """What was found, with stable keys: `accuracy` and `interval` by N and difficulty (means and
    95 % t-intervals over seeds), the same under each control's kind, with what sleep gained on them
    (`with_gains`), every seed's own, its steps and FLOPs, and where it comes from."""
    main = found["model"]
    model = Model(config_of(recipe))
    result: dict[str, Any] = {
        "experiment": name,
        **averaged({seed: job["accuracy"] for seed, job in main.items()}),
        "seeds": sorted(main),
        "tokens": max(job["tokens"] for job in main.values()),
        "seconds": float(np.mean([job["seconds"] for job in main.values()])),
        "steps": {seed: main[seed]["steps"] for seed in sorted(main)},
        "flops": {seed: main[seed]["flops"] for seed in sorted(main)},
        "wall_seconds": wall,
        "parameters": model.parameters_count,
        "commit": commit(),
        "recipe": json.loads(json.dumps(asdict(recipe))),  # with what it leaves to defaults
    }
    result |= {kind: _of_control(found[kind]) for kind in KINDS[1:] if kind in found}
    return with_gains(result)


def _without_stages(name: str, kinds: Sequence[str]) -> list[str]:
    """The kinds that a recipe without stages has. Raises InputError for one that is for stages,
    unless all are asked for, as they are by default."""
    staged = [kind for kind in kinds if kind in STAGED]
    if staged and tuple(kinds) != KINDS:
        some = [kind for kind in KINDS if kind not in STAGED]
        raise InputError(
            f"reproduce {name}: kinds={','.join(kinds)}: {staged[0]!r} is for recipes in stages; "
            f"one of {', '.join(some)}"
        )
    return [kind for kind in kinds if kind not in STAGED]


def _told(
    name: str, recipe: TaskRecipe, seeds: Sequence[int], kinds: Sequence[str]
) -> dict[str, Any]:
    """The kept result, which tells what controls of these kinds get. Raises InputError."""
    asked = f"reproduce {name}: kinds={','.join(kinds)}"
    try:
        kept = kept_result(name)
        same = "recipe" in kept and decode(TaskRecipe, kept["recipe"]) == recipe
    except InputError as error:
        raise InputError(
            f"{asked}: no result of this recipe is kept ({error}); add 'model'"
        ) from None
    if not same:
        raise InputError(f"{asked}: the kept result is of another recipe; add 'model'")
    for field in ("steps", "flops") if set(kinds) & set(COMPUTE) else ("steps",):
        for seed in seeds:
            if str(seed) not in kept.get(field, {}):
                raise InputError(
                    f"{asked}: the kept result does not tell the {field} of seed {seed}; "
                    "add 'model'"
                )
    return kept


def _of_control(jobs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """What a result says of a control."""
    return {
        **averaged({seed: job["accuracy"] for seed, job in jobs.items()}),
        "tokens": max(job["tokens"] for job in jobs.values()),
        "seconds": float(np.mean([job["seconds"] for job in jobs.values()])),
        "steps": {seed: jobs[seed]["steps"] for seed in sorted(jobs)},
        "flops": {seed: jobs[seed]["flops"] for seed in sorted(jobs)},
    }


def with_gains(result: dict[str, Any]) -> dict[str, Any]:
    """The result, with what sleep gained: `gains` by N and difficulty, the accuracy at N less that
    of the same model at N = 1, and of each control that it has less that of the control at N = 1;
    means over the seeds that both have, and their `gains_interval`. `gain` and `gain_interval` are
    those of the highest N both trained and tested, `gain_passes`. `control` is there, None where
    none was trained.
    """
    result.setdefault("control", None)
    _, trained = parse_passes(result["recipe"]["training"]["passes"])
    most = max((n for n in result["accuracy"] if int(n) <= trained), key=int)
    result["gain_passes"] = int(most)
    for other in (result, *(result[kind] for kind in KINDS[1:] if result.get(kind))):
        if passes_once(other) is None:
            continue
        both = [seed for seed in result["by_seed"] if seed in other["by_seed"]]
        gained = averaged({s: _less(result["by_seed"][s], other["by_seed"][s]) for s in both})
        other["gains"], other["gains_interval"] = gained["accuracy"], gained["interval"]
        other["gain"] = other["gains"][most]
        other["gain_interval"] = other["gains_interval"][most]
    return result


def passes_once(found: Mapping[str, Any] | None) -> Any:
    """N = 1 as the accuracy of a model or control has it (text, in a file); None without one, or
    where its test leaves N = 1 out."""
    return next((n for n in (found or {}).get("accuracy", ()) if int(n) == 1), None)


def _less(found: Mapping[Any, Any], other: Mapping[Any, Any]) -> dict[Any, dict[Any, float]]:
    """Accuracy by N and difficulty, less the other's at one pass (N may be text, as in JSON)."""
    once = next(row for n, row in other.items() if int(n) == 1)
    return {n: {d: value - once[d] for d, value in row.items()} for n, row in found.items()}


def averaged(by_seed: Mapping[int, Accuracy]) -> dict[str, Any]:
    """Means over seeds, their 95 % t-intervals (null for one seed), and each seed's own."""
    first = next(iter(by_seed.values()))
    cells = {n: {d: [by_seed[s][n][d] for s in sorted(by_seed)] for d in first[n]} for n in first}
    return {
        "accuracy": {n: {d: float(np.mean(v)) for d, v in row.items()} for n, row in cells.items()},
        "interval": {n: {d: interval(v) for d, v in row.items()} for n, row in cells.items()},
        "by_seed": {seed: by_seed[seed] for seed in sorted(by_seed)},
    }


def interval(values: Sequence[float]) -> list[float] | None:
    """The 95 % t-interval of a mean over seeds; None where there are fewer than two."""
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return [mean - half, mean + half]


def commit() -> str:
    """The commit that this code is from, "-dirty" where files differ; the version where git does
    not track this file, as where it is installed in somebody's own repository."""
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return version("adaptive-sleep")
    told = _git(here.parent, "describe", "--always", "--abbrev=12", "--dirty")
    return told or version("adaptive-sleep")


def _git(folder: Path, *command: str) -> str | None:
    """What git says in a folder; None where it fails, or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def from_checkpoint(name: str, where: str) -> dict[str, Any]:
    """Test a trained model on the test part of an experiment. Raises InputError."""
    recipe = recipe_of(name)
    model, begun = load_model(where), time.perf_counter()
    check_made_for(model.config, task_of(recipe).space, f"--from-checkpoint {where}", name)
    found = tested(model, recipe, "test")
    return {
        "experiment": name,
        **averaged({0: found}),
        "control": None,
        "seeds": [],
        "tokens": 0,
        "seconds": time.perf_counter() - begun,
        "parameters": model.parameters_count,
        "commit": commit(),
        "checkpoint": where,
    }


def from_results(name: str) -> dict[str, Any]:
    """What the last full run wrote. Raises InputError where there is none."""
    recipe_of(name)
    return with_gains(kept_result(name))


def kept_result(name: str) -> dict[str, Any]:
    """The results file of an experiment or a file of choices. Raises InputError."""
    stem = name.replace("-", "_")
    file = resources.files("adaptive_sleep.experiments") / "results" / f"{stem}.json"
    if not file.is_file():
        raise InputError(f"{name} --from-results: no full run has been kept yet")
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return kept
