"""The runtime benchmark reports a ratio only where batches and signals are right, and looks into a
step without changing it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptive_sleep import boundary, kernels
from adaptive_sleep.experiments import (
    bench_runtime,
    bench_runtime_gate,
    bench_watch,
    bench_workload,
)
from adaptive_sleep.experiments.bench_runtime import Contender, deciding, mixed, run_bench, spread
from adaptive_sleep.experiments.bench_watch import PARTS, Watch, watching
from adaptive_sleep.experiments.bench_within import Within
from adaptive_sleep.experiments.bench_workload import (
    Shape,
    even_passes,
    model_of,
    policies_of,
    prescribed,
    windows_of,
)
from adaptive_sleep.experiments.cli import main
from adaptive_sleep.memory import FastWeights
from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.sleep import ClosedWindow, Slept, consolidate
from adaptive_sleep.streams.errors import AdaptiveSleepError
from adaptive_sleep.streams.events import Piece

TINY = Shape(streams=5, window=8, width=16)
LONE = Shape(streams=1, window=8, width=16)
POLICIES = 5


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate over small shapes."""
    monkeypatch.setattr(bench_runtime_gate, "SHAPE", TINY)


LINES: list[str] = []


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What the benchmark finds of small shapes, and says meanwhile in `LINES`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_runtime_gate, "SHAPE", TINY)
        return run_bench(TINY, (LONE,), rounds=2, report=LINES.append)


def test_the_report_has_its_keys(found: dict[str, Any]) -> None:
    assert found["gate"] == "passed"
    assert [row["streams"] for row in found["deciding"]] == [5] * POLICIES + [1] * POLICIES
    for row in found["deciding"]:
        assert 0 < row["share_low"] <= row["share"] <= row["share_high"] < 1
        assert 0 < row["signals_share"] < row["share_high"]
        assert 0 < row["policy_share"] < row["share_high"]
        assert 1 <= row["mean_passes"] <= bench_workload.MOST
    assert [row["streams"] for row in found["mixed"]] == [5]  # of one stream nothing is mixed
    assert 0 < found["mixed"][0]["ratio_low"] <= found["mixed"][0]["ratio"] == found["mixed_ratio"]
    assert found["deciding_share"] == max(row["share"] for row in found["deciding"][:POLICIES])
    assert json.loads(json.dumps(found)) == found
    assert len(LINES) == 4


@pytest.mark.parametrize("signal", ["summary", "state_change", "uncertainty"])
def test_a_wrong_signal_has_no_ratio(signal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = boundary.window_signals

    def wrong(*given: Any) -> Any:
        signals = right(*given)
        values = getattr(signals, signal).copy()
        values[-1] *= 1 + 1e-4
        object.__setattr__(signals, signal, values)
        return signals

    monkeypatch.setattr(boundary, "window_signals", wrong)
    with pytest.raises(AdaptiveSleepError, match=rf"{signal} of stream-\d.*no ratio is reported"):
        run_bench(TINY, rounds=1)


def test_streams_that_disturb_one_another_have_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: Model, window: ClosedWindow, *given: Any) -> Slept:
        slept = consolidate(model, window, *given)
        if len(slept.passes) == 1:
            return slept
        mixed = {name: t + 1e-4 * t.mean(0) for name, t in slept.weights.matrices.items()}
        weights = FastWeights(mixed, slept.weights.tails)
        return Slept(weights, slept.passes, slept.last_change)

    monkeypatch.setattr(boundary, "consolidate", wrong)
    threads = torch.get_num_threads()
    with pytest.raises(AdaptiveSleepError, match=r"now\.matrix\.\d of stream-\d"):
        run_bench(TINY, rounds=1)
    assert torch.get_num_threads() == threads


def test_the_gate_looks_at_ragged_windows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding that leaks into a signal shows only where windows differ in length."""
    right = kernels.added

    def leaks(
        x: torch.Tensor, y: torch.Tensor, lengths: torch.Tensor, *given: Any, **named: Any
    ) -> Any:
        return right(x, y, torch.full_like(lengths, x.shape[1]), *given, **named)

    monkeypatch.setattr("adaptive_sleep.model.added", leaks)
    with pytest.raises(AdaptiveSleepError, match="summary of stream-"):
        bench_runtime_gate.check_gate()


def test_watching_sees_every_part_and_leaves_the_step_alone() -> None:
    model = model_of(TINY)
    policy = "budgeted(state_change(tolerance=1e-3, max_passes=4), flops_per_event=1e9)"
    watched, plain = Runtime(model, policy), Runtime(model, policy)
    before = [getattr(owner, name) for owner, name, _ in PARTS]
    calls: Counter[str] = Counter()
    for turn in range(3):
        pieces = windows_of(TINY, turn)
        if turn == 2:  # where not all close, how far the fast weights moved is measured apart
            pieces[0] = replace(pieces[0], closes=False, cause="")
        with watching() as watch:
            rows = watched.step(pieces).rows
        assert rows == plain.step(pieces).rows
        assert all(seconds > 0 for seconds in watch.seconds.values())
        calls += Counter(watch.calls)
    assert [name for _, name, _ in PARTS if not calls[name]] == []
    assert [getattr(owner, name) for owner, name, _ in PARTS] == before


def test_after_an_error_nothing_is_watched() -> None:
    before = [getattr(owner, name) for owner, name, _ in PARTS]
    with pytest.raises(ZeroDivisionError), watching():
        raise ZeroDivisionError
    assert [getattr(owner, name) for owner, name, _ in PARTS] == before


def test_a_part_within_another_counts_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(bench_watch.time, "thread_time", lambda: now[0])
    watch = Watch()

    def works(seconds: float) -> None:
        now[0] += seconds

    inner = watch.around(works, "plan_passes", "policy")

    def asks() -> None:
        works(1.0)
        inner(4.0)
        inner(8.0)
        works(2.0)

    watch.around(asks, "_ask", "signals")()
    assert watch.seconds == {"signals": 3.0, "policy": 12.0}
    assert (watch.calls["_ask"], watch.calls["plan_passes"]) == (1, 2)


def test_the_ideal_is_the_sum_of_passes_over_the_rows_that_take_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = {1: 7.0, 2: 4.0, 3: 3.0, 4: 2.0}  # seconds of pass n in a full batch
    rows = {1: 1.0, 2: 0.75, 3: 0.5, 4: 0.25}

    def stub(contenders: Sequence[Contender], shape: Shape, rounds: int) -> None:
        ours, *full = contenders
        for n, each in enumerate(full, 1):
            whole = sum(passes[m] for m in range(1, n + 1))
            each.times = [{"step": whole}] * (bench_runtime.WARM + rounds)
        ideal = sum(passes[n] * rows[n] for n in passes)
        ours.times = [{"step": 1.5 * ideal}] * (bench_runtime.WARM + rounds)

    monkeypatch.setattr(bench_runtime, "in_turn", stub)
    found = mixed(Shape(8, 8, 16), 3)
    assert found["ratio"] == pytest.approx(1.5)
    assert found["ideal_seconds"] == pytest.approx(7 + 0.75 * 4 + 0.5 * 3 + 0.25 * 2)
    assert found["sleep_ratio"] == pytest.approx((1.5 * 12 - 7) / 5)


def test_a_share_is_of_its_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def stub(contenders: Sequence[Contender], shape: Shape, rounds: int) -> None:
        for each in contenders:
            warm = [{"step": 1.0, "signals": 1.0, "policy": 1.0}] * bench_runtime.WARM
            timed = [{"step": k, "signals": k / 4, "policy": k / 8} for k in (1.0, 50.0, 2.0)]
            each.times, each.passes = warm + timed, [9.0] * bench_runtime.WARM + [1.0, 3.0, 2.0]

    monkeypatch.setattr(bench_runtime, "in_turn", stub)
    monkeypatch.setattr(bench_runtime, "within", lambda *_: Within(0.0, 0.0, 0.0))
    for row in deciding(TINY, 3):
        assert row["share"] == row["share_low"] == row["share_high"] == 3 / 8
        assert (row["signals_share"], row["policy_share"]) == (1 / 4, 1 / 8)
        assert (row["step_seconds"], row["mean_passes"]) == (2.0, 2.0)


def test_everyone_reads_the_same_windows_in_turn() -> None:
    taken: list[tuple[str, int]] = []

    class Reader(Contender):
        def __init__(self, name: str) -> None:
            self.name = name

        def step(self, pieces: Sequence[Piece]) -> None:
            taken.append((self.name, int(pieces[0].events.time[0]) // (8 * 10**9)))

    bench_runtime.in_turn([Reader(name) for name in "abc"], TINY, 1)
    assert [name for name, _ in taken] == list("abcbcacab")
    assert [turn for _, turn in taken] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_quarter_of_the_streams_takes_each_number_of_passes() -> None:
    passes = even_passes(Shape(64, 8, 16))
    assert Counter(passes.values()) == {1: 16, 2: 16, 3: 16, 4: 16}
    assert list(passes.values()) != sorted(passes.values())
    runtime = Runtime(model_of(TINY), prescribed(even_passes(TINY)))
    rows = runtime.step(windows_of(TINY, 0)).rows
    assert {row.stream: row.passes for row in rows} == even_passes(TINY)


def test_windows_differ_in_length_only_where_they_are_to() -> None:
    assert {len(piece.events) for piece in windows_of(TINY, 1)} == {8}
    lengths = [len(piece.events) for piece in windows_of(TINY, 1, ragged=True)]
    assert len(set(lengths)) > 1
    assert all(1 <= length <= 8 for length in lengths)


def test_the_policies_are_those_named(tmp_path: Path) -> None:
    model = model_of(TINY)
    specs = policies_of(model, tmp_path)
    assert len(specs) == POLICIES
    for name, spec in specs.items():
        runtime = Runtime(model, spec)
        assert runtime.spec.startswith(name.partition("(")[0])


def test_the_second_look_is_a_look_of_its_own() -> None:
    """Worked out by hand: one window of two positions, of which the second is padding."""
    before = FastWeights({"1": torch.zeros(1, 1, 1, 2)}, {})
    after = FastWeights({"1": torch.tensor([[[[3.0, 4.0]]]])}, {})
    hidden = torch.tensor([[[3.0, -4.0], [9.0, 9.0]]])
    closed = ClosedWindow(hidden, hidden, torch.tensor([1]), before, after)
    found = bench_runtime_gate.looked_at(closed, 0)
    assert found["state_change"] == pytest.approx(1.0)
    half = math.sqrt(12.5)
    np.testing.assert_allclose(found["summary"], [3 / half, -4 / half] * 2, rtol=1e-6)


def test_a_spread_is_a_median_and_two_percentiles() -> None:
    found = spread("ratio", np.arange(11.0))
    assert found == {"ratio": 5.0, "ratio_low": 1.0, "ratio_high": 9.0}


def test_the_command_prints_what_was_measured(
    found: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench_runtime, "run_bench", lambda **_: found)
    assert main(["bench", "runtime", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(["bench", "runtime"]) == 0
    out = capsys.readouterr().out
    assert "predicted_gain" in out
    assert "times the ideal (wanted: 1.10 at most)" in out
    assert main(["bench", "runtime", "--rounds", "0"]) == 2
