"""Seeds of a probe of real data: jobs that are kept as they end, and small models for them.

Each job is one file of JSON, so that a killed probe goes on with the jobs that lack.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from adaptive_sleep.experiments.jobs import Given, one_thread, side_by_side
from adaptive_sleep.experiments.probes.summing import kept_or_done
from adaptive_sleep.experiments.reproduce import Report
from adaptive_sleep.training import train
from adaptive_sleep.training_recipe import PRESETS, DataRecipe, Recipe

SEEDS = 5
Key = tuple[str, int]  # what is probed, and the trained seed
Job = Callable[..., dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What every plan says of training: sizes in events, windows and steps."""

    window: int
    windows: int  # of a training sequence
    steps: int
    validate_every: int
    passes: str = "1-4"


def kept_jobs(
    do: Job,
    work: Mapping[Key, Given],
    told: Mapping[Key, Mapping[str, Any]],
    out: Path,
    *,
    jobs: int | None = None,
    on_progress: Report | None = None,
) -> dict[Key, dict[str, Any]]:
    """Do every job on one thread, `jobs` of them side by side (None: one for each core), and keep
    each in `out`/NAME-seed-S.json; a job that is there already, and was told the same, is taken up.

    `do` is a function of a module that returns JSON; `told` says what decides its result.
    """
    out.mkdir(parents=True, exist_ok=True)
    given = {
        key: (
            do,
            str(out / f"{key[0]}-seed-{key[1]}.json"),
            json.loads(json.dumps(told[key])),
            each,
        )
        for key, each in work.items()
    }
    found: dict[Key, dict[str, Any]] = {}
    for key, done in side_by_side(_kept, given, jobs):
        found[key] = done
        if on_progress is not None:
            on_progress(len(found), len(work), f"{key[0]}, seed {key[1]}")
    return {key: found[key] for key in work}


def _kept(do: Job, file: str, told: Mapping[str, Any], given: Given) -> dict[str, Any]:
    with one_thread():
        return kept_or_done(Path(file), told, lambda: do(*given))


def small_recipe(
    preset: str,
    model: Mapping[str, Any],
    recording: str,
    ends: tuple[float, float],
    plan: Sizes,
    seed: int,
) -> Recipe:
    """A preset made smaller, on a recording: the rows up to the first of `ends` are trained on,
    those up to the second are for validation (shares of all rows)."""
    base = PRESETS[preset]
    return Recipe(
        model={**base.model, "window": plan.window, **model},
        data=DataRecipe(recording=recording, train=(0.0, ends[0]), validation=ends),
        training=replace(
            base.training, steps=plan.steps, windows=plan.windows, bptt=plan.windows,
            validate_every=plan.validate_every, passes=plan.passes, seed=seed,
        ),
    )  # fmt: skip


def kept_model(recipe: Recipe, sha256: str, file: Path) -> dict[str, Any]:
    """Train the model `file` unless it is there, of the same recipe and recording (by its hash, not
    its path): two probes in one folder share their models.

    Returns `step` (which validation chose), `validation` (loss by passes) and `train_seconds`.
    Raises InputError.
    """
    said = asdict(replace(recipe, data=replace(recipe.data, recording="")))
    told = json.loads(json.dumps({"recipe": said, "sha256": sha256}))
    beside = file.with_suffix(".json")

    def do() -> dict[str, Any]:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)  # killed between two files, nothing is taken for another
        trained = train(recipe, file)
        losses = {str(n): loss for n, loss in trained.validation.items()}
        return {
            "step": trained.step, "validation": losses, "train_seconds": trained.seconds
        }  # fmt: skip

    if not file.is_file():
        beside.unlink(missing_ok=True)
    found = kept_or_done(beside, told, do)
    return {name: found[name] for name in ("step", "validation", "train_seconds")}
