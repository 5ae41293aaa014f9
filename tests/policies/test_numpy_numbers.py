"""NumPy's numbers for parameters: every policy does with them, and keeps, what it does with
Python's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from policy_cases import Course

from adaptive_sleep.contract import (
    load_policy_state,
    policy_flops,
    policy_state,
    reset_policy,
)
from adaptive_sleep.policies import (
    Bandit,
    Both,
    Budgeted,
    CachePressure,
    Capped,
    Cooldown,
    Drift,
    Either,
    EventDensity,
    Fixed,
    Linear,
    Periodic,
    PerStream,
    Random,
    StateChange,
    Surprise,
    Uncertainty,
    Warmup,
)
from adaptive_sleep.spec import format_spec, resolve

KINDS: list[tuple[type, dict[str, Any]]] = [
    (Bandit, {"passes": 3, "alpha": 0.5, "price": 0.25, "ridge": 2.0, "remember": 4}),
    (Budgeted, {"policy": Fixed(4), "flops_per_event": 1.5e6, "burst": 2.0}),
    (CachePressure, {"threshold": 0.5, "passes": 3}),
    (Capped, {"policy": Fixed(4), "max_passes": 3}),
    (Cooldown, {"policy": Fixed(4), "windows": 2}),
    (Drift, {"threshold": 0.5, "delta": 0.25, "passes": 3, "windows": 2}),
    (EventDensity, {"threshold": 0.5, "passes": 3}),
    (Fixed, {"passes": 3}),
    (Linear, {"bias": 0.5, "surprise": 0.5, "passes": 4}),
    (Periodic, {"every": 2, "passes": 3}),
    (Random, {"mean": 2.5, "most": 3, "seed": 7}),
    (StateChange, {"tolerance": 0.03125, "max_passes": 3}),
    (Surprise, {"threshold": 0.5, "passes": 3}),
    (Uncertainty, {"threshold": 0.5, "passes": 3}),
    (Warmup, {"policy": Fixed(4), "windows": 2, "passes": 3}),
    (PerStream, {"policies": {"a*": Fixed(3)}, "otherwise": Fixed(2)}),
    (Both, {"first": Fixed(3), "second": Surprise(0.5)}),
    (Either, {"first": Fixed(3), "second": Surprise(0.5)}),
]


def of_numpy(value: Any, real: type) -> Any:
    """The same number as NumPy holds it, all else as it is."""
    kinds = {int: np.int64, float: real}
    return kinds[type(value)](value) if type(value) in kinds else value


@pytest.mark.parametrize("real", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("kind", "given"), KINDS, ids=[kind.__name__ for kind, _ in KINDS])
def test_it_does_and_keeps_what_it_does_with_pythons(
    kind: type, given: dict[str, Any], real: type
) -> None:
    plain, other = kind(**given), kind(**{n: of_numpy(v, real) for n, v in given.items()})
    courses = []
    for policy in (plain, other):
        reset_policy(policy, 3)
        courses.append(Course(0).play(policy, 8))
        assert type(policy_flops(policy, 2)) is int
    assert courses[0] == courses[1]
    assert json.dumps(policy_state(other)) == json.dumps(policy_state(plain))
    assert format_spec(other) == format_spec(plain)
    again = resolve(format_spec(other))
    reset_policy(again, 3)
    load_policy_state(again, policy_state(other))
    assert policy_state(again) == policy_state(plain)
