"""What is measured within kernels is charged to deciding."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_sleep.experiments import bench_runtime, bench_within
from adaptive_sleep.experiments.bench_within import Within, within
from adaptive_sleep.experiments.bench_workload import Shape
from adaptive_sleep.signals import FloatArray

SHAPE = Shape(streams=3, window=8, width=16)


def test_a_step_pays_for_what_its_passes_measure() -> None:
    parts, passes = Within(change=1.0, summary=10.0, turned=100.0), np.array([1.0, 3.0])
    assert parts.of(passes, asked=True).tolist() == [11.0, 213.0]
    assert parts.of(passes, asked=False).tolist() == [11.0, 13.0]


def test_it_is_what_a_kernel_takes_more_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def spent(calls: list[object], rounds: int) -> FloatArray:
        assert (len(calls), rounds) == (5, 3)
        return np.array([[2.0, 3.0, 7.0, 20.0, 20.5], [3.0, 4.5, 8.0, 30.0, 29.0], [9.0] * 5])

    monkeypatch.setattr(bench_within, "_in_turn", spent)
    assert within(SHAPE, 3) == Within(change=0.0, summary=1.0, turned=5.0)


def test_each_has_its_turn_in_every_round() -> None:
    seen: list[str] = []
    spent = bench_within._in_turn([lambda: seen.append("a"), lambda: seen.append("b")], 2)
    assert seen == ["a", "b", "b", "a", "a", "b"]  # the first round is not counted
    assert spent.shape == (2, 2)


def test_deciding_is_charged_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_runtime, "within", lambda shape, rounds: Within(0.0, 1e3, 0.0))
    rows = bench_runtime.deciding(SHAPE, 1)
    assert all(row["signals_share"] > 1e3 for row in rows)
    monkeypatch.setattr(bench_runtime, "within", lambda shape, rounds: Within(0.0, 0.0, 1e3))
    shares = {row["policy"]: row["signals_share"] for row in bench_runtime.deciding(SHAPE, 1)}
    asked = {name for name, share in shares.items() if share > 1e3}
    assert asked == {name for name in shares if name.startswith(("state", "predicted", "budgeted"))}
    monkeypatch.undo()
    assert all(row["share"] < 1 for row in bench_runtime.deciding(SHAPE, 1))
