"""Larger window: attention slides, and keeps more events than a window has.

So a question sees, beside the fast weights, what was read before it.
"""

from __future__ import annotations

from adaptive_sleep.experiments.baselines.setup import LONGEST, Baseline, Setup, holding_more
from adaptive_sleep.learning import TaskRecipe


def _change(recipe: TaskRecipe, knob: int) -> Setup:
    return holding_more(recipe, "sliding", knob)


BASELINE = Baseline(
    name="larger_window",
    knob="events that attention keeps",
    least=lambda config: config.window,
    most=lambda config: LONGEST * config.window,
    change=_change,
)
