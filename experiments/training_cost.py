"""What training on a task costs, in FLOPs, by the ledger's formulas.

A gradient is taken to cost twice its forward pass, as is usual.
"""

from __future__ import annotations

import numpy as np

from adaptive_sleep.answering import window_positions
from adaptive_sleep.curriculum import draw
from adaptive_sleep.eviction import holding
from adaptive_sleep.learning import TaskRecipe, config_of, task_of
from adaptive_sleep.ledger import IntArray, costs, past_pairs
from adaptive_sleep.streams.tasks.task import TaskBatch

BACKWARD = 2  # times the forward pass
DRAWN = 64  # steps that are looked at


def training_flops(recipe: TaskRecipe, steps: int | None = None) -> float:
    """FLOPs of `steps` steps (None: those of the recipe), from the mean over some of them.

    For recipes without stages: steps that are spread over the whole training are drawn as it draws
    them. What attention holds of earlier samples is taken at its mean.
    """
    training = recipe.training
    count = training.steps if steps is None else steps
    spread = np.linspace(0, training.steps - 1, min(DRAWN, training.steps)).astype(int)
    task = task_of(recipe)
    found = []
    for step in spread.tolist():
        batch, passes, every = draw(task, training, np.random.default_rng([0, step]), step)
        found.append(_forward(recipe, batch, passes, every))
    return (1 + BACKWARD) * float(np.mean(found)) * count


def training_tokens(recipe: TaskRecipe) -> int:
    """Tokens of all steps, each counted once."""
    training, task = recipe.training, task_of(recipe)
    batch = draw(task, training, np.random.default_rng(0), 0).batch
    return round(training.steps * len(batch) * sum(window_positions(batch)))


def _forward(recipe: TaskRecipe, batch: TaskBatch, passes: int, every: bool) -> float:
    """FLOPs of a batch, forward."""
    config = config_of(recipe)
    price, holds = costs(config), holding(config, recipe.eviction, recipe.keep)
    causal, total = config.sleep_attention == "causal", 0.0
    held = np.full(len(batch), round(_held(recipe, batch, holds.kept)))
    for window, asked in enumerate(batch.asked()):
        lengths = batch.lengths[window].astype(np.int64)
        past: IntArray = past_pairs(held, lengths, holds.reach) if holds.kept else 0 * lengths
        if asked.any():
            ask = price.questions if batch.diagonal[window] else price.text
            often = passes if every else 1
            total += often * float(ask(lengths, asked.sum(1), past).sum())
            grown = 0 if batch.diagonal[window] else lengths
        else:
            total += float(price.whole(lengths, past, causal=causal).sum())
            total += (passes - 1) * float(price.sleep_pass(lengths, causal=causal).sum())
            grown = lengths
        held = np.minimum(held + grown, holds.kept)
    return total


def _held(recipe: TaskRecipe, batch: TaskBatch, kept: int) -> float:
    """Events that attention holds at the start of a sample, on average over streams that go on
    with the chance of the recipe."""
    going_on, left = recipe.training.carry_over, max(window_positions(batch)[0], 1.0)
    samples = np.arange(1, int(np.ceil(kept / left)) + 1)
    more = np.minimum(kept, left * samples) - np.minimum(kept, left * (samples - 1))
    return float((going_on**samples * more).sum())
