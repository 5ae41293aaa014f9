"""The baselines by name."""

from __future__ import annotations

from adaptive_sleep.experiments.baselines import (
    at_random,
    compressed_kv,
    deeper,
    fixed,
    larger_window,
    memory_tokens,
    periodic,
    retrieval,
    taught_loops,
    wake_loops,
    wider_state,
)
from adaptive_sleep.experiments.baselines.setup import Baseline
from adaptive_sleep.streams.errors import InputError, nearest

BASELINES: dict[str, Baseline] = {
    module.BASELINE.name: module.BASELINE
    for module in (
        wider_state,
        deeper,
        larger_window,
        wake_loops,
        taught_loops,
        compressed_kv,
        memory_tokens,
        retrieval,
        fixed,
        at_random,
        periodic,
    )
}


def find_baseline(name: str) -> Baseline:
    """Return a baseline. Raises InputError for a name that there is not, with the nearest."""
    if name not in BASELINES:
        raise InputError(
            f"baseline={name!r}: no such baseline{nearest(name, BASELINES)} "
            f"({', '.join(BASELINES)})"
        )
    return BASELINES[name]
