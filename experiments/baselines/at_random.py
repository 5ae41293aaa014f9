"""Random sleep: the sleeping model, its passes by lot, the mean to a hundredth of a pass."""

from __future__ import annotations

from adaptive_sleep.experiments.baselines.setup import AnyRecipe, Baseline, Setup, passes_of


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    return Setup(recipe, f"random(mean={1 + knob / 100}, most={passes_of(recipe)})")


BASELINE = Baseline(
    name="random",
    knob="hundredths of a pass beyond the first, on average",
    least=lambda config: 0,
    most=lambda config, passes: 100 * (passes - 1),
    change=_change,
)
