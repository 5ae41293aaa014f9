"""What the training of a recipe will cost, before it is done. Afterwards its checkpoint says so."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from adaptive_sleep.checkpoint import describe_model
from adaptive_sleep.curriculum import draw, staged
from adaptive_sleep.eviction import holding
from adaptive_sleep.learning import TaskRecipe, config_of, task_of
from adaptive_sleep.reading_cost import GRADIENT, forward_flops, sequence_flops
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.task import TaskBatch
from adaptive_sleep.training import cut_windows
from adaptive_sleep.training_recipe import Recipe, opened, parse_passes

# Steps that are looked at, one sample of each: where every batch draws a size of its own, one
# differs by 40 % from the next, and the mean of so many by less than 1 %.
DRAWN = 4096


@dataclass(frozen=True)
class Training:
    """What the training of a model took."""

    steps: int
    tokens: int
    flops: float


def training_of(model: str) -> Training:
    """What the training of a checkpoint took, by its header. Raises InputError where it does not
    say."""
    said = describe_model(model)["provenance"]
    missing = [name for name in ("steps", "tokens", "flops") if name not in said]
    if missing:
        raise InputError(
            f"{model}: does not say what its training took ({', '.join(missing)} missing): it was "
            "trained by an earlier version; train it again"
        )
    return Training(int(said["steps"]), int(said["tokens"]), float(said["flops"]))


def step_flops(recipe: TaskRecipe | Recipe) -> float:
    """FLOPs of a training step: of a task the mean over some that are spread over the training and
    drawn as it draws them, with what attention holds of earlier samples taken at its mean; of a
    recording, what is expected.

    Stages of one number of passes each are taken to be as long as their patience, or equally long,
    which matters only where the length of a sample depends on its difficulty, and to where samples
    are carried over. Raises InputError where passes differ from stage to stage: how long each takes
    shows in training alone.
    """
    if isinstance(recipe, Recipe):
        return _recorded_step_flops(recipe)
    training, config = replace(recipe.training, batch=1), config_of(recipe)
    if len({len(stage) for stage in training.stages}) > 1:
        raise InputError("[training] stages: what they will cost cannot be told beforehand")
    holds = holding(config, recipe.eviction, recipe.keep)
    spread = np.linspace(0, training.steps - 1, DRAWN).astype(int)
    tasks, found = staged(task_of(recipe), training), []
    longest = training.steps * (training.patience or 1.0 / len(tasks))
    for place, step in enumerate(spread.tolist()):
        stage = min(int(step / longest), len(tasks) - 1)
        random = np.random.default_rng([0, place])
        batch, passes, lessons = draw(tasks[stage], training, random, step, stage)
        held = _held(recipe, batch, holds.kept) if stage >= training.carry_from else 0.0
        found.append(forward_flops(config, holds, batch, passes, lessons=lessons, held=held))
    return GRADIENT * recipe.training.batch * float(np.mean(found))


def _recorded_step_flops(recipe: Recipe) -> float:
    """The mean over the passes, and over the lengths of windows, that a step may draw."""
    training, (_, config) = recipe.training, opened(recipe)

    def step(events: int, passes: float) -> float:
        positions = np.full(training.batch, -(-events // config.patch))
        windows = [positions] * training.windows
        one, two = (sequence_flops(config, windows, n) for n in (1, 2))
        return one + (passes - 1) * (two - one)

    passes = float(np.mean(parse_passes(training.passes)))
    cut = float(np.mean([step(events, passes) for events in cut_windows(config.window)]))
    whole = step(config.window, passes)
    return GRADIENT * (training.jitter * cut + (1 - training.jitter) * whole)


def _held(recipe: TaskRecipe, batch: TaskBatch, kept: int) -> float:
    """Events that attention holds at the start of a sample, on average over streams that go on
    with the chance of the recipe."""
    read = [
        lengths.sum()
        for asked, lengths in zip(batch.asked(), batch.lengths, strict=True)
        if not asked.any()
    ]
    going_on, left = recipe.training.carry_over, max(float(sum(read)) / len(batch), 1.0)
    samples = np.arange(1, int(np.ceil(kept / left)) + 1)
    more = np.minimum(kept, left * samples) - np.minimum(kept, left * (samples - 1))
    return float((going_on**samples * more).sum())
