"""Periodic sleep: the sleeping model, with passes over every third window of a stream.

Windows of questions count as windows, and nobody sleeps on them: where they come by turns with
others, every second window would be all of those that are slept on, or none (as every third is of
samples of three windows).
"""

from __future__ import annotations

from adaptive_sleep.experiments.baselines.setup import AnyRecipe, Baseline, Setup

EVERY = 3


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    return Setup(recipe, f"periodic(every={EVERY}, passes={knob})")


BASELINE = Baseline(
    name="periodic",
    knob="passes over every third window",
    least=lambda config: 1,
    most=lambda config, passes: passes,
    change=_change,
)
