"""Made-up runs that a policy is led through: the same windows, whoever else closes with them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adaptive_sleep.contract import observe, plan_passes
from adaptive_sleep.signals import WindowOutcome, WindowSignals
from adaptive_sleep.testing import make_signals

STREAMS = ("ant", "bee", "cat", "dog")


def window(index: int, stream: str = "a", seed: int = 0, **values: Any) -> WindowSignals:
    """The signals of one window of one stream; `values` are single numbers."""
    row = {name: [value] for name, value in values.items()}
    return make_signals(1, seed, stream=[stream], window=[index], **row)


def plan(policy: Any, index: int, stream: str = "a", **values: Any) -> int:
    """The passes planned for one window of one stream."""
    return int(plan_passes(policy, window(index, stream, **values))[0])


def outcome(
    index: int, passes: int = 1, loss: float = 0.1, stream: str = "a", lag: int = 1
) -> WindowOutcome:
    """What came of one window."""
    return WindowOutcome([stream], [index], [passes], [loss], [5], [lag])  # type: ignore[arg-type]


@dataclass
class Course:
    """A run of windows of the streams `names`, all decided by `seed`; outcomes as the runtime's.

    Outcomes are told in the order of STREAMS, signals in the order of `names`.
    """

    seed: int
    names: tuple[str, ...] = STREAMS
    window: int = 0
    pending: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def play(self, policy: Any, windows: int) -> dict[tuple[str, int], int]:
        """Go on for so many windows; return the passes by stream and window."""
        found: dict[tuple[str, int], int] = {}
        for _ in range(windows):
            signals = self.signals()
            told = self._told(signals)
            if told is not None:
                observe(policy, told)
            passes = plan_passes(policy, signals).tolist()
            for name, count in zip(self.names, passes, strict=True):
                found[name, self.window] = count
                self.pending.setdefault(name, []).append((self.window, count))
            self.window += 1
        return found

    def signals(self) -> WindowSignals:
        """The signals of the window that closes now, in the order of `names`."""
        key, count = self.seed * 1000 + self.window, len(STREAMS)
        most = np.random.default_rng(key).integers(1, 7, count)
        rows = [STREAMS.index(name) for name in self.names]
        return make_signals(
            count, key, stream=STREAMS, window=np.full(count, self.window), max_passes=most
        ).select(rows)

    def _told(self, signals: WindowSignals) -> WindowOutcome | None:
        rows = []
        for name in sorted(self.names):
            row = self.names.index(name)
            if signals.scored[row] > 0:
                loss, scored = signals.surprise[row], signals.scored[row]
                for index, passes in self.pending.pop(name, []):
                    rows.append((name, index, passes, loss, scored, self.window - index))
        return WindowOutcome(*map(list, zip(*rows, strict=True))) if rows else None  # type: ignore[arg-type]

    def copy(self) -> Course:
        """The same run, to be gone on with by another policy."""
        return copy.deepcopy(self)
