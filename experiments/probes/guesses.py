"""What is compared when the next event of a log is predicted: bits, and whether it was among five.

Who predicts is elsewhere: a model in log_model.py, counts in counts.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
GUESSES = 5


@dataclass(frozen=True, eq=False)
class Guesses:
    """Of every event `[n]`, in order: its log-probability before it was seen, `logprob` (nats), and
    the chance that it was among the `five` likeliest."""

    logprob: FloatArray
    five: FloatArray

    def bits(self, of: BoolArray | slice = slice(None)) -> float:
        """Mean bits per event, over those that `of` `[n]` names."""
        return float(-self.logprob[of].mean() / math.log(2))

    def after(self, first: int) -> Guesses:
        """Those from `first` on."""
        return Guesses(self.logprob[first:], self.five[first:])


def among_five(scores: FloatArray, token: int) -> float:
    """The chance that `token` is among the five best of `scores` `[V]`, where equal scores are put
    in order by lot."""
    own = scores[token]
    better, same = int((scores > own).sum()), int((scores == own).sum())
    return min(max((GUESSES - better) / same, 0.0), 1.0)


def joined(parts: Sequence[tuple[float, float]]) -> Guesses:
    """One pair (logprob, five) an event."""
    both = np.array(parts, dtype=np.float64).reshape(-1, 2)
    return Guesses(both[:, 0], both[:, 1])
