"""Taught loops: wake loops that were asked after each loop in training, as a model that sleeps is
asked after each pass.

`wake_loops` are asked after the last alone, which is a poorer lesson; run, both are the same.
"""

from __future__ import annotations

from dataclasses import replace

from adaptive_sleep.curriculum import in_loops
from adaptive_sleep.experiments.baselines import wake_loops
from adaptive_sleep.experiments.baselines.setup import AnyRecipe, Setup
from adaptive_sleep.learning import TaskRecipe


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    untaught = wake_loops.BASELINE.change(recipe, knob)
    looped = untaught.recipe
    assert isinstance(looped, TaskRecipe)
    assert isinstance(recipe, TaskRecipe)
    return replace(untaught, recipe=replace(looped, training=in_loops(recipe.training, knob)))


BASELINE = replace(wake_loops.BASELINE, name="taught_loops", change=_change)
