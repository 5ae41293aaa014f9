"""What guesses at the test events of a log come to: bits, top-5, and surprise before alerts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adaptive_sleep.experiments.probes.alerts import rise
from adaptive_sleep.experiments.probes.counts import chosen, counters
from adaptive_sleep.experiments.probes.events_log import Log
from adaptive_sleep.experiments.probes.guesses import Guesses
from adaptive_sleep.experiments.probes.summing import over_seeds


def score(guesses: Guesses, log: Log, window: int) -> dict[str, Any]:
    """One predictor's guesses at the test events `[n]`: `bits`, `bits_known` (of types that the
    training rows have; None without any), the share among `five`, and `surprise` by window."""
    starts = log.windows(window) - log.test
    loss = -guesses.logprob
    return {
        "bits": guesses.bits(),
        "bits_known": guesses.bits(log.known) if log.known.any() else None,
        "five": float(guesses.five.mean()),
        "surprise": [float(loss[a : a + window].mean()) for a in starts],
    }


def count_rows(log: Log, window: int) -> dict[str, dict[str, Any]]:
    """What `score` gives of every predictor that counts, with the value that it chose."""
    rows = {}
    for name, (predict, values) in counters().items():
        value, guesses = chosen(predict, values, log.tokens, log.vocabulary, log.parts)
        rows[name] = {"chose": value, **score(guesses, log, window)}
    return rows


def averaged(by_seed: Sequence[Mapping[str, Any]], log: Log, window: int) -> dict[str, Any]:
    """One predictor over seeds (one, where nothing is trained): its figures as `over_seeds` gives
    them, its cost, and under `alerts` by how many nats surprise is higher before alerts: `rise`
    over seeds, and `p` of the surprise that is a mean over seeds, for the windows are the same;
    None where nothing can be compared."""
    row: dict[str, Any] = {
        name: None if by_seed[0][name] is None else over_seeds([seed[name] for seed in by_seed])
        for name in ("bits", "bits_known", "five")
    }
    for name in ("flops_per_event", "mean_passes"):
        if name in by_seed[0]:
            row[name] = float(np.mean([seed[name] for seed in by_seed]))
    for name in ("policy", "chose"):
        if name in by_seed[0]:
            row[name] = [seed[name] for seed in by_seed]
    quiet = log.quiet(window)
    each = [rise(np.array(seed["surprise"]), quiet) for seed in by_seed]
    whole = rise(np.mean([seed["surprise"] for seed in by_seed], axis=0), quiet)
    row["alerts"] = None
    if whole is not None:
        rises = [found[0] for found in each if found is not None]
        row["alerts"] = {"rise": over_seeds(rises), "p": whole[1]}
    return row
