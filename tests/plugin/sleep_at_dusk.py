"""A policy that is not ours: sleep where the events come more slowly than usual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

import adaptive_sleep as asl


@asl.policy("at_dusk")
@dataclass(frozen=True)
class AtDusk:
    """Sleep on the windows whose events are fewer than a share of the usual."""

    share: Annotated[float, asl.Range(0.5, 2.0, log=True)] = 1.0
    passes: Annotated[int, asl.Range(2, 4)] = 3

    def plan(self, signals: asl.WindowSignals) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return `passes` where it is quiet, 1 elsewhere."""
        quiet = signals.event_density < self.share
        return np.where(quiet, np.minimum(self.passes, signals.max_passes), 1)
