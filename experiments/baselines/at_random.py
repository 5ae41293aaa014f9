"""Random sleep: the sleeping model, its passes by lot, the mean to a hundredth of a pass."""

from __future__ import annotations

from adaptive_sleep.experiments.baselines.setup import MOST_PASSES, AnyRecipe, Baseline, Setup


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    return Setup(recipe, f"random(mean={1 + knob / 100}, most={MOST_PASSES})")


BASELINE = Baseline(
    name="random",
    knob="hundredths of a pass beyond the first, on average",
    least=lambda config: 0,
    most=lambda config: 100 * (MOST_PASSES - 1),
    change=_change,
)
