"""Memory tokens: vectors that each window reads at its start and writes at its end.

The Recurrent Memory Transformer (Bulatov et al., arXiv 2207.06881) beside the fast weights, which
stay as they are; questions read the tokens and write none. `adaptive_sleep/memory_tokens.py`
says how they go through the blocks.
"""

from __future__ import annotations

from adaptive_sleep.experiments.baselines.setup import AnyRecipe, Baseline, Setup, reshaped

MOST = 8  # windows' worth of them


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    return reshaped(recipe, {"memory_tokens": knob})


BASELINE = Baseline(
    name="memory_tokens",
    knob="vectors that are carried from window to window",
    least=lambda config: 0,
    most=lambda config, passes: MOST * config.window,
    change=_change,
    of_tasks=True,
)
