"""The tables of a comparison's recipe that say what else the compute of sleep could buy.

What is run for them is in compare_baselines.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_sleep.config import read_toml
from adaptive_sleep.experiments.baselines.registry import BASELINES, find_baseline
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.learning import read_task_recipe
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.training_recipe import read_recipe

# In the name of a baseline's row: its knob costs less than the target, more, or as much as any;
# and its model was trained with as much compute.
SIDES = BELOW, ABOVE, MOST = "-below", "-above", "-most"
COMPUTE = "-compute"
BY_COST = "-by-cost"  # of a policy's row: its setting was found by its cost, as knobs are


@dataclass(frozen=True)
class BaselineEntry:
    """One of `[[baselines]]`, by its name. It is trained on as many tokens as the model that
    sleeps, and with `equal_compute` another time with as many training FLOPs: `true` at every
    target, or at those that it lists."""

    name: str
    equal_compute: bool | tuple[float, ...] = False

    def computes_at(self, target: float) -> bool:
        """Whether it is trained once more at that target, with as many training FLOPs."""
        wanted = self.equal_compute
        return wanted if isinstance(wanted, bool) else target in wanted


def check_apart(policies: Sequence[str], baselines: Sequence[str]) -> None:
    """Raise InputError for a policy that has the name of a row that a comparison adds."""
    for name in policies:
        if name.endswith(BY_COST):
            raise InputError(
                f"policies: the name {name!r} is that of a row that every comparison adds, of "
                f"{name.removesuffix(BY_COST)!r} set by its cost; rename the policy"
            )
    for name, side, compute in itertools.product(baselines, ("", *SIDES), ("", COMPUTE)):
        if f"{name}{side}{compute}" in policies:
            raise InputError(
                f"policies: the name {name + side + compute!r} is that of a row of the baseline "
                f"{name!r}; rename the policy"
            )


def check_baselines(
    entries: Sequence[BaselineEntry], targets: Sequence[float], training: str, *, task: bool
) -> None:
    """Raise InputError for what is wrong in the tables; `training`: the recipe of the models (""
    where they are there already); `task`: whether samples of one are run, or a recording."""
    names = [entry.name for entry in entries]
    for name in names:
        find_baseline(name)
    if len(set(names)) != len(names):
        raise InputError(f"baselines={names}: each once")
    if bool(names) != bool(targets):
        raise InputError(
            f"targets={list(targets)}: they go with [[baselines]], times the FLOPs per event of "
            "the plain hybrid, e.g. [1.25, 1.5, 2.0]"
        )
    if any(not 1.0 < a < math.inf for a in targets) or any(
        a >= b for a, b in itertools.pairwise(targets)
    ):
        raise InputError(f"targets={list(targets)}: rising numbers above 1")
    for entry in entries:
        wanted = () if isinstance(entry.equal_compute, bool) else entry.equal_compute
        if len(set(wanted)) != len(wanted) or not set(wanted) <= set(targets):
            raise InputError(
                f"[[baselines]] {entry.name!r}: equal_compute={list(wanted)}: true, false or some "
                f"of targets={list(targets)}, each once"
            )
    if not names:
        return
    if not training:
        raise InputError("[[baselines]]: they are trained; give [models] recipe")
    where = find_recipe(training)
    if ("task" in read_toml(where)) != task:
        raise InputError(
            f"[models] recipe={training!r}: baselines are trained by it and run on "
            f"{'[task]' if task else '[recording]'}, but it is of a "
            f"{'recording' if task else 'task'}"
        )
    if task:
        read_task_recipe(where)
        return
    read_recipe(where)
    for name in names:
        if find_baseline(name).of_tasks:
            raise InputError(
                f"[[baselines]] {name!r}: trained on tasks alone, but this is a recording "
                f"({', '.join(n for n, b in BASELINES.items() if not b.of_tasks)})"
            )
