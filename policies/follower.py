"""What wrappers have in common: whatever they do not decide themselves, the policy within decides.

What a wrapper changes, and what it keeps, is its own business.
"""

from __future__ import annotations

from typing import Any

from adaptive_sleep.contract import (
    SleepPolicy,
    keep_going,
    load_policy_state,
    observe,
    policy_flops,
    policy_state,
    reset_policy,
)
from adaptive_sleep.signals import BoolArray, SleepProgress, WindowOutcome


class Follower:
    """Passes on all but `plan` to `policy`, a field of the dataclass that derives from it."""

    policy: SleepPolicy

    def keep_going(self, progress: SleepProgress) -> BoolArray:
        """Return what the other says."""
        return keep_going(self.policy, progress)

    def observe(self, outcome: WindowOutcome) -> None:
        """Tell the other."""
        observe(self.policy, outcome)

    def reset(self, seed: int) -> None:
        """Reset the other."""
        reset_policy(self.policy, seed)

    def state_dict(self) -> dict[str, Any]:
        """Return the other's state."""
        return policy_state(self.policy)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the other's state."""
        load_policy_state(self.policy, state)

    def flops(self, streams: int) -> int:
        """Return the other's FLOPs."""
        return policy_flops(self.policy, streams)
