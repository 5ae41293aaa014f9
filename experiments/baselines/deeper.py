"""Deeper: more layers with weights of their own, in the recipe's order over and over."""

from __future__ import annotations

from itertools import cycle, islice

from adaptive_sleep.experiments.baselines.setup import (
    AnyRecipe,
    Baseline,
    Setup,
    reshaped,
    shape_of,
)

DEEPEST = 12  # times the recipe's


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    return reshaped(recipe, {"layers": list(islice(cycle(shape_of(recipe).layers), knob))})


BASELINE = Baseline(
    name="deeper",
    knob="layers, each with weights of its own",
    least=lambda config: len(config.layers),
    most=lambda config: DEEPEST * len(config.layers),
    change=_change,
)
