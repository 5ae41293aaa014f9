"""Sleep by the clock of windows: every n-th window of each stream. It looks at no signal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from adaptive_sleep.contract import Range, policy
from adaptive_sleep.policies.checks import whole
from adaptive_sleep.policies.threshold import at_least_one, passes_where
from adaptive_sleep.signals import IntArray, WindowSignals


@policy("periodic")
@dataclass(frozen=True)
class Periodic:
    """Sleep on every `every`-th window of each stream, the first time on window `every` - 1."""

    every: Annotated[int, Range(1, 16)] = 4
    passes: Annotated[int, Range(2, 8)] = 4

    def __post_init__(self) -> None:
        whole("every", self.every, 1)
        at_least_one("passes", self.passes)

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return `passes` on each stream's every n-th window, 1 on the others."""
        return passes_where((signals.window + 1) % self.every == 0, self.passes, signals)
