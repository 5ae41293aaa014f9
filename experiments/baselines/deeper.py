"""Deeper: more layers with weights of their own, each of the recipe's where it stands repeated.

So the last layer stays the last: what reads fast weights at prediction time is not put before
layers that have nothing more to read.
"""

from __future__ import annotations

from adaptive_sleep.experiments.baselines.setup import (
    AnyRecipe,
    Baseline,
    Setup,
    reshaped,
    shape_of,
)

DEEPEST = 12  # times the recipe's


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    layers = shape_of(recipe).layers
    all_of, more = divmod(knob, len(layers))  # the first few one time more than the others
    repeated = [each for n, each in enumerate(layers) for _ in range(all_of + (n < more))]
    return reshaped(recipe, {"layers": repeated})


BASELINE = Baseline(
    name="deeper",
    knob="layers, each with weights of its own",
    least=lambda config: len(config.layers),
    most=lambda config, passes: DEEPEST * len(config.layers),
    change=_change,
)
