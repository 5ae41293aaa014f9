"""What holds for every policy that we ship, and where each of the simple ones draws its line."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adaptive_sleep.policies as shipped
from adaptive_sleep.contract import keep_going, plan_passes, registered
from adaptive_sleep.policies import (
    CachePressure,
    EventDensity,
    Fixed,
    StateChange,
    Surprise,
    Uncertainty,
)
from adaptive_sleep.spec import resolve
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import check_policy, make_progress, make_signals


@pytest.mark.parametrize(
    "spec",
    [
        "fixed(1)",
        "fixed(4)",
        "surprise",
        "uncertainty",
        "state_change",
        "state_change(tolerance=0.02, max_passes=6)",
        "cache_pressure",
        "event_density",
        "capped(surprise, max_passes=2)",
        "capped(state_change, max_passes=3)",
        "either(surprise, state_change)",
        "either(either(fixed(2), uncertainty), state_change(0.01, 6))",
        "both(surprise, state_change)",
        "budgeted(fixed(6), flops_per_event=2e6)",
        "budgeted(state_change(0.02, 6), flops_per_event=1e6, burst=1)",
        "capped(budgeted(either(surprise, state_change), flops_per_event=2e6), max_passes=3)",
        "both(budgeted(fixed(6), 1e6), budgeted(state_change, 2e6))",
    ],
)
def test_it_conforms(spec: str) -> None:
    check_policy(spec)


def test_entry_points_and_registered_names_are_the_same() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    points = tomllib.loads(project.read_text())["project"]["entry-points"]
    ours = {
        name: f"{cls.__module__}:{cls.__qualname__}"
        for name, cls in registered().items()
        if cls.__module__.startswith("adaptive_sleep.policies.")
    }
    assert points["adaptive_sleep.policies"] == ours
    assert {cls.rsplit(":")[1] for cls in ours.values()} == set(shipped.__all__)


def test_policies_load_no_torch() -> None:
    code = (
        "import sys, adaptive_sleep.policies, adaptive_sleep.testing; "
        "heavy = {'torch', 'polars', 'scipy', 'gymnasium', 'optuna'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("policy", "signal"),
    [
        (Surprise(threshold=1.0, passes=3), "surprise"),
        (Uncertainty(threshold=1.0, passes=3), "uncertainty"),
        (CachePressure(threshold=1.0, passes=3), "cache_pressure"),
        (EventDensity(threshold=1.0, passes=3), "event_density"),
        (StateChange(tolerance=1.0, max_passes=3), "state_change"),
    ],
)
def test_it_sleeps_above_its_threshold_and_on_no_other_account(policy: Any, signal: str) -> None:
    for seed in range(5):
        values: Any = {signal: [0.5, 1.0, np.nextafter(1.0, 2.0), 5.0]}
        signals = make_signals(4, seed, **values)
        assert plan_passes(policy, signals).tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize("policy", [Fixed(8), Surprise(-1.0, 8), StateChange(-1.0, 8)])
def test_it_plans_no_more_than_max_passes(policy: Any) -> None:
    signals = make_signals(3, 0, max_passes=[1, 5, 20])
    assert plan_passes(policy, signals).tolist() == [1, 5, 8]


def test_state_change_goes_on_while_the_last_pass_still_changed_something() -> None:
    progress = make_progress(3, 0, state_change=[0.04, 0.05, 0.06])
    assert keep_going(StateChange(tolerance=0.05), progress).tolist() == [False, False, True]


@pytest.mark.parametrize("name", ["surprise", "uncertainty", "event_density", "cache_pressure"])
@pytest.mark.parametrize("value", [np.nan, np.inf, "0.5", None, True])
def test_a_threshold_that_is_no_number_is_refused_at_once(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=r"threshold=.*: expected a finite number"):
        registered()[name](threshold=value)
    with pytest.raises(InputError, match=r"tolerance=.*: expected a finite number"):
        StateChange(tolerance=value)
    with pytest.raises(InputError, match=r"threshold=inf: expected a finite number"):
        resolve(f"{name}(threshold=1e999)")


@pytest.mark.parametrize(
    "make", [Fixed, lambda it: Surprise(1.0, it), lambda it: StateChange(1.0, it)]
)
@pytest.mark.parametrize("passes", [0, -1, True, 1.5])
def test_passes_that_cannot_be_are_refused_at_once(make: Any, passes: Any) -> None:
    with pytest.raises(InputError, match=rf"passes={passes!r}: expected a whole number from 1"):
        make(passes)
