"""Sleep by the room left: when the KV budget is nearly held, much is about to be evicted.

The pressure is one for all streams, so all that are at a boundary sleep, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from adaptive_sleep.contract import Range, policy
from adaptive_sleep.policies.checks import number
from adaptive_sleep.policies.threshold import at_least_one, passes_where
from adaptive_sleep.signals import IntArray, WindowSignals


@policy("cache_pressure")
@dataclass(frozen=True)
class CachePressure:
    """Sleep when the KV cache is nearly full (never without a KV budget).

    A window that the runtime closes early to make room is so slept on, as long as no step brings
    more than 1 - `threshold` of the budget.
    """

    threshold: Annotated[float, Range(0.1, 1.0)] = 0.8
    passes: Annotated[int, Range(2, 8)] = 4

    def __post_init__(self) -> None:
        number("threshold", self.threshold)
        at_least_one("passes", self.passes)

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return `passes` where cache_pressure is above the threshold, 1 elsewhere."""
        return passes_where(signals.cache_pressure > self.threshold, self.passes, signals)
