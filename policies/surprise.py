"""Sleep by loss: a window that was predicted badly holds something that the state lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from adaptive_sleep.contract import Range, policy
from adaptive_sleep.policies.checks import number
from adaptive_sleep.policies.threshold import at_least_one, passes_where
from adaptive_sleep.signals import IntArray, WindowSignals


@policy("surprise")
@dataclass(frozen=True)
class Surprise:
    """Sleep on the windows that the model found surprising (loss in nats or normalised pinball)."""

    threshold: Annotated[float, Range(0.01, 10.0, log=True)] = 1.0
    passes: Annotated[int, Range(2, 8)] = 4

    def __post_init__(self) -> None:
        number("threshold", self.threshold)
        at_least_one("passes", self.passes)

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return `passes` where surprise is above the threshold, 1 elsewhere."""
        return passes_where(signals.surprise > self.threshold, self.passes, signals)
