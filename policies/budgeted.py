"""A token bucket: another policy's wishes, within so many sleep FLOPs per event.

It bounds what is planned, stream by stream. The runtime's own `budget` does the same for any policy
from outside; this one can be composed and tuned like a policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from adaptive_sleep.contract import Range, SleepPolicy, plan_passes, policy
from adaptive_sleep.policies.checks import number
from adaptive_sleep.policies.follower import Follower
from adaptive_sleep.signals import BoolArray, IntArray, SleepProgress, WindowOutcome, WindowSignals
from adaptive_sleep.spec import resolve


@dataclass
class _Account:
    """What one stream may spend: FLOPs saved up, and what its last plan was charged for."""

    balance: float = 0.0
    largest: int = 0  # events of the largest window so far: what "a window's worth" means
    window: int = -1
    charged: int = 1  # passes of that window paid for, the wake pass (free) included
    pass_flops: int = 0

    def settle(self, window: int, passes: int) -> None:
        """Charge for the passes really run instead of those planned, if that window is the last."""
        if window == self.window:
            self.balance += (self.charged - passes) * self.pass_flops
            self.charged = passes


@policy("budgeted")
@dataclass(frozen=True)
class Budgeted(Follower):
    """Follow another policy within a budget of sleep FLOPs per event, saved up by each stream.

    At each window that may be slept on a stream earns `flops_per_event` for every event of it
    (events of questions, which no policy is asked about, earn nothing), and keeps at most `burst`
    times what its largest window so far earned. The plan is cut to what the balance pays
    for, and charged at once. Passes that were planned but not run are paid back: at the moment of
    stopping if this policy stopped the sleep, else (somebody else cut it) with the outcome of the
    window, provided no later window was planned before. So no more is ever spent than was earned;
    what a surrounding `either` adds to the plan is charged to the next windows.
    """

    policy: SleepPolicy
    flops_per_event: Annotated[float, Range(1e3, 1e9, log=True)]
    burst: Annotated[float, Range(1.0, 16.0)] = 4.0
    _accounts: dict[str, _Account] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", resolve(self.policy))
        number("flops_per_event", self.flops_per_event, 0)
        number("burst", self.burst, 1)

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return the other's plan, cut to what each stream's balance pays for."""
        passes = plan_passes(self.policy, signals)
        rate, burst = float(self.flops_per_event), float(self.burst)  # what JSON keeps
        columns = (signals.stream, signals.window, signals.tokens, signals.pass_flops, passes)
        for row, entry in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
            stream, window, tokens, cost, wanted = entry
            account = self._accounts.get(stream) or self._accounts.setdefault(stream, _Account())
            account.largest = max(account.largest, tokens)
            cap = burst * rate * account.largest
            account.balance = min(account.balance + rate * tokens, cap)
            if wanted > 1 and cost > 0:
                wanted = min(wanted, 1 + max(0, math.floor(account.balance / cost)))
            passes[row] = wanted
            account.window, account.charged, account.pass_flops = window, wanted, cost
            account.balance -= (account.charged - 1) * cost
        return passes

    def keep_going(self, progress: SleepProgress) -> BoolArray:
        """Return what the other says; passes that it forgoes are paid back."""
        going = super().keep_going(progress)
        for row in np.flatnonzero(~going):
            account = self._accounts.get(progress.stream[row])
            if account is not None:
                account.settle(int(progress.window[row]), int(progress.passes[row]))
        return going

    def observe(self, outcome: WindowOutcome) -> None:
        """Settle the account of each window, then tell the other."""
        told = (each.tolist() for each in (outcome.stream, outcome.window, outcome.passes))
        for stream, window, passes in zip(*told, strict=True):
            account = self._accounts.get(stream)
            if account is not None:
                account.settle(window, passes)
        super().observe(outcome)

    def reset(self, seed: int) -> None:
        """Empty all accounts and reset the other."""
        self._accounts.clear()
        super().reset(seed)

    def state_dict(self) -> dict[str, Any]:
        """Return the accounts by stream, and the other's state."""
        accounts = {stream: dict(vars(account)) for stream, account in self._accounts.items()}
        return {"accounts": accounts, "policy": super().state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the accounts, and load the other's state."""
        self._accounts.clear()
        for stream, account in state.get("accounts", {}).items():
            self._accounts[stream] = _Account(**account)
        super().load_state_dict(state.get("policy", {}))
