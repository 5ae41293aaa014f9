"""Retrieval: evicted windows are stored as keys and values, of which each query brings back a few.

As in Memorizing Transformers (arXiv 2203.08913), each query of each head scores all that is stored,
and attends to the best of it beside its own window. It differs from them in that the search is
exact, every attention layer searches, keys keep their places, one softmax runs over the window and
what is brought back (no gate), and the gradient reaches what the same sample stored. What costs is
the search, so how much is stored is the knob; how many come back is `BROUGHT`.
"""

from __future__ import annotations

from adaptive_sleep.eviction import BROUGHT
from adaptive_sleep.experiments.baselines.setup import (
    LONGEST,
    AnyRecipe,
    Baseline,
    Setup,
    holding_more,
)


def _change(recipe: AnyRecipe, knob: int) -> Setup:
    return holding_more(recipe, "retrieve", knob)


BASELINE = Baseline(
    name="retrieval",
    knob="events that are stored and searched",
    least=lambda config: BROUGHT + 1,  # of fewer, all come back: that is a larger window
    most=lambda config, passes: LONGEST * config.window,
    change=_change,
    of_tasks=True,
)
