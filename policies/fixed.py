"""The paper's schedule: the same number of passes for every window. It looks at no signal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from adaptive_sleep.contract import Range, policy
from adaptive_sleep.policies.threshold import at_least_one
from adaptive_sleep.signals import IntArray, WindowSignals


@policy("fixed")
@dataclass(frozen=True)
class Fixed:
    """Sleep equally long on every window; `passes=1` never sleeps."""

    passes: Annotated[int, Range(1, 8)] = 1

    def __post_init__(self) -> None:
        at_least_one("passes", self.passes)

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return `passes` for every stream."""
        return np.minimum(self.passes, signals.max_passes)
