"""Where the passes of one trigger land: scores judged against labels, by seed and over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.experiments.probes.precision import (
    BoolArray,
    FloatArray,
    average_precision,
    p_value,
    rotated_precisions,
    shuffled_precisions,
)
from adaptive_sleep.experiments.probes.summing import over_seeds

LEVEL = 0.05


def judged(
    signal: FloatArray | None, passes: NDArray[np.integer], labels: BoolArray, *, shuffles: int
) -> dict[str, Any]:
    """One trigger on the windows of one run, in order `[n]`: the average `precision` of its
    `signal` (None: it has none) and of its `passes`, each with two p-values; the `base` rate; and
    the `share` of windows slept on. Raises InputError without a labelled window."""
    return {
        "windows": len(labels),
        "labelled": int(labels.sum()),
        "base": float(labels.mean()),
        "signal": None if signal is None else _scored(signal, labels, shuffles),
        "passes": _scored(passes.astype(np.float64), labels, shuffles),
        "share": float((passes > 1).mean()),
        "mean_passes": float(passes.mean()),
    }


def _scored(scores: FloatArray, labels: BoolArray, shuffles: int) -> dict[str, float]:
    found = average_precision(scores, labels)
    return {
        "precision": found,
        "p_shuffled": p_value(found, shuffled_precisions(scores, labels, shuffles)),
        "p_rotated": p_value(found, rotated_precisions(scores, labels)),
    }


def landed(
    by_seed: Sequence[Mapping[str, Any]], random: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """One trigger over seeds: `signal` and `passes` as `over_seeds` gives average precision, with
    each seed's p-values; `passes_to_random`, the difference to the passes by lot of the same seed;
    and `lands`: whether its signal (else its passes) is above the base rate in every seed, and
    p_rotated at most 0.05 in most."""
    row: dict[str, Any] = {name: _column(by_seed, name) for name in ("signal", "passes")}
    theirs = [seed["passes"]["precision"] for seed in random]
    mine = row["passes"]["by_seed"]
    scores = row["signal"] or row["passes"]
    above = all(found > by_seed[0]["base"] for found in scores["by_seed"])
    return {
        **row,
        "passes_to_random": over_seeds(np.subtract(mine, theirs).tolist()),
        "share": float(np.mean([seed["share"] for seed in by_seed])),
        "mean_passes": float(np.mean([seed["mean_passes"] for seed in by_seed])),
        "lands": bool(above and np.median(scores["p_rotated"]) <= LEVEL),
    }


def _column(by_seed: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any] | None:
    each = [seed[name] for seed in by_seed]
    if each[0] is None:
        return None
    return {
        **over_seeds([score["precision"] for score in each]),
        "p_shuffled": [score["p_shuffled"] for score in each],
        "p_rotated": [score["p_rotated"] for score in each],
    }
