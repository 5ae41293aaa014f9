"""From a yes or no per stream to passes: what the policies that compare one signal have in common.

Which signal is compared with what is each policy's own business.
"""

from __future__ import annotations

import numpy as np

from adaptive_sleep.signals import BoolArray, IntArray, WindowSignals
from adaptive_sleep.streams.errors import InputError


def passes_where(asleep: BoolArray, passes: int, signals: WindowSignals) -> IntArray:
    """Return `passes` (at most `max_passes`) where `asleep` `[streams]` says so, 1 elsewhere."""
    return np.where(asleep, np.minimum(passes, signals.max_passes), 1)


def at_least_one(field: str, passes: object) -> None:
    """Raise InputError, naming the field, unless it is a whole number of passes from 1 up."""
    if isinstance(passes, bool) or not isinstance(passes, int | np.integer) or passes < 1:
        raise InputError(f"{field}={passes!r}: expected a whole number from 1 (no sleep) up")
