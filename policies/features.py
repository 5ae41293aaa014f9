"""Signals as numbers of like size: fixed maps, so that weights over them can be compared.

No statistics of the run: a window's features depend on its own signals only. What is made of them
is the business of `linear` and `bandit`.
"""

from __future__ import annotations

import numpy as np

from adaptive_sleep.signals import FloatArray, IntArray, WindowSignals


def features(signals: WindowSignals) -> FloatArray:
    """Return the scalar signals as float64 `[streams, len(WindowSignals.SCALARS)]`, in that order.

    Every map is increasing in its signal, gives 0 for nothing and about 1 for much
    (L(x, top) = log(1 + x) / log(1 + top)):

    tokens, scored: L(x, 1024).
    uncertainty: L(x, 1).
    surprise: L(x, 3), nats or normalised pinball; odd in x, should a loss be negative.
    state_change: L(1000 x, 1000), since changes of a hundredth already tell windows apart.
    event_density: (x - 1) / (x + 1), from -1 (no events) over 0 (the usual rate) to 1.
    gap: L(x, 86400), a day.
    wake_flops, pass_flops: L(x, 10^12).
    price: L(x pass_flops, 1), since only a whole pass has a price that compares with a loss.
    max_passes: 1 - 1 / x.
    cache_pressure, budget_left: as they are, 0..1.
    """
    maps = {
        "tokens": _log(signals.tokens, 1024),
        "scored": _log(signals.scored, 1024),
        "uncertainty": _log(signals.uncertainty, 1),
        "surprise": _log(signals.surprise, 3),
        "cache_pressure": signals.cache_pressure,
        "state_change": _log(1000 * signals.state_change, 1000),
        "event_density": (signals.event_density - 1) / (signals.event_density + 1),
        "gap": _log(signals.gap, 86_400),
        "wake_flops": _log(signals.wake_flops, 1e12),
        "pass_flops": _log(signals.pass_flops, 1e12),
        "price": _log(signals.price * signals.pass_flops, 1),
        "budget_left": signals.budget_left,
        "max_passes": 1 - 1 / signals.max_passes,
    }
    return np.stack([maps[name] for name in WindowSignals.SCALARS], axis=1)


def _log(x: FloatArray | IntArray, top: float) -> FloatArray:
    squashed: FloatArray = np.sign(x) * np.log1p(np.abs(x.astype(np.float64))) / np.log1p(top)
    return squashed
