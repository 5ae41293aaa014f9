"""Sleep by bursts: events that come faster than the stream's own running mean.

How the mean is kept is the runtime's business; 1 is the stream's usual rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from adaptive_sleep.contract import Range, policy
from adaptive_sleep.policies.checks import number
from adaptive_sleep.policies.threshold import at_least_one, passes_where
from adaptive_sleep.signals import IntArray, WindowSignals


@policy("event_density")
@dataclass(frozen=True)
class EventDensity:
    """Sleep on bursts, the windows whose events come faster than usual for their stream."""

    threshold: Annotated[float, Range(0.5, 8.0, log=True)] = 1.5
    passes: Annotated[int, Range(2, 8)] = 4

    def __post_init__(self) -> None:
        number("threshold", self.threshold)
        at_least_one("passes", self.passes)

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return `passes` where event_density is above the threshold, 1 elsewhere."""
        return passes_where(signals.event_density > self.threshold, self.passes, signals)
