"""Sleep after a change: when a stream's loss has moved to another level, for some windows.

The detector that ships is in `page_hinkley`; other people's come in through `replayed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from adaptive_sleep.contract import Choice, Range, policy
from adaptive_sleep.policies.checks import number, whole
from adaptive_sleep.policies.page_hinkley import PageHinkley
from adaptive_sleep.policies.replayed import Replayed, factory
from adaptive_sleep.policies.threshold import at_least_one, passes_where
from adaptive_sleep.signals import IntArray, WindowOutcome, WindowSignals
from adaptive_sleep.streams.errors import InputError, nearest

_DIRECTIONS = ("up", "both")


@dataclass
class _Watch:
    """One stream: its detector, the last scored window it was told, windows left to sleep on."""

    detector: PageHinkley | Replayed
    last: int = -1
    left: int = 0


@policy("drift")
@dataclass(frozen=True)
class Drift:
    """Sleep `passes` on `windows` windows of a stream whose loss has changed its level.

    Every scored window's mean loss (nats per token or normalised pinball) is told to the stream's
    detector once, in the order of windows: from `observe`, where also windows are told on which no
    policy is asked, or else from the window's own signals. An alarm starts the count of windows
    anew, and the detector too; the window that gave the alarm is the first to be slept on.

    threshold: loss, summed over windows above the stream's mean, that gives an alarm.
    delta: loss above the mean that is forgiven at each window.
    direction: "up" for a loss that has risen, which sleep may mend; "both" for a fall as well.
    detector: "module:Class" of another detector, made with no arguments for every stream, with
        river's `update(x)` and `drift_detected`; then the three above are not used. Its memory is
        saved as the values that it was given (see `replayed`).

    Source: the Page-Hinkley test (Page, 1954; Hinkley, 1971). Raises InputError for a value that
    is not allowed, and as `replayed.factory`.
    """

    threshold: Annotated[float, Range(0.05, 50.0, log=True)] = 1.0
    delta: Annotated[float, Range(0.0, 0.5)] = 0.05
    passes: Annotated[int, Range(2, 8)] = 4
    windows: Annotated[int, Range(1, 32)] = 4
    direction: Annotated[str, Choice(*_DIRECTIONS)] = "up"
    detector: str = ""
    _watches: dict[str, _Watch] = field(default_factory=dict, init=False, compare=False, repr=False)
    _make: Callable[[], PageHinkley | Replayed] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        number("threshold", self.threshold, 0)
        number("delta", self.delta, 0)
        at_least_one("passes", self.passes)
        whole("windows", self.windows, 1)
        if self.direction not in _DIRECTIONS:
            raise InputError(
                f"direction={self.direction!r}: expected one of {', '.join(_DIRECTIONS)}"
                f"{nearest(str(self.direction), _DIRECTIONS)}"
            )
        foreign = factory("detector", self.detector) if self.detector else None

        def make() -> PageHinkley | Replayed:
            if foreign is not None:
                return Replayed(foreign)
            threshold, delta = float(self.threshold), float(self.delta)  # what JSON keeps
            return PageHinkley(threshold, delta, self.direction == "both")

        object.__setattr__(self, "_make", make)

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return `passes` where a stream's alarm is at most `windows` windows old, 1 elsewhere."""
        asleep = np.zeros(len(signals), dtype=np.bool_)
        for row, stream in enumerate(signals.stream):
            if signals.scored[row] > 0:
                self._tell(stream, int(signals.window[row]), float(signals.surprise[row]))
            watch = self._watches.get(stream)
            if watch is not None and watch.left > 0:
                watch.left -= 1
                asleep[row] = True
        return passes_where(asleep, self.passes, signals)

    def observe(self, outcome: WindowOutcome) -> None:
        """Tell each detector the loss of its stream's scored window."""
        for row, stream in enumerate(outcome.stream):
            scored = int(outcome.window[row] + outcome.lag[row])
            self._tell(stream, scored, float(outcome.loss[row]))

    def _tell(self, stream: str, window: int, loss: float) -> None:
        watch = self._watches.get(stream)
        if watch is None:
            watch = self._watches[stream] = _Watch(self._make())
        if window <= watch.last:  # told before: by the outcome, or for another pending window
            return
        watch.last = window
        watch.detector.update(loss)
        if watch.detector.drift_detected:
            watch.detector, watch.left = self._make(), int(self.windows)

    def reset(self, seed: int) -> None:
        """Forget all streams; nothing here is random."""
        self._watches.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return each stream's detector and counts."""
        return {
            stream: {"last": it.last, "left": it.left, "detector": it.detector.state_dict()}
            for stream, it in self._watches.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace all streams by those of the state."""
        self._watches.clear()
        for stream, it in state.items():
            watch = self._watches[stream] = _Watch(self._make(), it["last"], it["left"])
            watch.detector.load_state_dict(it["detector"])
