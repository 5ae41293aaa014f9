"""Fixed N: the sleeping model itself, with as many passes over every window."""

from __future__ import annotations

from adaptive_sleep.experiments.baselines.setup import AnyRecipe, Baseline, Setup, passes_of


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    return Setup(recipe, f"fixed(passes={knob})")


BASELINE = Baseline(
    name="fixed",
    knob="passes over every window",
    least=lambda recipe: 1,
    most=passes_of,
    change=_change,
)
