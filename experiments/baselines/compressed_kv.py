"""Compressed KV: of keys and values, those that were attended to most outlive the boundary.

For each head the events that the window before the boundary looked at most, after H2O (arXiv
2306.14048) and SnapKV (arXiv 2404.14469); it differs from H2O in that what was looked at in
earlier windows does not count, so that what is no longer of use makes room.
"""

from __future__ import annotations

from adaptive_sleep.experiments.baselines.setup import (
    LONGEST,
    AnyRecipe,
    Baseline,
    Setup,
    holding_more,
)


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    return holding_more(recipe, "heaviest", knob)


BASELINE = Baseline(
    name="compressed_kv",
    knob="events whose keys and values outlive a boundary, of each head",
    least=lambda config: 1,
    most=lambda config, passes: LONGEST * config.window,
    change=_change,
    of_tasks=True,
)
