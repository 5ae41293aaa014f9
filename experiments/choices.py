"""Choices by experiment: a recipe, changed in one thing at a time, trained over seeds and compared.

A file of choices names a recipe and, for each choice, the changes that it makes to it. Every choice
and every seed trains one model. It is judged on the validation part, so that whoever chooses by it
has not looked at the samples of a result; where a choice leaves the task as it is, these are the
same samples, and its difference to the recipe as it is, is paired by seed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_sleep.config import decode, read_toml
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.experiments.jobs import side_by_side
from adaptive_sleep.experiments.reproduce import (
    Report,
    averaged,
    commit,
    interval,
    kept_result,
    train_and_test,
)
from adaptive_sleep.learning import TaskRecipe, config_of, read_task_recipe
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError, nearest

AS_IS = "as-is"
Found = Mapping[int, Mapping[str, Any]]  # seed -> what `train_and_test` gave


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A name, and the changes "table.field=value" that it makes to the recipe; not to how it is
    tested."""

    name: str
    changes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a file of choices says: a recipe, ours by its name or a file *.toml beside this one."""

    recipe: str
    seeds: int = 3  # from 0
    choices: tuple[Choice, ...] = ()


def read_choices(where: str | Path) -> tuple[Choices, dict[str, TaskRecipe]]:
    """A file of choices, and the recipe that each choice makes; "as-is", unchanged, is the first.

    Raises InputError naming the choice and the field.
    """
    file = find_recipe(where)
    given = decode(Choices, read_toml(file), where=str(file))
    if given.seeds < 1:
        raise InputError(f"{file}: seeds={given.seeds}: at least 1")
    names = [choice.name for choice in given.choices]
    for name in names:
        if name in ("", ".", "..", AS_IS) or "/" in name or names.count(name) > 1:
            raise InputError(
                f"{file}: choice name={name!r}: a name of its own, which a folder can have; "
                f"{AS_IS!r} is the recipe unchanged"
            )
    beside = file.parent / given.recipe
    base = beside if given.recipe.endswith(".toml") else find_recipe(given.recipe)
    made = {AS_IS: read_task_recipe(base)}
    for choice in given.choices:
        try:
            made[choice.name] = read_task_recipe(base, choice.changes)
            for part in ("test", "eviction", "keep"):
                if getattr(made[choice.name], part) != getattr(made[AS_IS], part):
                    raise InputError(
                        f"changes {part}: all choices are tested alike; change the recipe"
                    )
        except InputError as error:
            raise InputError(f"{file}: choice {choice.name!r}: {error}") from None
    return given, made


def compare_choices(
    where: str | Path,
    out: str | Path,
    *,
    only: Sequence[str] = (),
    seeds: int | None = None,
    jobs: int | None = None,
    on_progress: Report | None = None,
) -> dict[str, Any]:
    """Train and test every choice over seeds, in folders under `out`; killed, it goes on where it
    was. `only` some choices, and the recipe as it is; `jobs` processes of one thread each.

    Returns `rows`, one for each choice (`_row`), and where they come from. Raises InputError.
    """
    given, recipes = read_choices(where)
    for name in only:
        if name not in recipes:
            known = ", ".join(recipes)
            raise InputError(f"--only {name!r}: no such choice{nearest(name, recipes)} ({known})")
    chosen = [name for name in recipes if not only or name in (AS_IS, *only)]
    numbers, begun = range(given.seeds if seeds is None else seeds), time.perf_counter()
    work = {
        (name, seed): (recipes[name], str(Path(out) / name / f"seed-{seed}"), seed, "validation")
        for seed in numbers
        for name in chosen
    }
    found: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in chosen}
    for count, (key, done) in enumerate(side_by_side(train_and_test, work, jobs), 1):
        found[key[0]][key[1]] = done
        if on_progress is not None:
            on_progress(count, len(work), f"{key[0]}, seed {key[1]}")
    changes = {AS_IS: (), **{choice.name: choice.changes for choice in given.choices}}
    rows = [_row(n, changes[n], recipes[n], found[n]) for n in chosen]
    for row in rows:
        if recipes[row["name"]].task == recipes[AS_IS].task:
            row |= _difference(found[row["name"]], found[AS_IS], row["mean"])
    return {
        "choices": Path(where).stem,
        "recipe": given.recipe,
        "seeds": list(numbers),
        "part": "validation",
        "rows": rows,
        "wall_seconds": time.perf_counter() - begun,
        "commit": commit(),
    }


def _row(name: str, changes: Sequence[str], recipe: TaskRecipe, found: Found) -> dict[str, Any]:
    """One choice: accuracy by N and difficulty (as `averaged` gives it); the same by N, as means
    over difficulties; what training took; and `difference`, to the recipe as it is, by N, which is
    filled where the task is the same."""
    whole = averaged({seed: done["accuracy"] for seed, done in found.items()})
    means = {n: _means(found, n) for n in whole["accuracy"]}
    return {
        "name": name,
        "changes": list(changes),
        "parameters": Model(config_of(recipe)).parameters_count,
        **whole,
        "mean": {n: float(np.mean(list(v.values()))) for n, v in means.items()},
        "mean_interval": {n: interval(list(v.values())) for n, v in means.items()},
        "difference": {},
        "difference_interval": {},
        "steps": {seed: found[seed]["steps"] for seed in sorted(found)},
        "tokens": max(done["tokens"] for done in found.values()),
        "seconds": float(np.mean([done["seconds"] for done in found.values()])),
        "flops": float(np.mean([done["flops"] for done in found.values()])),
    }


def _difference(found: Found, base: Found, passes: Iterable[int]) -> dict[str, Any]:
    """What a choice is better by than the recipe as it is, by N, paired by seed."""
    pairs = {}
    for n in passes:
        mine, theirs = _means(found, n), _means(base, n)
        pairs[n] = [mine[seed] - theirs[seed] for seed in mine]
    return {
        "difference": {n: float(np.mean(each)) for n, each in pairs.items()},
        "difference_interval": {n: interval(each) for n, each in pairs.items()},
    }


def _means(found: Found, passes: int) -> dict[int, float]:
    """Each seed's accuracy at N passes, as a mean over difficulties."""
    return {
        seed: float(np.mean(list(found[seed]["accuracy"][passes].values())))
        for seed in sorted(found)
    }


def choices_found(name: str) -> dict[str, Any]:
    """What the last full run of a file of choices of ours wrote. Raises InputError."""
    read_choices(name)
    return kept_result(name)
