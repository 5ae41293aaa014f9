"""The Page-Hinkley test against its definition, written out over the whole sequence."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adaptive_sleep.policies.page_hinkley import PageHinkley

values = st.lists(st.floats(-5, 5), min_size=1, max_size=40)


def statistic(x: list[float], delta: float) -> float:
    """m_n - min over 0 <= k <= n of m_k, by sums over everything."""
    sums = [0.0]
    for n in range(1, len(x) + 1):
        sums.append(sum(x[i] - np.mean(x[: i + 1]) - delta for i in range(n)))
    return float(sums[-1] - min(sums))


@given(values, st.floats(0, 1))
def test_it_is_the_test_as_defined_in_both_directions(x: list[float], delta: float) -> None:
    detector = PageHinkley(1.0, delta, both=True)
    for value in x:
        detector.update(value)
    np.testing.assert_allclose(detector.rise, statistic(x, delta), atol=1e-9)
    np.testing.assert_allclose(detector.fall, statistic([-v for v in x], delta), atol=1e-9)
    assert detector.drift_detected == (max(detector.rise, detector.fall) > 1.0)


def alarms(detector: PageHinkley, x: list[float]) -> list[int]:
    found = []
    for at, value in enumerate(x):
        detector.update(value)
        if detector.drift_detected:
            found.append(at)
    return found


def test_it_hears_a_step_and_not_a_level() -> None:
    level = [1.0] * 20
    assert alarms(PageHinkley(0.5, 0.05), level + [1.3] * 3) == [22]
    assert alarms(PageHinkley(0.5, 0.05), level + [0.5] * 9) == []
    assert alarms(PageHinkley(0.5, 0.05, both=True), level + [0.5] * 9)[:1] == [21]
    assert alarms(PageHinkley(0.5, 0.4), level + [1.3] * 9) == []
