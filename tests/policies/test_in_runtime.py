"""Policies of the shelf inside the runtime: saved on disk, undone with a step, forced windows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adaptive_sleep as asl
import adaptive_sleep.policies as shelf
from adaptive_sleep.contract import policy_state
from adaptive_sleep.spec import resolve

CONFIG = asl.ModelConfig(
    kind="tokens",
    vocabulary=17,
    width=16,
    layers=("deltanet", "attention"),
    heads=2,
    fast_heads=2,
    key_dim=16,
    value_dim=8,
    conv=3,
    window=8,
)
MODEL = asl.Model(CONFIG).eval()
SPECS = [
    "bandit(alpha=2.0)",
    "cooldown(random(mean=2.5), windows=1)",
    "per_stream({'a': drift(threshold=0.001, delta=0.0, windows=1)}, random(mean=2.5))",
]


def piece(stream: str, count: int, seed: int, closes: bool = True) -> asl.Piece:
    draw = np.random.default_rng(seed)
    time = np.cumsum(draw.integers(1, 10**9, count)).astype(np.int64) + seed * 10**11
    return asl.Piece(stream, asl.Events(time, tokens=draw.integers(0, 17, count)), closes=closes)


def steps(runtime: asl.Runtime, start: int) -> list[Any]:
    """Five steps of two streams, one of which closes in each."""
    rows: list[Any] = []
    for turn in range(start, start + 5):
        pieces = [piece("a", 8, 2 * turn), piece("b", 4, 2 * turn + 1, closes=turn % 2 == 1)]
        rows += runtime.step(pieces).rows
    return rows


@pytest.mark.parametrize("spec", SPECS)
def test_a_run_goes_on_from_disk_as_it_would_have(spec: str, tmp_path: Path) -> None:
    runtime = asl.Runtime(MODEL, spec, seed=5)
    first = steps(runtime, 0)
    runtime.save(tmp_path)
    again = asl.Runtime.resume(tmp_path, MODEL, spec)
    assert steps(again, 5) == steps(runtime, 5)
    assert len({row.passes for row in first}) > 1


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[2]])
def test_a_step_that_fails_leaves_the_policy_as_it_was(spec: str) -> None:
    policy = resolve(spec)
    runtime = asl.Runtime(MODEL, policy, seed=5)
    steps(runtime, 0)
    before = policy_state(policy)
    plan, answers = type(policy).plan, []

    def fails(signals: asl.WindowSignals) -> Any:
        answers.append(plan(policy, signals))
        assert policy_state(policy) != before
        raise RuntimeError("too late")

    object.__setattr__(policy, "plan", fails)
    with pytest.raises(RuntimeError, match="too late"):
        steps(runtime, 5)
    assert len(answers) == 1
    assert policy_state(policy) == before


class OnlySaves:
    def plan(self, signals: asl.WindowSignals) -> int:
        return 2

    def state_dict(self) -> dict[str, int]:
        return {"n": 1}


WRAPPED: dict[str, Callable[[Any], Any]] = {
    "capped": lambda it: shelf.Capped(it, 3),
    "cooldown": shelf.Cooldown,
    "warmup": shelf.Warmup,
    "budgeted": lambda it: shelf.Budgeted(it, 1e6),
    "both": lambda it: shelf.Both(shelf.Fixed(2), it),
    "either": lambda it: shelf.Either(it, shelf.Fixed(2)),
    "per stream": lambda it: shelf.PerStream({"a*": shelf.Capped(it)}, shelf.Fixed(2)),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_one_that_cannot_be_put_back_is_refused_however_it_is_wrapped(name: str) -> None:
    with pytest.raises(asl.PolicyError, match="OnlySaves has state_dict but no load_state_dict"):
        asl.Runtime(MODEL, WRAPPED[name](OnlySaves()))


@pytest.mark.parametrize(
    ("held", "new", "passes"), [((5, 4), 2, 3), ((4, 4), 3, 1), ((4, 3), 5, 1)]
)
def test_cache_pressure_sleeps_on_a_window_that_is_forced_out(
    held: tuple[int, int], new: int, passes: int
) -> None:
    """If the step brings at most 1 - threshold of the budget; with more, nobody could know."""
    runtime = asl.Runtime(MODEL, "cache_pressure(threshold=0.8, passes=3)", kv_budget=10)
    for stream, count in zip("ab", held, strict=True):
        assert runtime.step([piece(stream, count, 0, closes=False)]).rows == []
    result = runtime.step([piece("c", new, 1, closes=False)])
    assert result.forced == ("a",)
    assert [(row.stream, row.passes) for row in result.rows] == [("a", passes)]
