"""Sleep by doubt: how unsure the model was of its own predictions, whether or not it was wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from adaptive_sleep.contract import Range, policy
from adaptive_sleep.policies.checks import number
from adaptive_sleep.policies.threshold import at_least_one, passes_where
from adaptive_sleep.signals import IntArray, WindowSignals


@policy("uncertainty")
@dataclass(frozen=True)
class Uncertainty:
    """Sleep on the windows whose predictions the model was unsure of."""

    threshold: Annotated[float, Range(0.01, 2.0, log=True)] = 0.5
    passes: Annotated[int, Range(2, 8)] = 4

    def __post_init__(self) -> None:
        number("threshold", self.threshold)
        at_least_one("passes", self.passes)

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return `passes` where uncertainty is above the threshold, 1 elsewhere."""
        return passes_where(signals.uncertainty > self.threshold, self.passes, signals)
