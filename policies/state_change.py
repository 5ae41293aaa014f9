"""Sleep until it settles: passes go on as long as each still changes the fast weights.

The only shipped policy that decides during the sleep; the plan is only its upper limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from adaptive_sleep.contract import Range, policy
from adaptive_sleep.policies.checks import number
from adaptive_sleep.policies.threshold import at_least_one, passes_where
from adaptive_sleep.signals import BoolArray, IntArray, SleepProgress, WindowSignals


@policy("state_change")
@dataclass(frozen=True)
class StateChange:
    """Sleep until a pass changes the fast weights by no more than `tolerance` (relative)."""

    tolerance: Annotated[float, Range(0.001, 1.0, log=True)] = 0.05
    max_passes: Annotated[int, Range(2, 8)] = 4

    def __post_init__(self) -> None:
        number("tolerance", self.tolerance)
        at_least_one("max_passes", self.max_passes)

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return `max_passes`, or 1 where the wake pass changed no more than `tolerance`."""
        return passes_where(signals.state_change > self.tolerance, self.max_passes, signals)

    def keep_going(self, progress: SleepProgress) -> BoolArray:
        """Return where the last pass still changed more than `tolerance`."""
        return progress.state_change > self.tolerance
