"""Wake loops: the passes are spent when something is asked, and none at the boundary.

It is as deep as sleep, but pays at every question, and makes it wait.
"""

from __future__ import annotations

from adaptive_sleep.experiments.baselines.setup import AnyRecipe, Baseline, Setup, reshaped

MOST = 32


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    return reshaped(recipe, {"loops": knob})


BASELINE = Baseline(
    name="wake_loops",
    knob="passes over a window of questions",
    least=lambda config: 1,
    most=lambda config, passes: MOST,
    change=_change,
    of_tasks=True,
)
