"""Does surprise rise before an alert? Windows before one begins, against other quiet windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adaptive_sleep.experiments.probes.guesses import BoolArray, FloatArray
from adaptive_sleep.experiments.probes.precision import p_value
from adaptive_sleep.streams.errors import InputError

SHUFFLES = 10_000


@dataclass(frozen=True, eq=False)
class Quiet:
    """Windows without an alert line, `[n]` in order: `before`, an alert begins in the next one;
    `usual`, the next one is quiet too. The last window is neither: what follows is not known."""

    before: BoolArray
    usual: BoolArray


def quiet_windows(alert: BoolArray) -> Quiet:
    """From whether each window `[n]` of one stream holds an alert line."""
    quiet, follows = ~alert, np.roll(alert, -1)
    quiet[-1:] = False
    return Quiet(quiet & follows, quiet & ~follows)


def rise(surprise: FloatArray, quiet: Quiet, *, seed: int = 0) -> tuple[float, float] | None:
    """Mean `surprise` `[n]` of windows before an alert less that of usual ones, and the one-sided
    p of a rise, by a permutation over these windows; None where there is none of a kind.

    Raises InputError where lengths differ.
    """
    if len(surprise) != len(quiet.before):
        raise InputError(f"surprise: {len(surprise)} windows, but {len(quiet.before)} are known")
    count = int(quiet.before.sum())
    if not count or not quiet.usual.any():
        return None
    values = np.concatenate([surprise[quiet.before], surprise[quiet.usual]])
    found = _apart(values[None], count)
    random = np.random.default_rng(seed)
    under = _apart(random.permuted(np.tile(values, (SHUFFLES, 1)), axis=1), count)
    return float(found[0]), p_value(float(found[0]), under)


def _apart(values: FloatArray, count: int) -> FloatArray:
    """The mean of the first `count` of each row of `[m, n]` less that of the rest, `[m]`."""
    return np.asarray(values[:, :count].mean(1) - values[:, count:].mean(1), dtype=np.float64)
