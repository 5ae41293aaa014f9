"""Passes by lot: what a schedule that looks at nothing gets for the same mean.

A control for adaptive policies. The draw is a hash of its key and no running generator, so how
streams are grouped into steps, and where a run was resumed, cannot change it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from adaptive_sleep.contract import Range, policy
from adaptive_sleep.policies.checks import number, whole
from adaptive_sleep.policies.threshold import at_least_one
from adaptive_sleep.signals import IntArray, WindowSignals


@policy("random")
@dataclass(frozen=True)
class Random:
    """Sleep by lot: `floor(mean)` or `ceil(mean)` passes, so that the mean is exactly `mean`.

    These two neighbours are the narrowest distribution over whole numbers with that mean; a mean
    that is whole is `fixed(mean)`. Drawn for each window from the seed that `reset` was given,
    `seed`, the stream's name and the window's index, and from nothing else. Where the runtime
    allows fewer passes the draw is cut, and the mean falls. Raises InputError for a `mean` outside
    1..`most`.
    """

    mean: Annotated[float, Range(1.0, 4.0)] = 2.5
    most: int = 4
    seed: int = 0
    # the seed of the last reset, under "seed": the one thing that a resumed run has to be told
    _given: dict[str, int] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        at_least_one("most", self.most)
        number("mean", self.mean, 1, self.most)
        whole("seed", self.seed, 0)
        self._given["seed"] = 0

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return the passes drawn for each stream's window."""
        less, seed = math.floor(self.mean), int(self.seed)  # an int for JSON
        keys = zip(signals.stream, signals.window, strict=True)
        draws = np.array(
            [_uniform(self._given["seed"], seed, stream, int(at)) for stream, at in keys]
        )
        passes: IntArray = np.minimum(less + (draws < self.mean - less), signals.max_passes)
        return passes

    def reset(self, seed: int) -> None:
        """Draw from another seed."""
        self._given["seed"] = int(seed)

    def state_dict(self) -> dict[str, Any]:
        """Return the seed that `reset` was given."""
        return dict(self._given)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Draw as the policy did whose state it is."""
        self._given["seed"] = state.get("seed", 0)


def _uniform(*key: str | int) -> float:
    """Return a number in [0, 1) that the key alone decides; 53 bits of its hash."""
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) * 2.0**-53
