"""What a parameter may be: whole numbers and finite numbers within bounds, refused when made.

Passes have a check of their own in `threshold`.
"""

from __future__ import annotations

import math

import numpy as np

from adaptive_sleep.streams.errors import InputError


def whole(field: str, value: object, low: int) -> None:
    """Raise InputError, naming the field, unless it is a whole number from `low` up."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        raise InputError(f"{field}={value!r}: expected a whole number from {low} up")


def number(field: str, value: object, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise InputError, naming the field, unless it is a finite number from `low` to `high`."""
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        exact = float(value)
        if math.isfinite(exact) and low <= exact <= high:
            return
    bounds = f" from {low:g}" if low > -math.inf else ""
    bounds += f" to {high:g}" if high < math.inf else " up" if bounds else ""
    raise InputError(f"{field}={value!r}: expected a finite number{bounds}")
