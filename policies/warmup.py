"""A stream's first windows by a rule of their own: another policy only once a stream is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from adaptive_sleep.contract import Range, SleepPolicy, keep_going, plan_passes, policy
from adaptive_sleep.policies.checks import whole
from adaptive_sleep.policies.follower import Follower
from adaptive_sleep.policies.threshold import at_least_one
from adaptive_sleep.signals import BoolArray, IntArray, SleepProgress, WindowSignals
from adaptive_sleep.spec import resolve


@policy("warmup")
@dataclass(frozen=True)
class Warmup(Follower):
    """Give a stream's first `windows` windows `passes` each, then follow another policy.

    The other is asked from the start, so that it may learn; it has no say in the first windows,
    neither before nor during a sleep.
    """

    policy: SleepPolicy
    windows: Annotated[int, Range(1, 32)] = 4
    passes: Annotated[int, Range(1, 8)] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", resolve(self.policy))
        whole("windows", self.windows, 0)
        at_least_one("passes", self.passes)

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return `passes` for the first windows (at most `max_passes`), else the other's plan."""
        first = np.minimum(self.passes, signals.max_passes)
        later = plan_passes(self.policy, signals)
        return np.where(signals.window < self.windows, first, later)

    def keep_going(self, progress: SleepProgress) -> BoolArray:
        """Return what the other says about windows after the first; those run to their end."""
        going = np.ones(len(progress), dtype=np.bool_)
        later = np.flatnonzero(progress.window >= self.windows)
        if later.size:
            going[later] = keep_going(self.policy, progress.select(later))
        return going
