"""What a parameter may be: said with the field, the value and the bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from adaptive_sleep.policies.checks import number, whole
from adaptive_sleep.streams.errors import InputError


@pytest.mark.parametrize("value", [0, 1.0, True, "2", None, math.nan])
def test_what_is_no_whole_number_from_there_up_is_refused(value: Any) -> None:
    with pytest.raises(InputError) as caught:
        whole("windows", value, 1)
    assert str(caught.value) == f"windows={value!r}: expected a whole number from 1 up"


@pytest.mark.parametrize(
    ("value", "low", "high", "bounds"),
    [
        (math.nan, -math.inf, math.inf, ""),
        (math.inf, 0, math.inf, " from 0 up"),
        (True, 0, 2, " from 0 to 2"),
        (2.5, 0, 2, " from 0 to 2"),
        ("1", 0, 2, " from 0 to 2"),
        (3, -math.inf, 2, " to 2"),
    ],
)
def test_what_is_no_finite_number_within_is_refused(
    value: Any, low: float, high: float, bounds: str
) -> None:
    with pytest.raises(InputError) as caught:
        number("mean", value, low, high)
    assert str(caught.value) == f"mean={value!r}: expected a finite number{bounds}"


def test_bounds_are_allowed() -> None:
    whole("windows", np.int64(1), 1)
    for value in (0, 2.0, np.float64(1.5), np.int32(1)):
        number("mean", value, 0, 2)
