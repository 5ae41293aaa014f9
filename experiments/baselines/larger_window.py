"""Larger window: attention holds more events than the model that sleeps does.

On a task it slides, and keeps them over boundaries: so a question sees, beside the fast weights,
what was read before it. On a recording, where every event predicts the next, the window itself is
longer, and evicted as rarely; in training too, on as many events, a step and in all (one that is
longer than a training sequence is trained without a boundary).
"""

from __future__ import annotations

from dataclasses import replace

from adaptive_sleep.experiments.baselines.setup import (
    LONGEST,
    AnyRecipe,
    Baseline,
    Setup,
    holding_more,
    reshaped,
    shape_of,
)
from adaptive_sleep.learning import TaskRecipe
from adaptive_sleep.training_recipe import Recipe


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    if isinstance(recipe, TaskRecipe):
        return holding_more(recipe, "sliding", knob)
    config = shape_of(recipe)
    longer = reshaped(recipe, {"window": knob * config.patch}).recipe
    assert isinstance(longer, Recipe)
    return Setup(_on_as_many(longer, config.window / (knob * config.patch)))


def _on_as_many(recipe: Recipe, share: float) -> Recipe:
    """The recipe with a `share` of its windows in a sequence, and of its sequences in a batch, so
    that a step is on as many events; what rounding leaves, steps make up for."""
    before = recipe.training
    wanted = share * before.windows * before.batch
    windows = max(1, round(share * before.windows))
    bptt = min(windows, max(1, round(share * before.bptt)))
    batch = max(1, round(wanted / windows))
    steps = max(1, round(before.steps * wanted / (windows * batch)))
    changed = replace(before, windows=windows, bptt=bptt, batch=batch, steps=steps)
    return replace(recipe, training=changed)


BASELINE = Baseline(
    name="larger_window",
    knob="positions that attention keeps",
    least=lambda config: -(-config.window // config.patch),
    most=lambda config, passes: LONGEST * -(-config.window // config.patch),
    change=_change,
)
