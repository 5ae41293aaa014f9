"""Wider state: more columns of every fast-weight matrix, so that more fits into it."""

from __future__ import annotations

from adaptive_sleep.experiments.baselines.setup import (
    AnyRecipe,
    Baseline,
    Setup,
    reshaped,
    shape_of,
)

WIDEST = 16  # times the recipe's


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    return reshaped(recipe, {"value_dim": knob})


BASELINE = Baseline(
    name="wider_state",
    knob="value_dim, columns of a fast-weight matrix",
    least=lambda recipe: shape_of(recipe).value_dim,
    most=lambda recipe: WIDEST * shape_of(recipe).value_dim,
    change=_change,
)
