"""Every n-th window of each stream sleeps, whatever it holds."""

from __future__ import annotations

from typing import Any

import pytest
from policy_cases import plan

from adaptive_sleep.policies import Periodic
from adaptive_sleep.streams.errors import InputError


@pytest.mark.parametrize(
    ("every", "expected"), [(1, [3] * 6), (2, [1, 3, 1, 3, 1, 3]), (4, [1, 1, 1, 3, 1, 1])]
)
def test_every_nth_window_sleeps(every: int, expected: list[int]) -> None:
    policy = Periodic(every, passes=3)
    assert [plan(policy, index) for index in range(6)] == expected
    assert plan(policy, every - 1, max_passes=2) == 2


@pytest.mark.parametrize("values", [{"every": 0}, {"every": 1.5}, {"every": True}, {"passes": 0}])
def test_what_is_no_number_of_windows_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"{next(iter(values))}=.*expected a whole number from 1"):
        Periodic(**values)
