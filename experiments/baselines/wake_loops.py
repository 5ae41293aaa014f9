"""Wake loops: the passes are spent when something is asked, and none at the boundary.

It is as deep as sleep, but pays at every question, and makes it wait.
"""

from __future__ import annotations

from adaptive_sleep.experiments.baselines.setup import Baseline, Setup, reshaped
from adaptive_sleep.learning import TaskRecipe

MOST = 32


def _change(recipe: TaskRecipe, knob: int) -> Setup:
    return reshaped(recipe, {"loops": knob})


BASELINE = Baseline(
    name="wake_loops",
    knob="passes over a window of questions",
    least=lambda config: 1,
    most=lambda config: MOST,
    change=_change,
)
