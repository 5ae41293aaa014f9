"""Fixed N: the sleeping model itself, with as many passes over every window."""

from __future__ import annotations

from adaptive_sleep.experiments.baselines.setup import AnyRecipe, Baseline, Setup


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    return Setup(recipe, f"fixed(passes={knob})")


BASELINE = Baseline(
    name="fixed",
    knob="passes over every window",
    least=lambda config: 1,
    most=lambda config, passes: passes,
    change=_change,
)
