"""Policies made of policies: a cap on one, and the longer or the shorter of two.

Each passes on everything its parts may want: outcomes, seeds, state, and the question during sleep.
A budget over time is in `budgeted`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from adaptive_sleep.contract import (
    Range,
    SleepPolicy,
    keep_going,
    load_policy_state,
    observe,
    plan_passes,
    planned_passes,
    policy,
    policy_flops,
    policy_state,
    reset_policy,
)
from adaptive_sleep.policies.follower import Follower
from adaptive_sleep.policies.threshold import at_least_one
from adaptive_sleep.signals import BoolArray, IntArray, SleepProgress, WindowOutcome, WindowSignals
from adaptive_sleep.spec import resolve


@policy("capped")
@dataclass(frozen=True)
class Capped(Follower):
    """Follow another policy, but never for more than `max_passes`."""

    policy: SleepPolicy
    max_passes: Annotated[int, Range(1, 8)] = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", resolve(self.policy))
        at_least_one("max_passes", self.max_passes)

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return the other's plan, cut off at `max_passes`."""
        return np.minimum(planned_passes(self.policy, signals), self.max_passes)


@policy("both")
@dataclass(frozen=True)
class Both:
    """Sleep only as long as both of two policies agree to: the shorter plan, the first to stop."""

    first: SleepPolicy
    second: SleepPolicy

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", resolve(self.first))
        object.__setattr__(self, "second", resolve(self.second))

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return the shorter of the two plans."""
        return np.minimum(plan_passes(self.first, signals), plan_passes(self.second, signals))

    def keep_going(self, progress: SleepProgress) -> BoolArray:
        """Return where both go on; both are asked, so that either may learn from it."""
        return keep_going(self.first, progress) & keep_going(self.second, progress)

    def observe(self, outcome: WindowOutcome) -> None:
        """Tell both."""
        observe(self.first, outcome)
        observe(self.second, outcome)

    def reset(self, seed: int) -> None:
        """Reset both, with seeds of their own."""
        _reset(self, seed)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both, where they have any."""
        return _state(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the states of both."""
        _load(self, state)

    def flops(self, streams: int) -> int:
        """Return the FLOPs of both together."""
        return policy_flops(self.first, streams) + policy_flops(self.second, streams)


@policy("either")
@dataclass(frozen=True)
class Either:
    """Sleep as long as one of two policies wants to: the longer plan, the last to stop.

    During the sleep, a part is asked only about streams on which its own plan is not used up and
    on which it has not yet said stop, as if it were alone; a stream goes on if one such part does.
    """

    first: SleepPolicy
    second: SleepPolicy
    # passes that each part still allows, by stream; the next plan overwrites it, so it is no state
    _limits: dict[str, list[int]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", resolve(self.first))
        object.__setattr__(self, "second", resolve(self.second))

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return the longer of the two plans."""
        plans = [plan_passes(self.first, signals), plan_passes(self.second, signals)]
        for row, stream in enumerate(signals.stream):
            self._limits[stream] = [int(part[row]) for part in plans]
        return np.maximum(*plans)

    def keep_going(self, progress: SleepProgress) -> BoolArray:
        """Return where a part that is still in its plan goes on."""
        for stream, planned in zip(progress.stream, progress.planned, strict=True):
            self._limits.setdefault(stream, [int(planned), int(planned)])
        going = np.zeros(len(progress), dtype=np.bool_)
        for side, part in enumerate((self.first, self.second)):
            limits = np.array([self._limits[it][side] for it in progress.stream], dtype=np.int64)
            asked = np.flatnonzero(progress.passes < limits)
            if not asked.size:
                continue
            answer = keep_going(part, progress.select(asked))
            going[asked] |= answer
            for row in asked[~answer]:
                self._limits[progress.stream[row]][side] = 1
        return going

    def observe(self, outcome: WindowOutcome) -> None:
        """Tell both."""
        observe(self.first, outcome)
        observe(self.second, outcome)

    def reset(self, seed: int) -> None:
        """Reset both, with seeds of their own."""
        self._limits.clear()
        _reset(self, seed)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both, where they have any."""
        return _state(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the states of both."""
        _load(self, state)

    def flops(self, streams: int) -> int:
        """Return the FLOPs of both together."""
        return policy_flops(self.first, streams) + policy_flops(self.second, streams)


def _reset(pair: Both | Either, seed: int) -> None:
    # two random parts of one kind must not draw the same numbers
    seeds = np.random.SeedSequence(seed).generate_state(2)
    reset_policy(pair.first, int(seeds[0]))
    reset_policy(pair.second, int(seeds[1]))


def _state(pair: Both | Either) -> dict[str, Any]:
    states = {"first": policy_state(pair.first), "second": policy_state(pair.second)}
    return {part: state for part, state in states.items() if state}


def _load(pair: Both | Either, state: dict[str, Any]) -> None:
    load_policy_state(pair.first, state.get("first", {}))
    load_policy_state(pair.second, state.get("second", {}))
