"""Wider state: more columns of every fast-weight matrix, so that more fits into it."""

from __future__ import annotations

from adaptive_sleep.experiments.baselines.setup import AnyRecipe, Baseline, Setup, reshaped

WIDEST = 16  # times the recipe's


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    return reshaped(recipe, {"value_dim": knob})


BASELINE = Baseline(
    name="wider_state",
    knob="value_dim, columns of a fast-weight matrix",
    least=lambda config: config.value_dim,
    most=lambda config, passes: WIDEST * config.value_dim,
    change=_change,
)
