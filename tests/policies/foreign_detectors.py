"""Change detectors as other people write them: river's two names, and memories of their own."""

from __future__ import annotations

import math
from itertools import pairwise


class Jump:
    """Alarms when a value is more than 0.5 from the mean of all before it."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, float]] = set()  # nothing that JSON could hold
        self.drift_detected = False

    def update(self, x: float) -> Jump:
        before = [value for _, value in sorted(self._seen)]
        self.drift_detected = bool(before) and abs(x - math.fsum(before) / len(before)) > 0.5
        self._seen.add((len(before), x))
        return self


class Rising:
    """Alarms when the last three values rise; `drift_detected` is a property, as river's is."""

    def __init__(self) -> None:
        self.given: list[float] = []

    def update(self, x: float) -> None:
        self.given.append(x)

    @property
    def drift_detected(self) -> bool:
        last = self.given[-3:]
        return len(last) == 3 and all(one < other for one, other in pairwise(last))


class Deaf:
    """Lacks `drift_detected`, but has something of nearly that name."""

    drift_detect = False

    def update(self, x: float) -> None:
        pass


class Picky:
    """Cannot be made with no arguments."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold


def rising() -> Rising:
    """A function does as well as a class."""
    return Rising()
