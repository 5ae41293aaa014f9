"""Times a training step of the recipe hops on one core, beside the same step in plain torch:
`adaptive-sleep bench training`.

Correctness comes first: where loss or gradients of the two differ there is no speed to report. The
plain step, with two forms of the gated delta rule, is in `plain_step`.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from adaptive_sleep.curriculum import Drawn, LearningRecipe, draw, without_stages
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.experiments.jobs import one_thread
from adaptive_sleep.experiments.plain_step import RULES, Form, PlainHybrid, PlainOptimiser
from adaptive_sleep.learning import (
    Optimiser,
    TaskRecipe,
    config_of,
    gradient,
    rate_factor,
    read_task_recipe,
    task_of,
)
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import AdaptiveSleepError
from adaptive_sleep.streams.tasks.task import Task
from adaptive_sleep.training_recipe import parse_passes

RECIPE = "hops"
STEPS = 40  # timed, over the whole training, each by every contender in turn
WARM = 3  # before them, not timed
BOUND = 1e-4  # relative, of loss and of each parameter's gradient
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")

Step = Callable[[int], object]  # one whole training step, by number


def unstaged(training: LearningRecipe) -> LearningRecipe:
    """The training after its stages, if it has any: how long those last is not known beforehand."""
    if not training.stages:
        return training
    return replace(without_stages(training), passes=training.passes)


def drawn_at(task: Task, training: LearningRecipe, seed: int, step: int) -> Drawn:
    """What `learning.gradient` draws for (seed, step)."""
    return draw(task, training, np.random.default_rng([seed, step]), step)


class Contenders:
    """The shipped step and the plain ones, all from the same weights."""

    def __init__(self, recipe: TaskRecipe, seed: int = 0) -> None:
        self.task, self.training, self.seed = task_of(recipe), unstaged(recipe.training), seed
        torch.manual_seed(seed)
        config = config_of(recipe)
        self.model = Model(config)
        self.plain = {form: PlainHybrid(config, form) for form in RULES}
        for model in self.plain.values():
            model.load_state_dict(self.model.state_dict())
        self.optimiser = Optimiser(self.model, self.training)
        self.optimisers = {
            form: PlainOptimiser(model, self.training) for form, model in self.plain.items()
        }

    def our_gradient(self, step: int, training: LearningRecipe) -> float:
        """Accumulate the clipped gradient of a step; its loss."""
        return gradient(self.model, self.task, training, self.seed, step).loss

    def plain_gradient(self, form: Form, step: int, training: LearningRecipe) -> float:
        """The same, in plain torch."""
        model, drawn = self.plain[form], drawn_at(self.task, training, self.seed, step)
        loss = model.loss(drawn.batch, drawn.passes, every=drawn.lessons != "last")
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        return float(loss.detach())

    def our_step(self, step: int) -> None:
        """One whole step."""
        self.our_gradient(step, self.training)
        self.optimiser.step(step, self.training.steps)

    def plain_step(self, form: Form, step: int) -> None:
        """One whole step in plain torch."""
        self.plain_gradient(form, step, self.training)
        factor = rate_factor(self.training, step, self.training.steps)
        self.optimisers[form].step(factor)

    def check(self) -> None:
        """Hold loss and gradients of all to each other, for every N that the recipe draws.

        Raises AdaptiveSleepError naming what differs.
        """
        low, high = parse_passes(self.training.passes)
        for passes in range(low, high + 1):
            fixed = replace(self.training, passes=str(passes))
            loss = self.our_gradient(0, fixed)
            for form, model in self.plain.items():
                wanted = self.plain_gradient(form, 0, fixed)
                _hold(f"loss, N={passes}, {form}", abs(loss - wanted) / abs(wanted))
                theirs = dict(model.named_parameters())
                for name, p in self.model.named_parameters():
                    _hold(f"gradient of {name}, N={passes}, {form}", _apart(p, theirs[name]))
                model.zero_grad()
            self.model.zero_grad()


def _apart(ours: nn.Parameter, theirs: nn.Parameter) -> float:
    if ours.grad is None or theirs.grad is None:
        return 0.0 if ours.grad is theirs.grad else math.inf
    return float((ours.grad - theirs.grad).norm() / theirs.grad.norm().clamp(min=1e-12))


def _hold(what: str, found: float) -> None:
    if not found < BOUND:
        raise AdaptiveSleepError(
            f"bench training: {what}: {found:.1e} from the plain step's (allowed: {BOUND:.0e}); "
            "no speed is reported"
        )


class _Products(TorchDispatchMode):
    """Adds up the CPU seconds of matrix products that run under it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start = time.process_time()
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in PRODUCTS:
            self.seconds += time.process_time() - start
        return result


def spread(total: int, count: int) -> list[int]:
    """The numbers of `count` steps, evenly over a training of `total`: a recipe may change N and
    the loss as it goes."""
    return [n * total // count for n in range(count)]


def interleaved(steps: list[Step], numbers: list[int], warm: int) -> list[list[float]]:
    """CPU seconds of the steps `numbers` of each, the first `warm` not timed; step n of one is
    followed by step n of the next, and who begins changes every time."""
    times: list[list[float]] = [[] for _ in steps]
    for turn, number in enumerate(numbers):
        for place in range(len(steps)):
            which = (turn + place) % len(steps)
            start = time.process_time()
            steps[which](number)
            if turn >= warm:
                times[which].append(time.process_time() - start)
    return times


def beside(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """How much faster ours is: all seconds over all seconds, and the 10th, 50th and 90th percentile
    over pairs of steps."""
    pairs = [b / a for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = np.quantile(pairs, [0.1, 0.5, 0.9]).tolist()
    return {
        "seconds": statistics.median(theirs),
        "ratio": sum(theirs) / sum(ours),
        "ratio_low": low,
        "ratio_median": middle,
        "ratio_high": high,
    }


def run_bench(
    recipe: TaskRecipe | None = None,
    steps: int = STEPS,
    report: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Check ours against the plain step, then time them in turn on one thread, in CPU seconds.

    `recipe`: None is the shipped one. Returns `gate` ("passed"), `recipe`, `steps`, `seconds`
    (median of a step), `tokens_per_second` (of one core), `products_share` (of a step's seconds),
    `seconds_by_passes`, per form of the plain step its `plain` seconds and ratios, and `ratio`,
    that to the faster of them. Raises AdaptiveSleepError where the gate does not pass.
    """
    recipe = recipe or read_task_recipe(find_recipe(RECIPE))
    with one_thread():
        contenders = Contenders(recipe)
        contenders.check()
        if report is not None:
            report("gate: passed; timing")
        calls: list[Step] = [contenders.our_step]
        calls += [partial(contenders.plain_step, form) for form in RULES]
        numbers = [0] * WARM + spread(recipe.training.steps, steps)
        ours, *plain = interleaved(calls, numbers, WARM)
        share = _products_share(contenders, spread(recipe.training.steps, 5))
    training = contenders.training
    drawn = [drawn_at(contenders.task, training, 0, n) for n in numbers[WARM:]]
    tokens = sum(int(lengths.sum()) for d in drawn for lengths in d.batch.lengths)
    found = {
        form: beside(ours, times) | {"tokens_per_second": tokens / sum(times)}
        for form, times in zip(RULES, plain, strict=True)
    }
    passes = sorted({d.passes for d in drawn})
    return {
        "gate": "passed",
        "recipe": str(recipe.task["name"]),
        "threads": 1,
        "steps": steps,
        "seconds": statistics.median(ours),
        "tokens_per_second": tokens / sum(ours),
        "products_share": share,
        "seconds_by_passes": {
            str(n): statistics.median(s for s, d in zip(ours, drawn, strict=True) if d.passes == n)
            for n in passes
        },
        "plain": found,
        "ratio": min(each["ratio"] for each in found.values()),
    }


def _products_share(contenders: Contenders, numbers: list[int]) -> float:
    """Share of our step's seconds that are matrix products, over a few steps."""
    counted, alone = _Products(), []
    for step in numbers:
        start = time.process_time()
        contenders.our_step(step)
        alone.append(time.process_time() - start)
        with counted:
            contenders.our_step(step)  # the same batch and N
    return counted.seconds / sum(alone)
