"""Rest after a sleep: another policy, but never again so soon."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from adaptive_sleep.contract import Range, SleepPolicy, plan_passes, policy
from adaptive_sleep.policies.checks import whole
from adaptive_sleep.policies.follower import Follower
from adaptive_sleep.signals import IntArray, WindowOutcome, WindowSignals
from adaptive_sleep.spec import resolve


@policy("cooldown")
@dataclass(frozen=True)
class Cooldown(Follower):
    """Follow another policy, but after a sleep leave at least `windows` windows of that stream.

    The other is asked all the same, so that it sees every window. A plan to sleep counts as a
    sleep; if the outcome of that window says that none was run (a budget forbade it), the rest
    ends there.
    """

    policy: SleepPolicy
    windows: Annotated[int, Range(1, 16)] = 4
    # the window that each stream last slept on
    _slept: dict[str, int] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", resolve(self.policy))
        whole("windows", self.windows, 0)

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return the other's plan, and 1 where the stream rests."""
        passes = plan_passes(self.policy, signals)
        for row, stream in enumerate(signals.stream):
            window = int(signals.window[row])
            last = self._slept.get(stream)
            if last is not None and 0 < window - last <= self.windows:
                passes[row] = 1
            elif passes[row] > 1:
                self._slept[stream] = window
        return passes

    def observe(self, outcome: WindowOutcome) -> None:
        """End the rests that follow no sleep, then tell the other."""
        for row in np.flatnonzero(outcome.passes == 1):
            stream = outcome.stream[row]
            if self._slept.get(stream) == outcome.window[row]:
                del self._slept[stream]
        super().observe(outcome)

    def reset(self, seed: int) -> None:
        """Forget all sleeps and reset the other."""
        self._slept.clear()
        super().reset(seed)

    def state_dict(self) -> dict[str, Any]:
        """Return each stream's last sleep, and the other's state."""
        return {"slept": dict(self._slept), "policy": super().state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the sleeps, and load the other's state."""
        self._slept.clear()
        self._slept.update(state.get("slept", {}))
        super().load_state_dict(state.get("policy", {}))
