"""The Page-Hinkley test: has the mean of a sequence gone up (or down)? One sequence, one object.

What is done about an alarm is `drift`'s business. It answers to `update` and `drift_detected`, as
the detectors of river do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class PageHinkley:
    """Sum how far values lie above their running mean; alarm when the sum has risen too far.

    With mean_i the mean of x_1..x_i and m_n the sum over i <= n of (x_i - mean_i - delta), the
    alarm is m_n - min_{0 <= k <= n} m_k > threshold (m_0 = 0); `rise` is the left side, kept as in
    Page's recursion. `both` applies the same test to -x, in `fall`.

    threshold, delta: in the unit of x; what is forgiven in all, and at each value.

    Source: Page, Continuous inspection schemes, Biometrika 41, 1954; Hinkley, Inference about the
    change-point from cumulative sum tests, Biometrika 58, 1971.
    """

    threshold: float
    delta: float
    both: bool = False
    count: int = 0
    mean: float = 0.0
    rise: float = 0.0
    fall: float = 0.0

    def update(self, x: float) -> None:
        """Take the next value."""
        self.count += 1
        self.mean += (x - self.mean) / self.count
        self.rise = max(0.0, self.rise + (x - self.mean) - self.delta)
        self.fall = max(0.0, self.fall - (x - self.mean) - self.delta)

    @property
    def drift_detected(self) -> bool:
        """Whether the last value gave an alarm."""
        return self.rise > self.threshold or (self.both and self.fall > self.threshold)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far; what it was made with is not part of them."""
        return {name: getattr(self, name) for name in ("count", "mean", "rise", "fall")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the sums by those that `state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value)
