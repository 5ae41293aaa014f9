"""What training asks of a model, step by step: how to train, stages, passes, difficulties.

A composed task stalls where nothing says what one pass should achieve. Stages say it: pass n is
asked for what few steps of the task give, and a stage ends once that is learned, not before.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from adaptive_sleep.asking import Lessons
from adaptive_sleep.recipe_checks import above_zero, at_least_one, check_betas, from_zero, shares
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.drawing import check_power
from adaptive_sleep.streams.tasks.task import Task, TaskBatch
from adaptive_sleep.training_recipe import parse_passes

KEPT = 0.98  # of a stage's running loss, a step
SHORTEST = 50  # steps of a stage
WHOLE = 0.5  # share of the steps after which one pass is asked for all


@dataclass(frozen=True, kw_only=True)
class LearningRecipe:
    """How to train on a task. Rates are per step; shares are of `steps`."""

    steps: int = 4000  # at the most, with stages: it ends `decay` after the last one is learned
    longest: int = 0  # with stages: so many at the most instead (0: `steps`), since seeds differ
    whole: bool = False  # with stages: none are left out, however early the last one is learned
    batch: int = 64  # samples side by side
    passes: str = "1-4"  # N per batch: drawn from a range, or one number
    ramp: float = 0.0  # share over which the highest N grows from the lowest
    # asked after the last pass, after each of the most, or, at one pass, after each loop
    loss: Lessons = "last"
    # with loss "every" ("loops"): per stage the rungs that pass (loop) 1, 2, ... is asked for (of a
    # task without rungs the difficulties), as many passes (all loops) as rungs; a stage is learned
    # where the running loss of its last pass falls below `learned`
    stages: tuple[tuple[int, ...], ...] = ()
    learned: float = 0.1  # nats a question, or squared error
    patience: float = 0.0  # share after which a stage ends though it is not learned (0: never)
    carry_over: float = 0.0  # share of samples that begin with what the step before left behind
    carry_from: int = 0  # with stages: the first one (from 0) in which they do
    power: tuple[float, float] = (1.0, 0.3)  # d is drawn by d^-p (from 0: (1 + d)^-p), p from .. to
    matrix_rate: float = 0.02  # Muon, for the matrices of blocks
    rate: float = 2e-3  # AdamW, for all else
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0
    warmup: int = 100  # steps
    decay: float = 0.4  # share over which the rates fall to zero, at the end
    clip: float = 1.0
    recompute: bool = False  # gradient checkpointing: blocks are run again, which is not counted
    validate_every: int = 500
    validation: int = 64  # samples per difficulty
    # steps of `reproduce --quick`, if `steps` are more; no part of what a training is
    quick: int = field(default=1000, compare=False)

    @property
    def most(self) -> int:
        """The steps that training takes at the most."""
        return self.longest or self.steps


def check_training(training: LearningRecipe) -> None:
    """Raise InputError, naming the field, for what cannot be trained."""
    at_least_one(training, "steps", "batch", "validate_every", "validation", "quick")
    shares(training, "ramp", "decay", "carry_over", "patience")
    above_zero(training, "learned", "matrix_rate", "rate", "clip")
    from_zero(training, "weight_decay", "warmup")
    check_betas(training)
    for power in training.power:
        check_power("[training] power", power)
    _, most = parse_passes(training.passes)
    if training.stages and training.loss == "last":
        raise InputError(
            f"[training] loss={training.loss!r}: stages ask every pass; use 'every' (or 'loops')"
        )
    if training.loss == "loops" and most != 1:
        raise InputError(
            f"[training] passes={training.passes!r}: loss='loops' asks every loop over the "
            "questions, after one pass; use '1'"
        )
    if training.longest and not (training.stages and training.longest >= training.steps):
        raise InputError(
            f"[training] longest={training.longest}: for stages, at least steps={training.steps}"
        )
    for name in ("whole", "patience"):
        given = getattr(training, name)
        if given and not training.stages:
            raise InputError(f"[training] {name}={given}: for stages; leave it out")
    if not 0 <= training.carry_from < max(len(training.stages), 1):
        raise InputError(
            f"[training] carry_from={training.carry_from}: one of {len(training.stages)} stages, "
            "from 0"
        )
    if training.stages and training.ramp:
        raise InputError(
            f"[training] ramp={training.ramp}: stages say how the passes grow; leave it out"
        )
    for stage in training.stages:
        if not 1 <= len(stage) <= most and training.loss == "every":
            raise InputError(
                f"[training] stages: {list(stage)} is for {len(stage)} passes; 1 to {most} "
                f"(passes={training.passes!r})"
            )


def in_one_pass(training: LearningRecipe) -> LearningRecipe:
    """The same stages asked of one pass, which stands for all: each for the last of its rungs, and
    carried over in the same ones; for all steps.

    One pass may never learn what the last of several does. So the stages before the last have half
    of the steps at the most, and in the other half, in which the rates fall, the whole is asked.
    """
    stages = tuple(stage[-1:] for stage in training.stages)
    return dataclasses.replace(
        without_stages(training), loss="every", stages=stages, whole=True,
        carry_from=training.carry_from, patience=WHOLE / max(len(stages) - 1, 1),
        decay=max(training.decay, 1.0 - WHOLE),
    )  # fmt: skip


def in_loops(training: LearningRecipe, loops: int) -> LearningRecipe:
    """As `in_one_pass`, with a lesson after each loop over the questions where the recipe has one
    after each pass: the rungs of a stage are spread over the loops, the last for the last of them.

    One loop is what `in_one_pass` teaches, or `without_stages` where there are no stages.
    """
    if not training.stages:
        once = without_stages(training)
        each = training.loss != "last" and loops > 1
        return dataclasses.replace(once, loss="loops") if each else once
    once = in_one_pass(training)
    if loops == 1:
        return once
    stages = tuple(
        tuple(stage[math.ceil(loop * len(stage) / loops) - 1] for loop in range(1, loops + 1))
        for stage in training.stages
    )
    return dataclasses.replace(once, loss="loops", stages=stages)


def without_stages(training: LearningRecipe) -> LearningRecipe:
    """The same at one pass, all asked of it from the first step on."""
    return dataclasses.replace(
        training, passes="1", ramp=0.0, loss="last", stages=(), longest=0, whole=False,
        carry_from=0, patience=0.0,
    )  # fmt: skip


def staged(task: Task, training: LearningRecipe) -> list[Task]:
    """The task of each stage, which asks for its rungs; without stages the task alone.

    Where a task has no rungs, a stage names difficulties: pass n is asked about the samples that
    are no harder than its own. Raises InputError for rungs or difficulties that are none of its.
    """
    if not training.stages:
        return [task]
    if hasattr(task, "rungs"):
        given: Any = task
        return [dataclasses.replace(given, rungs=stage) for stage in training.stages]
    if task.space.answers == 1:
        raise InputError(
            f"[training] stages: the task {task.name} asks for real numbers and has no rungs; "
            "leave them out"
        )
    for stage in training.stages:
        known = task.space.difficulties
        if list(stage) != sorted(stage) or not set(stage) <= set(known):
            raise InputError(
                f"[training] stages: {list(stage)}: rising difficulties of {task.name}, "
                f"{known[0]} to {known[-1]}"
            )
    return [task] * len(training.stages)


def eased(batch: TaskBatch, levels: Sequence[int]) -> TaskBatch:
    """The batch with a rung for each level: asked about are the samples no harder than that."""
    last, harder = batch.targets[-1], batch.difficulty[:, None]
    rungs = tuple(np.where(harder <= level, last, -1) for level in levels)
    return dataclasses.replace(batch, rungs=rungs)


@dataclass(frozen=True)
class Place:
    """Where a training is in its stages: the `stage` from 0 on, the `steps` spent in it and their
    running `loss` of the last pass; and `end`, the steps of the whole training, once the last
    stage is learned (0 before)."""

    stage: int = 0
    steps: int = 0
    loss: float = 0.0
    end: int = 0

    def after(self, training: LearningRecipe, step: int, loss: float) -> Place:
        """The place after a step (from 0) whose last pass had this loss."""
        if not training.stages or self.end:
            return self
        steps = self.steps + 1
        running = KEPT * self.loss + (1 - KEPT) * loss if self.steps else loss
        last = self.stage + 1 == len(training.stages)
        tired = 0 < training.patience * training.steps <= steps and not last
        if not tired and (steps < SHORTEST or running >= training.learned):
            return Place(self.stage, steps, running)
        if not last:
            return Place(self.stage + 1)
        end = step + 1 + math.ceil(training.decay * training.steps)
        end = training.most if training.whole else min(end, training.most)
        return Place(self.stage, steps, running, end)

    def ends(self, training: LearningRecipe) -> int:
        """The steps of the whole training, as far as is known."""
        return self.end or training.most


class Drawn(NamedTuple):
    """What a step works on: a batch, N, and when it is asked about."""

    batch: TaskBatch
    passes: int
    lessons: Lessons


def draw(
    task: Task, training: LearningRecipe, random: np.random.Generator, step: int, stage: int = 0
) -> Drawn:
    """What a step (from 0) works on; `task` is that of the stage."""
    passes = drawn_passes(training, random, step, stage)
    weights = difficulty_weights(training, task, step, stage)
    batch = task.sample(random, training.batch, part="train", weights=weights)
    if training.stages and not hasattr(task, "rungs"):
        batch = eased(batch, training.stages[stage])
    return Drawn(batch, passes, training.loss)


def drawn_passes(
    training: LearningRecipe, random: np.random.Generator, step: int, stage: int = 0
) -> int:
    """N of a step (from 0), the highest growing over `ramp`; where every pass is asked about, the
    highest itself, or that of the stage."""
    low, high = parse_passes(training.passes)
    grown = (step + 1) / (training.ramp * training.steps) if training.ramp else 1.0
    top = min(high, low + int((high - low + 1) * grown))
    if training.loss == "loops":
        return low
    if training.loss == "last":
        return int(random.integers(low, top + 1))
    return len(training.stages[stage]) if training.stages else top


def difficulty_weights(
    training: LearningRecipe, task: Task, step: int, stage: int = 0
) -> dict[int, float]:
    """Weights of the difficulties at a step: d^-p, or (1 + d)^-p where they begin at 0, p going
    from one end of `power` to the other over all steps, or over the stages where there are any."""
    first, last = training.power
    done = step / training.steps
    if training.stages:
        done = stage / max(len(training.stages) - 1, 1)
    p = first + (last - first) * done
    known = task.space.difficulties
    least = 0 in known
    if training.stages and not hasattr(task, "rungs"):  # what no pass is asked about is not drawn
        known = tuple(d for d in known if d <= max(training.stages[stage]))
    return {d: float(least + d) ** -p for d in known}
