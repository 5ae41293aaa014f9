"""Other streams, other policies: which one, the stream's name decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from adaptive_sleep.contract import (
    SleepPolicy,
    keep_going,
    load_policy_state,
    observe,
    plan_passes,
    policy,
    policy_flops,
    policy_state,
    reset_policy,
)
from adaptive_sleep.signals import BoolArray, IntArray, SleepProgress, WindowOutcome, WindowSignals
from adaptive_sleep.spec import resolve
from adaptive_sleep.streams.errors import InputError


@policy("per_stream")
@dataclass(frozen=True)
class PerStream:
    """Follow the policy of the first pattern that a stream's name matches, or `otherwise`.

    Written per_stream({'pump-*': fixed(4), '*': surprise}, fixed(1)); patterns are shell patterns
    (`*`, `?`, `[ab]`), case matters. Each policy sees its own streams only, as if there were no
    others. Raises InputError for policies that are no dict of patterns.
    """

    policies: dict[str, SleepPolicy]
    otherwise: SleepPolicy

    def __post_init__(self) -> None:
        given: Any = self.policies
        if not (isinstance(given, dict) and all(isinstance(it, str) for it in given)):
            raise InputError(
                f"policies={given!r}: expected patterns of stream names and their "
                "policies, as {'pump-*': fixed(4)}"
            )
        parts = {pattern: resolve(part) for pattern, part in self.policies.items()}
        object.__setattr__(self, "policies", parts)
        object.__setattr__(self, "otherwise", resolve(self.otherwise))

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return what each stream's own policy plans for it."""
        passes = np.ones(len(signals), dtype=np.int64)
        for part, rows in self._shares(signals.stream):
            passes[rows] = plan_passes(part, signals.select(rows))
        return passes

    def keep_going(self, progress: SleepProgress) -> BoolArray:
        """Return what each stream's own policy says."""
        going = np.ones(len(progress), dtype=np.bool_)
        for part, rows in self._shares(progress.stream):
            going[rows] = keep_going(part, progress.select(rows))
        return going

    def observe(self, outcome: WindowOutcome) -> None:
        """Tell each policy the outcomes of its own streams."""
        for part, rows in self._shares(outcome.stream):
            observe(part, outcome.select(rows))

    def _shares(self, streams: Iterable[str]) -> Iterator[tuple[SleepPolicy, list[int]]]:
        """Yield each policy that has any of the streams, with their rows."""
        rows: list[list[int]] = [[] for _ in range(len(self.policies) + 1)]
        for row, stream in enumerate(streams):
            found = (at for at, it in enumerate(self.policies) if fnmatchcase(stream, it))
            rows[next(found, len(self.policies))].append(row)
        yield from ((part, own) for part, own in zip(self._parts(), rows, strict=True) if own)

    def _parts(self) -> list[SleepPolicy]:
        return [*self.policies.values(), self.otherwise]

    def reset(self, seed: int) -> None:
        """Reset all, with seeds of their own: equal parts must not draw equal numbers."""
        seeds = np.random.SeedSequence(seed).generate_state(len(self._parts()))
        for part, own in zip(self._parts(), seeds, strict=True):
            reset_policy(part, int(own))

    def state_dict(self) -> dict[str, Any]:
        """Return the states that there are, in the order of the policies, None for no state."""
        states = [policy_state(part) or None for part in self._parts()]
        return {"parts": states} if any(states) else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load all states."""
        states = state.get("parts", [None] * len(self._parts()))
        for part, own in zip(self._parts(), states, strict=True):
            load_policy_state(part, own or {})

    def flops(self, streams: int) -> int:
        """Return the FLOPs of the dearest policy, had it all the streams: no more is spent."""
        return max(policy_flops(part, streams) for part in self._parts())
